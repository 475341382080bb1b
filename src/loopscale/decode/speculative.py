"""Self-speculation across loops: early exits draft, deeper ones mend, full depth confirms, all of them in every pass.

The loops share their weights, so one pass of the stack can run loop 1 on the newest token, loop 2 on the token before
it, and so on: a token that stands costs one pass instead of K.
"""

import warnings
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.decode.choice import Choice, Chosen, build_choice
from loopscale.decode.drafting import Always, WhereLikely
from loopscale.decode.lane import Lane, check_attention
from loopscale.decode.prompt import DecodeStats, Generation, Prompts, Writer, check_prompts
from loopscale.decode.reference import SingleSteps
from loopscale.decode.threads import enough_threads
from loopscale.decode.wavefront import Exits, Flight, loops_to_run, read_exits, shifted
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model.native import require_native
from loopscale.stepping import Tokens


@torch.inference_mode()
def speculative_generate(
    model: LoopedForCausalLM,
    input_ids: Tokens,
    max_new_tokens: int,
    draft_loops: int = 1,
    draft_tokens: int = 16,
    *,
    num_loops: int | None = None,
    attention_mask: Int[Tensor, "batch seq"] | None = None,
    adaptive: bool = True,
    temperature: float | None = None,
    top_k: int | None = None,
    top_p: float | None = None,
    generator: torch.Generator | None = None,
    eos_token_id: int | list[int] | None = None,
    pad_token_id: int | None = None,
    streamer: BaseStreamer | None = None,
    tie_margin: float | None = None,
) -> Generation:
    """Decode at depth `num_loops` (default: the model's), drafting with the exit of loop `draft_loops`.

    A token is drafted as soon as the token before it has run `draft_loops` loops, and starts its own loops at once,
    in the same passes in which the tokens before it run their deeper ones. Every deeper exit that was trained looks at
    the draft again; one that disagrees puts its own token there, and what rested on the old one is dropped. No loop is
    ever run twice on a token that stands. At most `draft_tokens` tokens are ahead of what full depth has confirmed;
    `adaptive` does not draft where a token is unlikely to stand. Without a `temperature` the text is the greedy one of
    the full depth (`tie_margin`: choices closer than that are decided again by single steps, see docs/decode.md); with
    one it is sampled from exactly the full depth's distribution. Prompts are (batch, seq), padded on the left.

    Raises `InputError` for depths, lengths or prompts that do not fit. Warns where the drafting exit was not trained.
    """
    model = require_native(model, "self-speculation")
    K = model.num_loops if num_loops is None else num_loops
    exits = _drafting_exits(model, K, draft_loops, draft_tokens)
    _check_side_by_side(model)
    check_attention(model)
    prompts = check_prompts(model, input_ids, attention_mask, max_new_tokens)
    choice = build_choice(temperature, top_k, top_p, generator, tie_margin)
    writer = Writer(model, prompts, max_new_tokens, eos_token_id, pad_token_id, streamer)
    drafting = WhereLikely(K) if adaptive else Always()
    lane = Lane(model, prompts.pads, prompts.width + max_new_tokens, K)
    flights = [Flight(K, prompts.width, max_new_tokens, draft_tokens, drafting) for _ in prompts.pads]
    with enough_threads(model):
        return _Speculation(lane, prompts, writer, choice, exits, flights).run()


def _drafting_exits(model: LoopedForCausalLM, num_loops: int, draft_loops: int, draft_tokens: int) -> Exits:
    """Return the exits (from 0) that have a say: the drafting one, trained ones above it, and the last."""
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
            f"exit {draft_loops} was not trained ({model.config.supervision} supervision of {trained} loops): its "
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
        self, lane: Lane, prompts: Prompts, writer: Writer, choice: Choice, exits: Exits, flights: list[Flight]
    ) -> None:
        self.lane = lane
        self.prompts = prompts
        self.writer = writer
        self.choice = choice
        self.exits = exits
        self.flights = flights
        self.reference = SingleSteps(lane.model, prompts, lane.num_loops)
        self.stats = DecodeStats()

    def run(self) -> Generation:
        """Run the prompt, then pass after pass."""
        lane, model, last = self.lane, self.lane.model, self.lane.num_loops - 1
        window = lane.window(self.prompts.ids, 0)
        z = lane.run(lane.embed(self.prompts.ids, window), window, 0, lane.num_loops)
        lane.passes = lane.token_loops = 0
        said = self.choice.judge(model.readout(z[:, -1:], last)[:, -1], [None] * len(self.flights))
        for row, chosen in enumerate(said):
            self.flights[row].begin(self._confirm(row, chosen))
        carried, loops = z[:0, -1:], range(1)  # what the loops of the next pass receive: nothing yet
        while self.writer.unfinished:
            carried, loops = self._pass(carried, loops.start + 1)
        self.stats.passes, self.stats.token_loops = lane.passes, lane.token_loops * len(self.flights)
        self.stats.drafted = sum(flight.drafted for flight in self.flights)
        self.stats.accepted = sum(flight.accepted for flight in self.flights)
        return self.writer.finish(self.stats)

    def _pass(
        self, carried: Float[Tensor, "before 1 hidden"], carried_to: int
    ) -> tuple[Float[Tensor, "rows 1 hidden"], range]:
        """Run every loop that has a token and hear the exits; return what was carried on, and by which loops.

        `carried` is what the loops from `carried_to` on receive.
        """
        lane, model, flights = self.lane, self.lane.model, self.flights
        batch, device = len(flights), carried.device
        loops = loops_to_run(flights)
        tokens = [flight.token(k) for k in loops for flight in flights]
        columns = [flight.columns[k] for k in loops for flight in flights]
        ids, at = torch.tensor([tokens, columns], device=device)[..., None]  # (loops * B, 1); one transfer a pass
        entering = lane.embed_at(ids[:batch], at[:batch]) if loops.start == 0 else carried
        h = shifted(entering, carried, loops, carried_to, batch)
        z, carried = lane.run_front(h, ids, loops, at, max(columns) + 1)  # (loops * B, 1, D)
        speaking = [k for k in self.exits if k in loops]
        heard: list[list[Chosen]] = []
        if speaking:
            drafts = [flight.successor(k) for k in speaking for flight in flights]
            said = iter(self.choice.judge(read_exits(model, z, loops, speaking, batch), drafts))
            heard = [[next(said) for _ in flights] for _ in speaking]
        for row in self.writer.unfinished:
            self._settle(row, {k: heard[i][row] for i, k in enumerate(speaking)})
        return carried, loops

    def _settle(self, row: int, said: dict[int, Chosen]) -> None:
        """Confirm what full depth said, then let the flight go on with the rest."""
        flight, last = self.flights[row], self.lane.num_loops - 1
        if last in said and flight.occupied(last):
            said[last] = self._confirm(row, said[last])
            self.stats.verifications += 1
        flight.hear(said)
        if self.writer.done[row]:
            flight.end()

    def _confirm(self, row: int, chosen: Chosen) -> Chosen:
        """Write a token of full depth; a near tie is decided by single steps first."""
        if chosen.unsure:
            self.stats.rechecked += 1
            chosen = Chosen(self.reference.decide(row, self.writer.new))
        self.writer.write(row, [chosen.token])
        return chosen
