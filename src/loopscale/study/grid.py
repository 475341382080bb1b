"""Grids of conditions: each a small edit of one base configuration.

A further condition is one line; a further grid one mapping in `GRIDS`.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from loopscale.display import Style, fresh_styles
from loopscale.errors import unknown
from loopscale.model import LoopedConfig

from .results import Results

PENALTY = 0.01  # the paper's coefficient

Edit = Mapping[str, Any]  # fields of the model's configuration
Grid = Mapping[str, Edit]

#: The seven conditions of arXiv 2606.24898, and the inter-loop norm as an eighth.
PAPER: Grid = {
    "terminal-rmsnorm": {"supervision": "terminal", "readout": "rmsnorm"},
    "terminal-raw": {"supervision": "terminal", "readout": "raw"},
    "per_loop-rmsnorm": {"supervision": "per_loop", "readout": "rmsnorm"},
    "per_loop-raw": {"supervision": "per_loop", "readout": "raw"},
    "per_loop-final_rmsnorm": {"supervision": "per_loop", "readout": "final_rmsnorm"},
    "terminal-rmsnorm-penalty": {"supervision": "terminal", "readout": "rmsnorm", "norm_penalty_coef": PENALTY},
    "per_loop-rmsnorm-penalty": {"supervision": "per_loop", "readout": "rmsnorm", "norm_penalty_coef": PENALTY},
    "per_loop-rmsnorm-normed": {"supervision": "per_loop", "readout": "rmsnorm", "recurrence": "rmsnorm"},
}

GRIDS: Mapping[str, Grid] = {"paper": PAPER}

#: Fields that every condition of a document states, edited or not.
STATED = ("supervision", "readout", "recurrence", "norm_penalty_coef")


def named_conditions(names: Iterable[str] | None, grid: Grid = PAPER) -> dict[str, Edit]:
    """Return the named conditions in the grid's order, all for None; raises `InputError` for an unknown one."""
    wanted = set(grid if names is None else names)
    for name in sorted(wanted):
        if name not in grid:
            raise unknown("condition", name, grid)
    return {name: edit for name, edit in grid.items() if name in wanted}


def edited_fields(grid: Grid = PAPER) -> set[str]:
    """Return the fields that the conditions of a grid differ in."""
    return {field for edit in grid.values() for field in edit}


def stated_fields(config: LoopedConfig, edit: Edit) -> dict[str, Any]:
    """Return what a document says of a condition's model: the stated fields and those that it edits."""
    return {field: getattr(config, field) for field in dict.fromkeys((*STATED, *edit))}


def condition_styles(results: Results) -> dict[str, Style]:
    """Return a line style per condition: colour says what the model does, dashes where its loss is applied.

    Models of the grid come first, so that a condition looks the same in every study that holds it; one of another grid
    has colours of its own.
    """
    usual = LoopedConfig().to_dict()
    known = sorted(PAPER.values(), key=lambda edit: edit["supervision"])  # per_loop first: solid
    roles = {name: _role(condition.model, usual) for name, condition in results.conditions.items()}
    return fresh_styles(roles, first=[_role(edit, usual) for edit in known])


def _role(model: Edit, usual: Mapping[str, Any]) -> tuple[str, str]:
    """Return what a model does and its supervision, without fields that are as they usually are."""
    edits = {field: value for field, value in model.items() if field != "supervision" and value != usual.get(field)}
    return json.dumps(edits, sort_keys=True, default=str), str(model.get("supervision"))
