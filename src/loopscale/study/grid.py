"""Grids of conditions: each a small edit of one base run.

A further condition is one line; a further grid one mapping in `GRIDS`, or a YAML file (`read_grid`).
"""

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import lru_cache
from itertools import product
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub.errors import StrictDataclassError

from loopscale.display import Style, fresh_styles
from loopscale.errors import InputError, unknown
from loopscale.model import LoopedConfig
from loopscale.model.size import parameters_of
from loopscale.storage import check_yaml, from_json, require_no_stream, to_json
from loopscale.train import MODEL_FIELDS, RunConfig, TrainConfig

from .results import Results

PENALTY = 0.01  # the paper's coefficient
MOST_MIXES = 1000
TRAINING = "train."  # begins the name of an edited field of the training; the others are fields of the model
ALL = "all"  # names every condition of a grid
EQUAL = "equal"  # an `intermediate_size` with which the model has as many parameters as the base
RATE = "train.learning_rate"
# fields that a study has one of, and the option that gives it
SHARED = {"num_loops": "--model.num_loops", "trained_loops": "--model.num_loops", f"{TRAINING}seed": "--seeds"}
LONGEST = 120  # letters of a condition's name

Edit = Mapping[str, Any]  # fields of the model's configuration, and of the training
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

#: What may keep the scale of a looped state in bounds, one way each; `none` is the blind model.
SCALE_CONTROL: Grid = {
    "none": {},
    "layernorm": {"readout": "layernorm"},
    "raw": {"readout": "raw"},
    "final_rmsnorm": {"readout": "final_rmsnorm"},
    "power": {"readout": {"kind": "power", "alpha": 0.5}},
    "penalty-0.001": {"norm_penalty_coef": 0.001},
    "penalty-0.01": {"norm_penalty_coef": 0.01},
    "penalty-0.1": {"norm_penalty_coef": 0.1},
    "anchor": {"penalties": [{"kind": "anchor", "coefficient": 0.01, "target": 1.0}]},
    "jacobian": {"penalties": [{"kind": "jacobian", "coefficient": 0.01}]},
    "controller": {"train.monitor_every": 10, "train.scale_target": 1.0},
    "annealed": {"supervision": "annealed"},
    "inter_loop_norm": {"recurrence": "rmsnorm"},
    "inter_loop_norm-sandwich": {"recurrence": "rmsnorm", "residual": "sandwich"},
    "sandwich": {"residual": "sandwich"},
    "post_add": {"residual": "post_add"},
    "layer_scale": {"residual": "layer_scale"},
    "scaled": {"residual": "scaled"},
    "deepnorm": {"residual": "deepnorm"},
    "damped": {"recurrence": "damped"},
    "gated": {"recurrence": "gated"},
    "inject-add": {"injection": "add"},
    "inject-linear": {"injection": "linear", "intermediate_size": EQUAL},
    "inject-diagonal": {"injection": "diagonal", "intermediate_size": EQUAL},
    "inject-orthogonal": {"injection": "orthogonal"},
}

GRIDS: Mapping[str, Grid] = {"paper": PAPER, "scale-control": SCALE_CONTROL}

#: Fields that every condition of a document states, edited or not.
STATED = ("supervision", "readout", "recurrence", "norm_penalty_coef")


def named_conditions(names: Iterable[str] | None, grid: Grid = PAPER) -> dict[str, Edit]:
    """Return the named conditions in the grid's order, those at a learning rate of their own after them.

    None and `all` are those of the grid. Raises `InputError` for an unknown one.
    """
    told = [ALL] if names is None else list(dict.fromkeys(names))
    found: dict[str, Edit] = dict(grid) if ALL in told else {}
    for name in told:
        if name != ALL:
            if (edit := edit_of(name, grid)) is None:
                raise unknown("condition", name, (*grid, ALL))
            found[name] = edit
    places = {name: place for place, name in enumerate(grid)}
    return {name: found[name] for name in sorted(found, key=lambda name: place_of(name, places))}


def place_of(name: str, places: Mapping[str, int]) -> tuple[int, float]:
    """Return what orders conditions: the grid's places, then learning rates of their own."""
    condition, rate = (name, None) if name in places else split_rate(name)
    return places[condition], rate or 0.0


def edited_fields(grid: Grid = PAPER) -> set[str]:
    """Return the fields that the conditions of a grid differ in."""
    return {field for edit in grid.values() for field in edit}


