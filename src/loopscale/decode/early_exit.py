"""Early exit while decoding: every token leaves at the first loop where a calibrated rule lets it go."""

from collections.abc import Callable
from functools import partial
from typing import Protocol, Unpack, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from loopscale.call import Call
from loopscale.decode.full_depth import refuse_contrast
from loopscale.decode.request import Options, read_request
from loopscale.decode.session import Session, Window, enough_threads
from loopscale.decode.writer import DecodeStats, Generation, Writer
from loopscale.errors import unknown
from loopscale.model.native import require_native
from loopscale.stepping import Injected, Logits, Looped, State, Tokens

EXIT_SLOTS = ("recompute", "share_last")

# (loop k from 0, its state, its logits when asked for) -> which tokens may leave; called for k = 0, 1, ... in turn
Watch = Callable[[int, State, Callable[[], Logits]], Bool[Tensor, "batch seq"]]


@runtime_checkable
class ExitRule(Protocol):
    """A halting rule with its threshold, such as `loopscale.evaluate.CalibratedRule`."""

    def watch(self, model: Looped) -> Watch:
        """Return what to ask at every loop of one pass."""
        ...


@torch.inference_mode()
def early_exit_generate(
    model: nn.Module,
    input_ids: Tokens,
    max_new_tokens: int,
    rule: ExitRule,
    *,
    exit_slots: str = "recompute",
    **options: Unpack[Options],
) -> Generation:
    """Decode with each new token leaving at the first exit that `rule` allows; the prompt runs at full depth.

    A later token that goes deeper must attend to slots that a token which left never filled. `exit_slots` says what it
    finds there: `recompute`, the true keys and values, for which the loops left out are run then, together with the
    later token's own (exact: as if every token had gone on to full depth after its exit was read); `share_last`, those
    of the last loop the token ran (cheaper and approximate). Rows of a batch go on together until the slowest may
    leave; each is written from its own exit.

    Raises `InputError` for prompts, lengths or options that do not fit.
    """
    refuse_contrast(options, "early exit", "may leave before one of them")
    native = require_native(model, "early exit")
    request, sampling = read_request(native, input_ids, max_new_tokens, **options)
    writer = Writer(request)
    session = Session(native, request.pads, request.capacity, request.num_loops)
    exits = EarlyExit(session, rule, exit_slots)
    with enough_threads(native):
        logits = exits.prefill(request.ids)
        while True:
            tokens = sampling.choose(logits, writer.prefixes)
            chosen = tokens[:, 0].tolist()
            for row in writer.unfinished:
                writer.write(row, [chosen[row]])
            if not writer.unfinished:
                counts = DecodeStats(passes=session.passes, token_loops=session.token_loops * request.rows)
                return writer.finish(counts)
            logits = exits.step(tokens, writer.unfinished)


