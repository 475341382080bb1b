"""The grid: the paper's seven conditions, and the inter-loop norm as an eighth (arXiv 2606.24898)."""

from collections.abc import Iterable, Mapping
from typing import Any

from loopscale.errors import unknown

PENALTY = 0.01  # the paper's coefficient

# name -> fields of the model's configuration
CONDITIONS: Mapping[str, Mapping[str, Any]] = {
    "terminal-rmsnorm": {"supervision": "terminal", "readout": "rmsnorm"},
    "terminal-raw": {"supervision": "terminal", "readout": "raw"},
    "per_loop-rmsnorm": {"supervision": "per_loop", "readout": "rmsnorm"},
    "per_loop-raw": {"supervision": "per_loop", "readout": "raw"},
    "per_loop-final_rmsnorm": {"supervision": "per_loop", "readout": "final_rmsnorm"},
    "terminal-rmsnorm-penalty": {"supervision": "terminal", "readout": "rmsnorm", "norm_penalty_coef": PENALTY},
    "per_loop-rmsnorm-penalty": {"supervision": "per_loop", "readout": "rmsnorm", "norm_penalty_coef": PENALTY},
    "per_loop-rmsnorm-normed": {"supervision": "per_loop", "readout": "rmsnorm", "recurrence": "rmsnorm"},
}


def chosen(names: Iterable[str] | None) -> dict[str, Mapping[str, Any]]:
    """Return the named conditions in the grid's order, all for None; raises `InputError` for an unknown one."""
    wanted = set(CONDITIONS if names is None else names)
    for name in sorted(wanted):
        if name not in CONDITIONS:
            raise unknown("condition", name, CONDITIONS)
    return {name: fields for name, fields in CONDITIONS.items() if name in wanted}
