"""The looped transformer as a Hugging Face model. Importing it registers the Auto classes."""

from loopscale.hf import CACHE, register
from loopscale.model.backbone import LoopedModel
from loopscale.model.config import LoopedConfig
from loopscale.model.facts import config_losses, formula_flops
from loopscale.model.looped import LoopedForCausalLM
from loopscale.model.outputs import LoopedOutput
from loopscale.model.parts import CARRIES, CODA_INPUTS, INJECTIONS, READOUTS, RELAXATIONS, RESIDUALS
from loopscale.model.presets import PRESETS, preset_config

register(LoopedConfig, LoopedForCausalLM)

__all__ = [
    "CACHE",
    "CARRIES",
    "CODA_INPUTS",
    "INJECTIONS",
    "PRESETS",
    "READOUTS",
    "RELAXATIONS",
    "RESIDUALS",
    "LoopedConfig",
    "LoopedForCausalLM",
    "LoopedModel",
    "LoopedOutput",
    "config_losses",
    "formula_flops",
    "preset_config",
]
