"""Self-speculation across loops: an early exit drafts, full depth verifies from the states the draft left behind."""

import warnings
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers.generation.streamers import BaseStreamer

from loopscale.decode.choice import Choice, Draft, build_choice
from loopscale.decode.draft_length import AdaptiveLength, DraftLength, FixedLength
from loopscale.decode.lane import Lane, check_attention
from loopscale.decode.prompt import DecodeStats, Generation, Prompts, Writer, check_prompts
from loopscale.decode.reference import SingleSteps
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.objective import build_supervision
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

    Up to `draft_tokens` tokens are drafted with the first loops; the remaining loops then run over all of them at once,
    from the drafts' own states, and keep the longest confirmed beginning and one token more. `adaptive` ends a draft
    where it no longer pays. Without a `temperature` the text is the greedy one of the full depth (`tie_margin`: choices
    closer than that are decided again by single steps, see docs/decode.md); with one it is sampled from exactly the
    full depth's distribution. Prompts are (batch, seq), padded on the left.

    Raises `InputError` for depths, lengths or prompts that do not fit. Warns where the drafting exit was not trained.
    """
    K = model.num_loops if num_loops is None else num_loops
    _check_depths(model, K, draft_loops, draft_tokens)
    check_attention(model)
    prompts = check_prompts(model, input_ids, attention_mask, max_new_tokens)
    choice = build_choice(temperature, top_k, top_p, generator, tie_margin)
    writer = Writer(model, prompts, max_new_tokens, eos_token_id, pad_token_id, streamer)
    length = AdaptiveLength(draft_loops, K, draft_tokens) if adaptive else FixedLength(draft_tokens)
    lane = Lane(model, prompts.pads, prompts.width + max_new_tokens + draft_tokens, K)
    return _Speculation(lane, prompts, writer, choice, length, draft_loops).run()


def _check_depths(model: LoopedForCausalLM, num_loops: int, draft_loops: int, draft_tokens: int) -> None:
    if not 1 <= draft_loops < num_loops:
        raise InputError(
            f"draft_loops is {draft_loops}: draft with at least 1 loop and fewer than the {num_loops} that verify."
        )
    if draft_tokens < 1:
        raise InputError(f"draft_tokens is {draft_tokens}: draft at least 1 token.")
    trained = model.config.trained_loops or model.num_loops
    supervision = build_supervision(model.config.supervision, model.config.loop_weights, model.config.entropy_coef)
    if draft_loops > trained or not supervision.supervises(draft_loops - 1, trained):
        warnings.warn(
            f"exit {draft_loops} was not trained ({model.config.supervision} supervision of {trained} loops): its "
            "drafts will be poor and decoding slow. The text is the same.",
            stacklevel=3,
        )


@final
class _Speculation:
    """One call: cycles of draft, verification and writing until every row is done."""

    def __init__(
        self, lane: Lane, prompts: Prompts, writer: Writer, choice: Choice, length: DraftLength, draft_loops: int
    ) -> None:
        self.lane = lane
        self.prompts = prompts
        self.writer = writer
        self.choice = choice
        self.length = length
        self.draft_loops = draft_loops
        self.reference = SingleSteps(lane.model, prompts, lane.num_loops)
        self.stats = DecodeStats()
        self.seen = [0] * len(prompts.pads)  # columns of every row that all loops have run on

    def run(self) -> Generation:
        """Prefill, then cycle."""
        lane = self.lane
        window = lane.window(self.seen, self.prompts.width)
        z = lane.run(lane.embed(self.prompts.ids, window), window, 0, lane.num_loops)
        lane.passes = lane.token_loops = 0
        self._write([], z[:, -1:])
        self.seen = [self.prompts.width] * len(self.seen)
        while rows := self.writer.unfinished:
            passes = lane.passes
            drafts, h = self._draft(rows)
            z = lane.run(h, lane.window(self.seen, h.shape[1]), self.draft_loops, lane.num_loops)
            accepted = self._write(drafts, z)
            for row, kept in zip(rows, accepted, strict=True):
                if not self.writer.done[row]:  # a row that is done waits where it is
                    self.seen[row] += kept + 1  # what lies beyond is overwritten: rejected drafts are rolled back
            self.length.learn(accepted, lane.passes - passes)
            self.stats.verifications += len(rows)
            self.stats.drafted += len(drafts) * len(rows)
            self.stats.accepted += sum(accepted)
        self.stats.passes, self.stats.token_loops = lane.passes, lane.token_loops * len(self.seen)
        return self.writer.finish(self.stats)

    def _draft(self, rows: list[int]) -> tuple[list[Draft], Float[Tensor, "batch places hidden"]]:
        """Draft after the last tokens written; return the drafts and what loop `draft_loops` receives of all of them.

        There is one place more than drafts: the last draft's successor is verification's own.
        """
        lane, model = self.lane, self.lane.model
        most = min(self.length.most, self.writer.remaining - 1)
        drafts: list[Draft] = []
        states: list[Tensor] = []
        tokens = torch.tensor([new[-1:] for new in self.writer.new], device=model.device)
        while True:
            window = lane.window([n + len(drafts) for n in self.seen], 1)
            states.append(lane.run(lane.embed(tokens, window), window, 0, self.draft_loops))
            if len(drafts) == most:
                break
            draft = self.choice.draft(model.readout(states[-1], self.draft_loops - 1)[:, -1])
            if not self.length.pays(draft.confidence[rows]):
                break
            drafts.append(draft)
            tokens = draft.tokens
        return drafts, model.carry(torch.cat(states, 1), self.draft_loops - 1)

    def _write(self, drafts: list[Draft], z: Float[Tensor, "batch places hidden"]) -> list[int]:
        """Judge the drafts by the last loop's states and write what stands; return how many did per unfinished row."""
        judged = self.choice.judge(self.lane.model.readout(z, self.lane.num_loops - 1), drafts)
        accepted, instead, unsure = judged.accepted.tolist(), judged.instead.tolist(), judged.unsure.tolist()
        drafted = [list(row) for row in zip(*(draft.tokens.flatten().tolist() for draft in drafts), strict=True)]
        stood = []
        for row in self.writer.unfinished:
            mine = drafted[row] if drafts else []
            kept = 0
            while True:
                stays, token = kept < len(mine) and accepted[row][kept], instead[row][kept]
                if unsure[row][kept]:
                    token = self._decide(row, mine[:kept])
                    stays = kept < len(mine) and token == mine[kept]
                if not stays:
                    break
                kept += 1
            self.writer.write(row, [*mine[:kept], token])
            stood.append(kept)
        return stood

    def _decide(self, row: int, drafted: list[int]) -> int:
        """Decide a near tie of `row` after its first drafts by single steps."""
        self.stats.rechecked += 1
        texts = list(self.writer.new)
        texts[row] = texts[row] + drafted
        return self.reference.decide(row, texts)
