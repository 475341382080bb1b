"""Subject of a command: its model, where it runs, and the text it is measured on, as its own run read it."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, final

import numpy as np
import torch
from jsonargparse import Namespace
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from loopscale.batches import Batch, inputs_and_labels
from loopscale.data import (
    CORPORA,
    Corpus,
    Tokens,
    Windows,
    batches,
    load_corpus,
    load_tokenizer,
    require_vocabulary,
    tokenize,
)
from loopscale.data.loading import token_notes
from loopscale.data.streaming import stream_of
from loopscale.errors import InputError, unknown
from loopscale.evaluate import sliding_windows
from loopscale.facts import facts_of
from loopscale.halting.calibrated import fingerprint
from loopscale.load import load_model, load_tokenizer_of, require_finite
from loopscale.model.size import require_depth
from loopscale.processes import agreed, require_alike
from loopscale.stepping import Looped
from loopscale.storage import resolved
from loopscale.system.device import device_named
from loopscale.system.provenance import Provenance, provenance

SEQUENCE_LENGTH = 256  # at most, where no run says and the model has more positions
SPLITS = ("valid", "train", "all")
DEFAULTS = Provenance(Path(), "stdlib", "", SEQUENCE_LENGTH, None, "train", None, None)
OPTIONS = ("corpus", "text_field", "tokenizer", "sequence_length")


def load_subject(args: Namespace, name: str) -> Looped:
    """Return a model on the device that was asked for. Raises `InputError` for one that is not there."""
    device = device_named(args.device)
    for option in ("loops", "max_loops"):
        require_depth(f"--{option}", args.get(option) or 0)
    model = load_model(name, trust_remote_code=args.trust_remote_code)
    assert isinstance(model, torch.nn.Module)
    require_finite(model, name)
    try:
        model.to(device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(f"--device {device} cannot be used here: {reason}.") from error
    return model


@final
@dataclass(frozen=True)
class Text:
    """The tokens of one split of a text, to be cut into windows, and where they come from."""

    tokens: Tokens
    length: int
    bytes_per_token: float
    facts: Mapping[str, Any]
    notes: Sequence[str]

    def spread(self, wanted: int | None, rows: int) -> list[Batch]:
        """Return so many windows that do not overlap, spread evenly; None, or a text below one window: all tokens."""
        if wanted is None or len(self.tokens.ids) <= self.length:
            return self.sliding(self.length, None, rows)
        windows = Windows(self.tokens, self.length, self.length)
        return list(torch.cat(list(batches(windows, 1, limit=wanted))).split(rows))

    def sliding(self, stride: int, wanted: int | None, rows: int) -> list[Batch]:
        """Return windows that slide over the text, scoring every token once; the first `wanted` of them."""
        ids = torch.from_numpy(self.tokens.ids.astype(np.int64))
        if len(ids) < 2:
            raise InputError(f"{self.facts['corpus']} is one token long: there is nothing to predict in it.")
        kept = ids if wanted is None else ids[: (wanted - 1) * stride + self.length + 1]
        length = min(self.length, len(kept) - 1)
        return list(sliding_windows(kept, length, min(stride, length) if length < self.length else stride, rows))

    def facts_of(self, windows: Sequence[Batch], stride: int | None = None) -> Mapping[str, Any]:
        """Return what some windows of the text are."""
        labels = [inputs_and_labels(batch)[1] for batch in windows]
        return {
            **self.facts,
            "sequence_length": labels[0].shape[1],
            "stride": min(self.length if stride is None else stride, labels[0].shape[1]),
            "windows": sum(map(len, labels)),
            "of_windows": max(sum(map(len, labels)), (len(self.tokens.ids) - 1) // self.length),
            "tokens": sum(int((some >= 0).sum()) for some in labels),
        }


@final
@dataclass(frozen=True)
class Subject:
    """One model with the windows it is measured on. `described` says in words what they are, `facts` as values."""

    label: str
    model: Looped
    windows: Sequence[Batch]
    described: str
    facts: Mapping[str, Any]
    bytes_per_token: float

    @property
    def inputs(self) -> Tensor:
        """Every window's inputs, (windows, seq)."""
        return torch.cat([inputs_and_labels(batch)[0] for batch in self.windows])


