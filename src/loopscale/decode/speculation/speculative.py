"""Self-speculation across loops: early exits draft, deeper ones mend, full depth confirms, all of them in every pass.

The loops share their weights, so one pass of the stack can run loop 1 on the newest token, loop 2 on the token before
it, and so on: a token that stands costs one pass instead of K.
"""

import warnings
from typing import Unpack, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from loopscale.decode.full_depth import refuse_contrast
from loopscale.decode.reference import SingleSteps
from loopscale.decode.request import Options, Request, read_request
from loopscale.decode.sampling import Proposal, Sampling
from loopscale.decode.session import Session, enough_threads
from loopscale.decode.settings import Prefix
from loopscale.decode.speculation.draft_policy import Always, DraftPolicy, WhereLikely
from loopscale.decode.speculation.wavefront import Exits, Wavefront, loops_to_run, shifted
from loopscale.decode.writer import DecodeStats, Generation, Writer
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native
from loopscale.stepping import Injected, Tokens


@torch.inference_mode()
def speculative_generate(
    model: nn.Module,
    input_ids: Tokens,
    max_new_tokens: int,
    draft_loops: int = 1,
    draft_tokens: int = 16,
    *,
    adaptive: bool = True,
    tie_margin: float | None = None,
    **options: Unpack[Options],
) -> Generation:
    """Decode at depth `num_loops` (default: the model's), drafting with the exit of loop `draft_loops`.

    A token is drafted as soon as the token before it has run `draft_loops` loops, and starts its own loops at once,
    in the same passes in which the tokens before it run their deeper ones. Every deeper exit that was trained looks at
    the draft again; one that disagrees puts its own token there, and what rested on the old one is dropped. No loop is
    ever run twice on a token that stands. At most `draft_tokens` tokens are ahead of what full depth has confirmed;
    `adaptive` does not draft where a token is unlikely to stand. Without a `temperature` the text is the greedy one of
    the full depth (`tie_margin`: choices closer than that are decided again by single steps, see docs/decode.md); with
    one it is sampled from exactly the full depth's distribution. Prompts are (batch, seq), padded on the left;
    `options` are those of `Options`.

    Raises `InputError` for depths, lengths or prompts that do not fit. Warns where the drafting exit was not trained.
    """
    refuse_contrast(options, "self-speculation", "confirms drafts by the last alone")
    native = require_native(model, "self-speculation")
    _check_side_by_side(native)
    request, sampling = read_request(native, input_ids, max_new_tokens, tie_margin=tie_margin, **options)
    exits = _drafting_exits(native, request.num_loops, draft_loops, draft_tokens)
    policy = WhereLikely(request.num_loops) if adaptive else Always()
    with enough_threads(native):
        return _Speculation(native, request, sampling, exits, draft_tokens, policy).run()


def _drafting_exits(model: LoopedForCausalLM, num_loops: int, draft_loops: int, draft_tokens: int) -> Exits:
    """Return the exits (from 0) that propose tokens: the drafting one, trained ones above it, and the last."""
    if not 1 <= draft_loops < num_loops:
        raise InputError(
            f"draft_loops is {draft_loops}: draft with at least 1 loop and fewer than the {num_loops} that verify."
        )
    if draft_tokens < 1:
        raise InputError(f"draft_tokens is {draft_tokens}: draft at least 1 token.")
    trained = model.trained_loops
    taught = [k < trained and model.supervision.supervises(k, trained) for k in range(num_loops)]
    if not taught[draft_loops - 1]:
        warnings.warn(
            f"exit {draft_loops} was not trained ({model.supervision.name} supervision of {trained} loops): its "
            "drafts will be poor and decoding slow. The text is the same.",
            stacklevel=3,
        )
    return (draft_loops - 1, *(k for k in range(draft_loops, num_loops - 1) if taught[k]), num_loops - 1)


def _check_side_by_side(model: LoopedForCausalLM) -> None:
    """Raise `InputError` for parts that no pass over several loops can run."""
    for slot, part in model.model.loop_parts.items():
        if part.reads_loop:
            raise InputError(
                f"speculative decoding runs several loops side by side, and the {slot} of this model computes "
                "something else in every loop: decode at full depth or by early exit."
            )


