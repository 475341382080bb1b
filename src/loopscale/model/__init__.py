"""The looped transformer as a Hugging Face model. Importing it registers the Auto classes."""

from loopscale.hf import CACHE, register
from loopscale.model.backbone import LoopedModel
from loopscale.model.blocks import StepContext
from loopscale.model.config import PRESETS, LoopedConfig, preset_config
from loopscale.model.looped import LoopedForCausalLM
from loopscale.model.outputs import LoopedOutput
from loopscale.model.readout import READOUTS
from loopscale.model.recurrence import RECURRENCES

register(LoopedConfig, LoopedForCausalLM)

__all__ = [
    "CACHE",
    "PRESETS",
    "READOUTS",
    "RECURRENCES",
    "LoopedConfig",
    "LoopedForCausalLM",
    "LoopedModel",
    "LoopedOutput",
    "StepContext",
    "preset_config",
]
