"""Train, audit and run looped language models."""