def measured_subject(
    args: Namespace, name: str, label: str, wanted: int | None, stride: int | None = None, halves: bool = False
) -> Subject:
    """Load a model and the windows of its text. Raises `InputError` where one of them cannot be had.

    `wanted` is the number of windows, None for all; with a `stride` they slide. With `halves` there are two batches at
    least, where there are two windows.
    """
    require_counts(args, wanted)
    model = load_subject(args, name)
    text = read_text(args, name, model)
    windows = text.spread(wanted, args.batch_size) if stride is None else text.sliding(stride, wanted, args.batch_size)
    if halves and len(windows) == 1:
        windows = halved(windows[0])
    facts = text.facts_of(windows, stride)
    return Subject(label, model, windows, in_words(facts, text.notes), facts, text.bytes_per_token)


def loaded(load: Callable[[], list[Subject]]) -> list[Subject]:
    """Return subjects that every process loads; they share their windows out.

    Raises `InputError` where the processes, on several machines, have not the same models or texts.
    """
    subjects = agreed(load)
    for subject in subjects:
        for fact in subject.facts:
            require_alike(f"{fact} of {subject.label}", partial(subject.facts.get, fact))
        require_alike(f"hash of the weights of {subject.label}", partial(fingerprint, subject.model))
    return subjects


def require_counts(args: Namespace, wanted: int | None) -> None:
    """Raise `InputError` for fewer than 1 window, or 1 at a time."""
    if args.batch_size < 1 or (wanted is not None and wanted < 1):
        raise InputError(f"--windows is {wanted} and --batch_size {args.batch_size}: give at least 1 of each.")


def halved(batch: Batch) -> list[Batch]:
    """Return a batch as two, where it has two rows."""
    half = (len(inputs_and_labels(batch)[0]) + 1) // 2
    if isinstance(batch, Tensor):
        return list(batch.split(half))
    return list(zip(*(part.split(half) for part in inputs_and_labels(batch)), strict=True))


def in_words(facts: Mapping[str, Any], notes: Sequence[str]) -> str:
    """Return what was measured as one line."""
    split = {"all": "whole text"}.get(facts["split"], f"{facts['split']} split")
    line = (
        f"{facts['windows']} of {facts['of_windows']:,} windows of the {split} of {facts['corpus']} (sequence_length "
        f"{facts['sequence_length']}, stride {facts['stride']}, {facts['tokens']:,} tokens)"
    )
    return "; ".join([line, *notes])


def read_text(args: Namespace, name: str, model: Looped) -> Text:
    """Return the split that was asked for, read as the model's own run read its text where nothing else is said."""
    if args.split not in (None, *SPLITS):
        raise unknown("split", args.split, SPLITS)
    run = provenance(name)
    own = run or replace(DEFAULTS, sequence_length=min(SEQUENCE_LENGTH, facts_of(model).positions or SEQUENCE_LENGTH))
    told = {option: args[option] for option in OPTIONS if args[option] is not None}
    used = replace(own, **told)
    if used.sequence_length < 1:
        raise InputError(f"--sequence_length is {used.sequence_length}: give at least 1.")
    corpus = _corpus(used, run, "corpus" in told)
    tokenizer = _tokenizer(args, name, run, corpus, model)
    tokens = _tokens(corpus, tokenizer, args.split or "valid")
    if (size := facts_of(model).vocab_size) is not None:
        tokens.require_vocabulary(size)
    facts = {
        "corpus": corpus.id.name,
        "sha256": corpus.id.sha256,
        "split": args.split or "valid",
        "text_field": used.text_field,
        "tokenizer": args.tokenizer or (run.tokenizer if run else "the model's own"),
        "settings_of_run": run is not None,
    }
    notes = [*_notes(run, told, corpus), *token_notes(tokenizer, tokens)]
    return Text(tokens, used.sequence_length, tokens.bytes_per_token, facts, notes)


