"""Early exit while decoding: every token leaves at the first loop where a calibrated rule lets it go."""

from collections.abc import Callable
from typing import Protocol, Unpack, final, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from loopscale.call import Call
from loopscale.decode.request import DecodeStats, Generation, Options, Writer, read_request
from loopscale.decode.session import Session, Window, enough_threads
from loopscale.errors import unknown
from loopscale.model import LoopedForCausalLM
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
        self.seen = 0
        self.fed: list[tuple[Tokens, Injected | None]] = []  # tokens and their input e
        # what loop k is still to receive of tokens that left just before it. A token that goes on takes those before
        # it along, so that earlier tokens are never behind later ones and the waiting columns end where it stands.
        self.waiting: list[list[State]] = [[] for _ in range(session.num_loops)]

    def prefill(self, ids: Tokens) -> Float[Tensor, "batch vocab"]:
        """Run the prompt at full depth; return the logits of its last token."""
        session = self.session
        window = session.window(ids, 0)
        self.fed = [(ids, window.context.injected)]
        z = session.run(session.embed(ids, window), window, 0, session.num_loops)
        self.seen = ids.shape[1]
        session.passes = session.token_loops = 0
        return session.model.readout(z[:, -1:], session.num_loops - 1)[:, -1]

    def step(self, tokens: Int[Tensor, "batch 1"], rows: list[int] | None = None) -> Float[Tensor, "batch vocab"]:
        """Feed one token per row; return each row's logits at its own exit. Only `rows` (default: all) count."""
        session, model, batch = self.session, self.session.model, tokens.shape[0]
        window = session.window(tokens, self.seen)
        self.fed.append((tokens, window.context.injected))
        h = session.embed(tokens, window)
        call = Call(model, tokens, window.context)
        watch = self.rule.watch(call if model.reads_received else model)
        left = torch.zeros(batch, 1, dtype=torch.bool, device=h.device)
        logits: Tensor | None = None
        for k in range(session.num_loops):
            h = torch.cat([*self.waiting[k], h], 1)
            self.waiting[k] = []
            if h.shape[1] != window.length:
                window = self._window_of(h.shape[1])
            group = session.run(h, window, k, k + 1)
            z = group[:, -1:]
            read, call.received = _Once(model, z, k), {k: h[:, -1:]}  # a gate reads the carried state
            last = k + 1 == session.num_loops
            leaves = ~left if last else watch(k, z, read) & ~left
            if last or bool(leaves.any()):
                logits = read()[:, -1] if logits is None else torch.where(leaves, read()[:, -1], logits)
                left = left | leaves
            h = model.carry(group, k, window.context, h)
            gone = left[:, 0].tolist()
            if last or all(gone if rows is None else (gone[row] for row in rows)):
                break
        if not last:
            self._leave(k, h)
        self.seen += 1
        assert logits is not None
        return logits

    def _window_of(self, length: int) -> Window:
        """Return the window of the last so many tokens: what waits was fed in steps of one."""
        ids, inputs = zip(*self.fed[-length:], strict=True)
        injected = None if inputs[0] is None else torch.cat(inputs, 1)
        return self.session.window(torch.cat(ids, 1), self.seen + 1 - length, injected)

    def _leave(self, k: int, h: State) -> None:
        """Settle what the deeper loops find of tokens that left after loop k."""
        if self.exit_slots == "recompute":
            self.waiting[k + 1].append(h)
        else:
            self.session.cache.share(k, self.seen)


@final
class _Once:
    """Logits of an exit, computed when first asked for."""

    def __init__(self, model: LoopedForCausalLM, z: State, k: int) -> None:
        self.model, self.z, self.k = model, z, k
        self.value: Logits | None = None

    def __call__(self) -> Logits:
        if self.value is None:
            self.value = self.model.readout(self.z, self.k)
        return self.value
