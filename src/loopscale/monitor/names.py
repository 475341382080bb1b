"""Names of modules, as their author knows them: what compilers, parallel and adapter wrappers put in front is left out.

A regular expression must find the same module whether the model is wrapped or not.
"""

import re
from collections.abc import Mapping
from difflib import get_close_matches

from torch import nn

from loopscale.errors import InputError
from loopscale.hf import modules_by_all_names

# segments that wrappers add: torch.compile, FSDP 1, checkpoint_wrapper, Lightning's and DeepSpeed's
INSIDE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "_forward_module"}
IN_FRONT = (("module",), ("base_model", "model"))  # DistributedDataParallel, PEFT: ordinary words elsewhere
LISTS = (nn.ModuleList, nn.ModuleDict)
SHOWN = 4


def clean(name: str) -> str:
    """Return a module's name without the wrappers' parts: `_orig_mod.module.core.3` is `core.3`."""
    parts = tuple(part for part in name.split(".") if part and part not in INSIDE)
    while fronts := [front for front in IN_FRONT if parts[: len(front)] == front]:
        parts = parts[len(fronts[0]) :]
    return ".".join(parts)


def find_modules(model: nn.Module, pattern: str, option: str) -> Mapping[str, nn.Module]:
    """Return the modules whose whole name the regular expression matches, by their names without wrappers.

    A module has every name that leads to it, with wrappers and without. A pattern that matches no whole name may match
    the end of exactly one module's, from a dot on. Raises `InputError`, naming the nearest, where it matches none or
    the ends of several, and where it is no regular expression.
    """
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise InputError(f"{option}={pattern!r} is no regular expression: {error}.") from error
    named: dict[str, nn.Module] = {}
    meant: dict[str, nn.Module] = {}
    for name, module in modules_by_all_names(model):
        short = clean(name)
        named.setdefault(short, module)  # the wrapper before what it wraps
        if expression.fullmatch(name) or expression.fullmatch(short):
            meant.setdefault(short, named[short])
    callable_ = {name: module for name, module in named.items() if not isinstance(module, LISTS)}
    whole = _distinct({name: module for name, module in meant.items() if name in callable_})
    if whole:
        return whole
    ends = _distinct(
        {name: module for name, module in callable_.items() if any(map(expression.fullmatch, _ends(name)))}
    )
    if len(ends) == 1:
        return ends
    if ends:
        raise InputError(
            f"{option}={pattern!r} matches the end of {len(ends)} modules' names ({_some(list(ends))}): give one whole "
            "name, or an expression for the whole names of all that are meant."
        )
    raise InputError(f"{option}={pattern!r} matches no module: {_near(pattern, named, callable_)}.")


def _distinct(named: Mapping[str, nn.Module]) -> Mapping[str, nn.Module]:
    """Return each module once, by the first of its names."""
    first = {id(module): name for name, module in reversed(list(named.items()))}
    return {name: module for name, module in named.items() if first[id(module)] == name}


def _ends(name: str) -> list[str]:
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]


def _near(pattern: str, named: Mapping[str, nn.Module], known: Mapping[str, nn.Module]) -> str:
    """Return what may be meant: the entries of a list, else the names that look most alike."""
    inside = [
        name for name in known if name.rpartition(".")[0] in named and re.fullmatch(pattern, name.rpartition(".")[0])
    ]
    if inside:
        return f"it is a list, which is never called itself; its modules are {_some(inside)}"
    plain = re.sub(r"\\(.)", r"\1", pattern)
    close = get_close_matches(plain, [name for name in known if name], n=SHOWN, cutoff=0.5)
    last = plain.rpartition(".")[2]
    close += [name for name in known if last and name.rpartition(".")[2] == last and name not in close]
    if close:
        return f"the nearest names are {_some(close)}"
    return f"the model's modules are {_some([name for name in known if name and '.' not in name] or list(known))}"


def _some(names: list[str]) -> str:
    shown = ", ".join(f"'{name}'" for name in names[:SHOWN])
    return f"{shown} and {len(names) - SHOWN} more" if len(names) > SHOWN else shown
