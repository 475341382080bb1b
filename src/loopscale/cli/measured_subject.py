"""A model with the windows it is measured on, its short name, and a bar for what takes long."""

import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from jsonargparse import Namespace
from rich.console import Console
from rich.progress import track
from torch import Tensor

from loopscale.batches import Batch, inputs_and_labels
from loopscale.cli.subject import load_subject, load_windows
from loopscale.data import Data, batches
from loopscale.errors import InputError
from loopscale.evaluate import sliding_windows
from loopscale.stepping import Looped

T = TypeVar("T")


@dataclass(frozen=True)
class Subject:
    """One model with the windows it is measured on."""

    label: str
    model: Looped
    windows: Sequence[Batch]
    described: str
    bytes_per_token: float

    @property
    def inputs(self) -> Tensor:
        """Every window's inputs, (windows, seq)."""
        return torch.cat([inputs_and_labels(batch)[0] for batch in self.windows])


def labels(names: Sequence[str]) -> list[str]:
    """Return short names: what is not common to all paths, and the whole name where that is nothing."""
    parts = [Path(name).parts for name in names]
    if len({Path(name).resolve() for name in names}) < len(parts):
        raise InputError("the same model is given twice: name each once.")
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]


def measured_subject(args: Namespace, name: str, label: str) -> Subject:
    """Load a model and its windows. Raises `InputError` where one of them cannot be had."""
    model = load_subject(args, name)
    data, length = load_windows(args, name, model)
    windows, described = _windows(args, data, length)
    return Subject(label, model, windows, described, data.bytes_per_token)


def _windows(args: Namespace, data: Data, length: int) -> tuple[list[Batch], str]:
    """Return the validation windows, spread over the text or sliding from its start, and what they are in words."""
    if args.limit < 0 or args.batch_size < 1:
        raise InputError(f"--limit {args.limit}, --batch_size {args.batch_size}: give at least 0 and at least 1.")
    if args.stride is not None:
        ids = torch.from_numpy(data.valid.tokens.ids.astype("int64"))
        kept = ids[: (args.limit - 1) * args.stride + length + 1] if args.limit else ids
        sliding: list[Batch] = list(sliding_windows(kept, length, args.stride, args.batch_size))
        return sliding, f"sliding windows of {length} with stride {args.stride} over {len(kept):,} tokens"
    wanted = min(args.limit or len(data.valid), len(data.valid))
    rows = torch.cat(list(batches(data.valid, 1, limit=wanted)))
    return list(rows.split(args.batch_size)), f"{wanted} of {len(data.valid):,} windows of {length}"


def progress(label: str) -> Any:
    """Return a progress bar with time left on stderr, silent where nobody watches."""

    def show(sequence: Sequence[T], description: str) -> Iterable[T]:
        bar = partial(track, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        return bar(sequence, f"{label}: {description}")

    return show
