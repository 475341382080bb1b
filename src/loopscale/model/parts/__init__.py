"""Parts that fill the slots of the loop, with a registry per slot and what each does to the state."""

from collections.abc import Mapping
from typing import Any

from loopscale.mechanism import Effect
from loopscale.model.parts.carry import CARRIES, Carry
from loopscale.model.parts.coda import CODA_INPUTS, CodaInput
from loopscale.model.parts.injection import INJECTIONS, Injection
from loopscale.model.parts.part import IdentityLinear, LayerSizes, Part, Sizes, build_norm, build_part
from loopscale.model.parts.readout import READOUTS, Readout
from loopscale.model.parts.relaxation import RELAXATIONS, Relaxation
from loopscale.model.parts.residual import RESIDUALS, Residual

# the field of the configuration -> the parts that may fill it
SLOTS: Mapping[str, dict[str, Any]] = {
    "injection": INJECTIONS,
    "residual": RESIDUALS,
    "relaxation": RELAXATIONS,
    "recurrence": CARRIES,
    "readout": READOUTS,
    "coda_input": CODA_INPUTS,
}

__all__ = [
    "CARRIES",
    "CODA_INPUTS",
    "INJECTIONS",
    "READOUTS",
    "RELAXATIONS",
    "RESIDUALS",
    "SLOTS",
    "Carry",
    "CodaInput",
    "Effect",
    "IdentityLinear",
    "Injection",
    "LayerSizes",
    "Part",
    "Readout",
    "Relaxation",
    "Residual",
    "Sizes",
    "build_norm",
    "build_part",
]
