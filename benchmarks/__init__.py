"""The yardstick: our steps beside a textbook implementation and the machine's own matrix rate, in one run."""
