"""`python -m loopscale`: the command line, for launchers such as torchrun."""

import sys

from loopscale.cli.main import main

sys.exit(main())