@final
class EarlyExit:
    """Steps of one token per row, each as deep as the rule asks. All rows go equally deep, so that columns align."""

    def __init__(self, session: Session, rule: ExitRule, exit_slots: str = "recompute") -> None:
        if exit_slots not in EXIT_SLOTS:
            raise unknown("exit_slots", exit_slots, EXIT_SLOTS)
        self.session = session
        self.rule = rule
        self.exit_slots = exit_slots
        self.seen = 0  # columns of all tokens fed
        self.fed: list[tuple[Tokens, Injected | None]] = []  # tokens and their input e
        # what loop k is still to receive of tokens that left just before it. A token that goes on takes those before
        # it along, so that earlier tokens are never behind later ones and the waiting columns end where it stands.
        self.waiting: list[list[State]] = [[] for _ in range(session.num_loops)]
        # states that exit k has not been read from yet: those of neighbouring tokens up to the newest that loop k ran
        # on. The coda runs over them when the exit is next read, for what it makes of them is what that token sees.
        self.unread: list[list[State]] = [[] for _ in range(session.num_loops)]

    def prefill(self, ids: Tokens) -> Float[Tensor, "batch vocab"]:
        """Run the prompt at full depth; return the logits of its last token."""
        session = self.session
        window = session.window(ids, 0)
        self.fed = [(ids, window.context.injected)]
        self.seen = ids.shape[1]
        for k, z in enumerate(session.states(session.embed(ids, window), window, 0, session.num_loops)):
            self._arrive(k, z)
        session.passes = session.token_loops = 0
        return self._read(session.num_loops - 1, window)[:, -1]

    def step(self, tokens: Int[Tensor, "batch 1"], rows: list[int] | None = None) -> Float[Tensor, "batch vocab"]:
        """Feed one token per row; return each row's logits at its own exit. Only `rows` (default: all) count."""
        session, model, batch = self.session, self.session.model, tokens.shape[0]
        window = session.window(tokens, self.seen)
        self.fed.append((tokens, window.context.injected))
        self.seen += 1
        h = session.embed(tokens, window)
        call = Call(model, tokens, window.context) if model.reads_received else None
        watch = self.rule.watch(model if call is None else call)
        left = torch.zeros(batch, 1, dtype=torch.bool, device=h.device)
        gone = [False] * batch  # the same, known here
        logits: Tensor | None = None
        for k in range(session.num_loops):
            if self.waiting[k]:
                h = torch.cat([*self.waiting[k], h], 1)
                self.waiting[k] = []
            if h.shape[1] != window.length:
                window = self._window_of(h.shape[1])
            group = session.run(h, window, k, k + 1)
            z = group[:, -1:]
            self._arrive(k, group)
            read = _Once(partial(self._read, k, window))
            if call is not None:
                call.received = {k: h[:, -1:]}  # a gate reads the carried state
            last = k + 1 == session.num_loops
            leaves = ~left if last else watch(k, z, read) & ~left
            now = [True] * batch if last else leaves[:, 0].tolist()  # whether to go on: the one wait of a loop
            if any(now):
                logits = read()[:, -1] if logits is None else torch.where(leaves, read()[:, -1], logits)
                left, gone = left | leaves, [before or goes for before, goes in zip(gone, now, strict=True)]
            h = model.carry(group, k, window.context, h)
            if last or all(gone if rows is None else (gone[row] for row in rows)):
                break
        if not last:
            self._leave(k, h, z)
        assert logits is not None
        return logits

    def _window_of(self, length: int) -> Window:
        """Return the window of the last so many tokens: what waits was fed in steps of one, or is all there is."""
        ids, inputs = zip(*self.fed[-length:], strict=True)
        injected = None if inputs[0] is None else torch.cat(inputs, 1)
        return self.session.window(torch.cat(ids, 1), self.seen - length, injected)

    def _read(self, k: int, window: Window) -> Logits:
        """Return the logits of the newest token at exit k, which it has just come to."""
        unread, self.unread[k] = self.unread[k], []
        z = torch.cat(unread, 1) if len(unread) > 1 else unread[0]
        if z.shape[1] != window.length:  # states of earlier tokens wait here too
            window = self._window_of(z.shape[1])
        return self.session.read(z, window, k)

    def _arrive(self, k: int, z: State) -> None:
        """Take in the states of the newest tokens at exit k."""
        self.unread[k] = [*self.unread[k], z] if self.session.has_coda else [z]

    def _leave(self, k: int, h: State, z: Float[Tensor, "batch 1 hidden"]) -> None:
        """Settle what the deeper loops and exits find of tokens that left after loop k with the state `z`."""
        if self.exit_slots == "recompute":
            self.waiting[k + 1].append(h)
            return
        self.session.cache.share(k, self.seen - 1)
        for deeper in range(k + 1, self.session.num_loops):
            self._arrive(deeper, z)


@final
class _Once:
    """Logits of an exit, computed when first asked for."""

    def __init__(self, read: Callable[[], Logits]) -> None:
        self.read = read
        self.value: Logits | None = None

    def __call__(self) -> Logits:
        if self.value is None:
            self.value = self.read()
        return self.value
