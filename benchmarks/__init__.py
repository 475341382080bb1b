"""The yardstick: our steps beside a textbook implementation and the machine's own matrix rate, in one run."""

import os

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # the profiler's own messages; read when torch is imported
