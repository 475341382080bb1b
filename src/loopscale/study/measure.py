"""What is measured on every trained model of a study. A further measurement is one more function in `MEASUREMENTS`."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor

from loopscale.audit import run_audit
from loopscale.data import Data, batches
from loopscale.errors import InputError
from loopscale.evaluate import run_depth, run_halting
from loopscale.model import LoopedForCausalLM

BATCH_SIZE = 32
CURVE_BATCHES = 4
AUDIT_BATCHES = 2
AUDIT_BATCH_SIZE = 8
HALTING_BATCHES = 3  # for calibration, and as many others for the test


def depth(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return the curves to 3K with their costs, by reading of the exits, on windows spread over the valid split."""
    return run_depth(model, _valid(model, data, BATCH_SIZE, CURVE_BATCHES), bytes_per_token=data.bytes_per_token)


def halting(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return every halting rule, calibrated on every other batch of the valid split and tested on those between."""
    windows = list(_valid(model, data, BATCH_SIZE, 2 * HALTING_BATCHES))
    return run_halting(model, windows[::2], windows[1::2])


def audit(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return verdicts, curves and interventions of the audit on a few windows."""
    return run_audit(model, _valid(model, data, AUDIT_BATCH_SIZE, AUDIT_BATCHES))


MEASUREMENTS: Mapping[str, Callable[[LoopedForCausalLM, Data], dict[str, Any]]] = {
    "halting": halting,
    "audit": audit,
}


def measure(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return every measurement of one trained model as plain values, the curve that all tables start from in front."""
    measured = {"depth": depth(model, data)} | {
        name: _without_failing(function, model, data) for name, function in MEASUREMENTS.items()
    }
    exits = measured["depth"]["trained"]["exits"]
    K = model.num_loops
    return {
        "perplexity": [point["perplexity"] for point in exits[:K]],
        "cross_entropy": [point["cross_entropy"] for point in exits[:K]],
        "norm": [point["norm"] for point in exits[:K]],
        "perplexity_by_depth": [point["perplexity"] for point in exits],
        "norm_by_depth": [point["norm"] for point in exits],
        "tokens": measured["depth"]["trained"]["tokens"],
        **measured,
    }


def _without_failing(
    function: Callable[[LoopedForCausalLM, Data], dict[str, Any]], model: LoopedForCausalLM, data: Data
) -> dict[str, Any]:
    """Return a measurement, or why there is none: of a run that diverged, which is to be reported like any other."""
    try:
        return function(model, data)
    except InputError as error:
        return {"failed": str(error)}


def _valid(model: LoopedForCausalLM, data: Data, size: int, limit: int) -> Iterator[Tensor]:
    return (batch.to(model.device) for batch in batches(data.valid, size, limit))