@final
class _Speculation:
    """One call: passes until every row is done."""

    def __init__(
        self,
        model: LoopedForCausalLM,
        request: Request,
        sampling: Sampling,
        exits: Exits,
        draft_tokens: int,
        policy: DraftPolicy,
    ) -> None:
        K = request.num_loops
        self.session = Session(model, request.pads, request.capacity, K, exits)
        self.request = request
        self.writer = Writer(request)
        self.sampling = sampling
        self.exits = exits
        self.wavefronts = [
            Wavefront(K, request.width, request.max_new_tokens, draft_tokens, policy) for _ in request.pads
        ]
        self.reference = SingleSteps(model, request)
        self.stats = DecodeStats()
        self.injected: Injected | None = None  # the inputs of the tokens under way, one after another as their loops

    def run(self) -> Generation:
        """Run the prompt, then pass after pass."""
        session, last = self.session, self.session.num_loops - 1
        window = session.window(self.request.ids, 0)
        for k, z in enumerate(session.states(session.embed(self.request.ids, window), window, 0, last + 1)):
            if k == last or (session.has_coda and k in self.exits):  # which fills the coda's slots of the exit
                logits = session.read(z, window, k)[:, -1]
        session.passes = session.token_loops = 0
        proposals = self.sampling.judge(logits, [None] * len(self.wavefronts), self.writer.prefixes)
        for row, chosen in enumerate(proposals):
            self.wavefronts[row].begin(self._confirm(row, chosen))
        carried, loops = z[:0, -1:], range(1)  # what the loops of the next pass receive: nothing yet
        self.injected = None if window.context.injected is None else window.context.injected[:0, -1:]
        while self.writer.unfinished:
            carried, loops = self._pass(carried, loops.start + 1)
        self.stats.passes, self.stats.token_loops = session.passes, session.token_loops * len(self.wavefronts)
        self.stats.drafted = sum(wavefront.drafted for wavefront in self.wavefronts)
        self.stats.accepted = sum(wavefront.accepted for wavefront in self.wavefronts)
        return self.writer.finish(self.stats)

    def _pass(
        self, carried: Float[Tensor, "before 1 hidden"], carried_to: int
    ) -> tuple[Float[Tensor, "rows 1 hidden"], range]:
        """Run every loop that has a token and read the exits; return what was carried on, and by which loops.

        `carried` is what the loops from `carried_to` on receive.
        """
        session, wavefronts = self.session, self.wavefronts
        batch, device = len(wavefronts), carried.device
        loops = loops_to_run(wavefronts)
        tokens = [wavefront.token(k) for k in loops for wavefront in wavefronts]
        columns = [wavefront.columns[k] for k in loops for wavefront in wavefronts]
        sent = torch.tensor(tokens + columns, device=device)  # one transfer a pass
        ids, at = sent.view(2, -1, 1).unbind()  # (loops * B, 1)
        stop, entering, e = max(columns) + 1, carried, self.injected
        if loops.start == 0:
            entering, e = session.embed_at(ids[:batch], at[:batch], stop)
        h = shifted(entering, carried, loops, carried_to, batch)
        if e is not None and self.injected is not None:  # tokens take their input along
            self.injected = shifted(e, self.injected, loops, carried_to, batch)
        z, carried = session.run_front(h, self.injected, ids, loops, at, stop)  # (loops * B, 1, D)
        reading = [k for k in self.exits if k in loops]
        proposed: list[list[Proposal]] = []
        if reading:
            drafts = [wavefront.successor(k) for k in reading for wavefront in wavefronts]
            before = self._before(reading)
            proposals = iter(self.sampling.judge(session.read_front(z, ids, loops, reading, at, stop), drafts, before))
            proposed = [[next(proposals) for _ in wavefronts] for _ in reading]
        for row in self.writer.unfinished:
            self._update(row, {k: proposed[i][row] for i, k in enumerate(reading)})
        return carried, loops

    def _before(self, reading: list[int]) -> list[Prefix]:
        """Return the tokens up to that at every exit of every row: confirmed ones, and drafts that are deeper.

        None at all where no setting looks at them.
        """
        if not self.sampling.processing.reads_prefix:
            return []
        new, wavefronts = self.writer.new, self.wavefronts
        return [(row, [*new[row], *w.unconfirmed(k)]) for k in reading for row, w in enumerate(wavefronts)]

    def _update(self, row: int, proposals: dict[int, Proposal]) -> None:
        """Confirm what full depth proposed, then let the wavefront go on with the rest."""
        wavefront, last = self.wavefronts[row], self.session.num_loops - 1
        if last in proposals and wavefront.occupied(last):
            proposals[last] = self._confirm(row, proposals[last])
            self.stats.verifications += 1
        wavefront.advance(proposals)
        if self.writer.done[row]:
            wavefront.end()

    def _confirm(self, row: int, chosen: Proposal) -> Proposal:
        """Write a token of full depth; a near tie is decided by single steps first."""
        if chosen.unsure:
            self.stats.rechecked += 1
            chosen = Proposal(self.reference.decide(row, self.writer.new))
        self.writer.write(row, [chosen.token])
        return chosen