def _notes(run: Provenance | None, told: Mapping[str, Any], corpus: Corpus) -> list[str]:
    """Return where the settings come from, what the options changed, and whether the text is the one trained on."""
    if run is None:
        given = ", ".join(f"{option} {value}" for option, value in told.items())
        return [f"no run.json beside the model: {given + ' as given, the rest ' if given else ''}by default"]
    changed = {option: value for option, value in told.items() if value != getattr(run, option)}
    notes = [f"{option} {value} where the run had {getattr(run, option)}" for option, value in changed.items()]
    if run.sha256 is not None and corpus.id.sha256 != run.sha256 and Path(run.corpus).name == corpus.id.name:
        notes.append(f"the text of {corpus.id.name} is another one than at training (its content hash differs)")
    return notes or ["settings of its run"]


def _corpus(used: Provenance, run: Provenance | None, given: bool) -> Corpus:
    try:
        if run is not None and run.stream and not given:
            return stream_of(found_from(run), used.text_field).held_out()
        return load_corpus(used.corpus if given or run is None else found_from(run), text_field=used.text_field)
    except InputError as error:
        if given or run is None:
            raise
        raise InputError(
            f"{str(error).rstrip('.')}: that is the text of the run in '{run.folder}'; bring it back, or name another "
            "one with --corpus."
        ) from error


def found_from(run: Provenance) -> str:
    """Return the run's text: as it was named, or, for who has moved to another folder, below one around the run's."""
    if run.corpus in CORPORA or Path(run.corpus).is_absolute() or Path(run.corpus).exists():
        return run.corpus
    return next((str(place / run.corpus) for place in run.folder.parents if (place / run.corpus).exists()), run.corpus)


def _tokenizer(
    args: Namespace, name: str, run: Provenance | None, corpus: Corpus, model: Looped
) -> PreTrainedTokenizerFast:
    """Return the tokenizer that was named, or the one beside the model, or the one its run would make again."""
    size = facts_of(model).vocab_size
    if args.tokenizer is not None:
        return load_tokenizer(args.tokenizer, corpus, vocab_size=size)
    try:
        tokenizer = own_tokenizer(name, run)
    except InputError:
        if run is None or (run.tokenizer == "words" and corpus.id.sha256 != run.sha256):
            raise
        fit_on: Any = run.fit_on  # any text of a run.json, and looked at by what takes it
        return load_tokenizer(run.tokenizer, corpus, vocab_size=size, fit_on=fit_on)
    if size is not None:
        require_vocabulary(tokenizer, size)
    return tokenizer


def own_tokenizer(name: str, run: Provenance | None) -> Any:
    """Return the tokenizer beside a model, or beside the run that a checkpoint belongs to."""
    try:
        return load_tokenizer_of(name)
    except InputError:
        if run is None or run.folder == resolved(Path(name)):
            raise
        return load_tokenizer_of(str(run.folder))


def _tokens(corpus: Corpus, tokenizer: PreTrainedTokenizerFast, split: str) -> Tokens:
    if split != "all":
        return tokenize(corpus, tokenizer, "train" if split == "train" else "valid")
    parts = [tokenize(corpus, tokenizer, "train"), tokenize(corpus, tokenizer, "valid")]
    spelled = sum((Counter(part.spelled) for part in parts), Counter[str]())
    text_bytes = sum(part.text_bytes for part in parts)
    return Tokens(np.concatenate([part.ids for part in parts]), text_bytes, spelled=spelled)


def labels(names: Sequence[str]) -> list[str]:
    """Return short names: what is not common to all paths, and the whole name where that is nothing."""
    parts = [Path(name).parts for name in names]
    if len({resolved(Path(name)) for name in names}) < len(parts):
        raise InputError("the same model is given twice: name each once.")
    if len(parts) == 1:
        return ["/".join(parts[0][-2:])]
    while all(len(p) > 1 for p in parts) and len({p[0] for p in parts}) == 1:
        parts = [p[1:] for p in parts]
    while all(len(p) > 1 for p in parts) and len({p[-1] for p in parts}) == 1:
        parts = [p[:-1] for p in parts]
    return ["/".join(p) for p in parts]
