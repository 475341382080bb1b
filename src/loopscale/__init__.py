"""Train, audit and run looped language models: does your loss control the state you carry?"""

from loopscale.errors import InputError
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.stepping import Looped, continue_loops, run_loops

__version__ = "0.1.0"
__all__ = ["InputError", "Looped", "LoopedConfig", "LoopedForCausalLM", "continue_loops", "run_loops"]