def edited(base: RunConfig, edit: Edit) -> RunConfig:
    """Return the run of a condition."""
    model = {name: value for name, value in edit.items() if not name.startswith(TRAINING)}
    training = {name.removeprefix(TRAINING): edit[name] for name in edit.keys() - model.keys()}
    if model.get("intermediate_size") == EQUAL:
        model["intermediate_size"] = _equal_size(base, {**model, "intermediate_size": None})
    run, train = base.with_model(**model), base.train
    if training:
        train = from_json({**asdict(train), **training}, TrainConfig, "the grid", "change its values")
    try:
        run.model_config(None)
    except StrictDataclassError as error:
        raise InputError(f"the grid: {' '.join(str(error).split())}.") from error
    return replace(run, train=train)


def _equal_size(base: RunConfig, edit: Edit) -> int:
    """Return the size of the feed-forward blocks with which the edited model is as large as the base."""
    ours, theirs = base.with_model(**edit).model_config(None), base.model_config(None)
    usual = theirs.intermediate_size or 0
    larger, smaller = _parameters(ours, usual), _parameters(ours, usual - 1)
    return usual - round((larger - _parameters(theirs, usual)) / (larger - smaller))


def _parameters(config: LoopedConfig, intermediate_size: int) -> int:
    return _counted(to_json({**config.to_dict(), "intermediate_size": intermediate_size}))


@lru_cache
def _counted(config: str) -> int:
    return parameters_of(LoopedConfig(**json.loads(config)))


def at_rate(name: str, rate: float) -> str:
    """Return the name of a condition at a learning rate of its own."""
    return f"{name}@{rate:g}"


def split_rate(name: str) -> tuple[str, float | None]:
    """Return the condition that a name stands for, and its own learning rate where it has one."""
    condition, _, rate = name.rpartition("@")
    try:
        return (condition, float(rate)) if condition else (name, None)
    except ValueError:
        return name, None


def edit_of(name: str, grid: Grid) -> Edit | None:
    """Return the edit that a condition's name stands for, None where the grid has none."""
    if name in grid:
        return grid[name]
    condition, rate = split_rate(name)
    return {**grid[condition], RATE: rate} if condition in grid and rate is not None else None


def grid_named(name: str) -> Grid:
    """Return a grid by its name, or that of a YAML file. Raises `InputError` where there is neither."""
    if name in GRIDS:
        return GRIDS[name]
    path = Path(name)
    if path.suffix not in (".yaml", ".yml"):
        raise unknown("grid", name, GRIDS)
    return read_grid(path)


def read_grid(path: Path) -> Grid:
    """Return the grid of a YAML file: every mix of the values it lists for fields (`train.` begins those of training).

    Raises `InputError` for a file that is none, an unknown field and a field without a list of values.
    """
    require_no_stream(path)
    try:
        text = path.read_text(encoding="utf-8")
        check_yaml(text, str(path))
        listed = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"no grid at {path}: give a YAML file of fields with the values of each.") from error
    if not isinstance(listed, dict) or not listed:
        raise InputError(f"{path} holds no grid: give fields, each with a list of values, as readout: [raw, rmsnorm].")
    known = [*(f.name for f in MODEL_FIELDS), *(f"{TRAINING}{f.name}" for f in fields(TrainConfig))]
    for field, values in listed.items():
        if field in SHARED:
            raise InputError(f"{path}: '{field}' is one for a whole study: give {SHARED[field]}, or several studies.")
        if field not in known:
            raise unknown(f"field of {path}", str(field), known)
        if not isinstance(values, list) or not values:
            raise InputError(f"{path}: '{field}' is {values!r}: give a list of its values.")
    if (mixes := math.prod(map(len, listed.values()))) > MOST_MIXES:
        raise InputError(f"{path} asks for {mixes:,} mixes of its values, each a run: give at most {MOST_MIXES:,}.")
    edits = [dict(zip(listed, values, strict=True)) for values in product(*listed.values())]
    try:
        return dict(zip(_names_of(edits), edits, strict=True))
    except TypeError as error:
        raise InputError(f"{path}: {error}: give numbers, words, lists or mappings.") from error


def _names_of(edits: Sequence[Edit]) -> list[str]:
    """Return the conditions' names, which are those of folders too: numbered where they would be alike or too long."""
    words = [[f"{field.removeprefix(TRAINING)}={to_json(value)}" for field, value in edit.items()] for edit in edits]
    names = [re.sub(r"[^\w.=,+-]+", "", ",".join(each)) for each in words]
    if len(set(names)) == len(names) and max(map(len, names)) <= LONGEST:
        return names
    return [f"{i},{name[:LONGEST]}" for i, name in enumerate(names, 1)]


def stated_fields(config: LoopedConfig, edit: Edit) -> dict[str, Any]:
    """Return what a document says of a condition's model: the stated fields and those that it edits."""
    return {field: getattr(config, field, edit.get(field)) for field in dict.fromkeys((*STATED, *edit))}


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
