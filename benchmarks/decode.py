"""Decoding one trained model in every way, side by side: identity, speed, acceptance, and what approximations cost.

python -m benchmarks.decode RUN_DIR [--prompts 500] [--out decode.json]. All ways take turns on every prompt, so that
their ratios come from the same minutes of the same machine.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch import Tensor
from torch.nn.functional import cross_entropy

from benchmarks.shapes import device
from loopscale.data import load_data
from loopscale.decode import (
    EXIT_SLOTS,
    EarlyExit,
    Generation,
    Session,
    early_exit_generate,
    full_depth_generate,
    shared_cache,
    speculative_generate,
)
from loopscale.evaluate import CalibratedRule, rule_named
from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.system.environment import environment

PROMPT = 32
THRESHOLDS = (0.5, 0.7, 0.9)  # of max_probability; `loopscale evaluate` calibrates one for a quality instead

Way = Callable[[Tensor], tuple[Tensor, Generation | None]]


def run(
    run_dir: str = "runs/laptop/per_loop-raw/seed-42", prompts: int = 500, corpus: str = "stdlib"
) -> dict[str, Any]:
    """Measure one run's checkpoint on prompts from the validation text; return a JSON-able dict."""
    model: Any = load_model(run_dir)
    model.to(device())
    length = PROMPT + _room(model)
    data = load_data(corpus, load_tokenizer_of(run_dir), vocab_size=model.config.vocab_size, sequence_length=length)
    windows = data.valid
    texts = torch.stack([windows[i * len(windows) // prompts][:length] for i in range(prompts)]).to(device())
    few = texts[: max(1, prompts // 10)]
    return {
        "run": Path(run_dir).parent.name,
        "num_loops": model.num_loops,
        "exact": compare(model, texts[:, :PROMPT], exact_ways(model)),
        "early_exit_speed": compare(model, few[:, :PROMPT], exact_ways(model) | early_exit_ways(model)),
        "acceptance": acceptance(model, few[:, :PROMPT]),
        "early_exit": early_exit_quality(model, few),
        "shared_cache": shared_cache_quality(model, few),
        "environment": environment(),
    }


def exact_ways(model: LoopedForCausalLM) -> dict[str, Way]:
    """Greedy at full depth: transformers' `generate`, a bare loop on our cache, self-speculation."""
    new = _room(model)
    return {
        "generate": lambda ids: (model.generate(ids, max_new_tokens=new, do_sample=False), None),
        "bare loop": lambda ids: _both(full_depth_generate(model, ids, new)),
        "speculation": lambda ids: _both(speculative_generate(model, ids, new)),
    }


def early_exit_ways(model: LoopedForCausalLM) -> dict[str, Way]:
    """Early exit at each threshold, with both kinds of slots."""
    new = _room(model)

    def way(threshold: float, slots: str) -> Way:
        rule = _rule(model, threshold)
        return lambda ids: _both(early_exit_generate(model, ids, new, rule, exit_slots=slots))

    return {f"early exit at {t}, {slots}": way(t, slots) for t in THRESHOLDS for slots in EXIT_SLOTS}


def compare(model: LoopedForCausalLM, prompts: Tensor, ways: dict[str, Way]) -> dict[str, Any]:
    """Time every way on every prompt, one prompt at a time; compare each text with greedy `generate`."""
    new = _room(model)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    stats: dict[str, list[Any]] = {name: [] for name in ways}
    same = dict.fromkeys(ways, 0)
    for way in ways.values():
        way(prompts[:1])  # the first call of each pays for allocations
    for i in track(range(len(prompts)), description="decoding"):
        expected: Tensor | None = None
        for name, way in ways.items():
            began = time.perf_counter()
            text, generation = way(prompts[i : i + 1])
            seconds[name].append(time.perf_counter() - began)
            expected = text if expected is None else expected
            same[name] += torch.equal(text, expected)
            if generation is not None:
                stats[name].append(generation.stats)
    table = {}
    for name, times in seconds.items():
        table[name] = {
            "identical": same[name],
            "prompts": len(prompts),
            "tokens_per_second": new * len(prompts) / sum(times),
            "times_generate": sum(seconds["generate"]) / sum(times),
            "times_bare_loop": sum(seconds["bare loop"]) / sum(times),
            "times_bare_loop_median": statistics.median(
                a / b for a, b in zip(seconds["bare loop"], times, strict=True)
            ),
            **_totals(stats[name]),
        }
    return table


def acceptance(model: LoopedForCausalLM, prompts: Tensor) -> list[dict[str, Any]]:
    """Acceptance by drafting loops and (fixed) draft length, and what it saves in passes."""
    rows = []
    for draft_loops in range(1, model.num_loops):
        for draft_tokens in (1, 2, 4, 8):
            stats = [
                speculative_generate(model, ids[None], _room(model), draft_loops, draft_tokens, adaptive=False).stats
                for ids in prompts
            ]
            rows.append({"draft_loops": draft_loops, "draft_tokens": draft_tokens, **_totals(stats)})
    return rows


@torch.inference_mode()
def early_exit_quality(model: LoopedForCausalLM, texts: Tensor) -> list[dict[str, Any]]:
    """Cross-entropy of real text read token by token, each from the exit the rule chose, for both kinds of slots."""
    rows = []
    never = CalibratedRule(rule_named("max_probability"), math.inf, "token", model.num_loops)
    for threshold, rule in ((None, never), *((t, _rule(model, t)) for t in THRESHOLDS)):
        for slots in EXIT_SLOTS:
            session = Session(model, [0] * 1, texts.shape[1], model.num_loops)
            total, loops = 0.0, 0
            for text in texts:
                exits = EarlyExit(session, rule, slots)
                logits = [exits.prefill(text[None, :PROMPT])]
                logits += [exits.step(token[None, None]) for token in text[PROMPT:-1]]
                total += float(cross_entropy(torch.cat(logits), text[PROMPT:], reduction="sum"))
                loops += session.token_loops
            tokens = len(texts) * (texts.shape[1] - PROMPT)
            rows.append(
                {
                    "threshold": threshold,
                    "slots": slots,
                    "cross_entropy": total / tokens,
                    "loops_per_token": loops / (tokens - len(texts)),
                    "tokens": tokens,
                }
            )
    return rows


@torch.inference_mode()
def shared_cache_quality(model: LoopedForCausalLM, texts: Tensor) -> list[dict[str, Any]]:
    """Cross-entropy of real text read token by token with the last loops sharing a cache slot."""
    rows = []
    for share_last in range(1, model.num_loops + 1):
        total = 0.0
        for text in texts:
            cache = shared_cache(model, share_last)
            logits = [model(text[None, :PROMPT], cache=cache).logits[:, -1]]
            logits += [model(token[None, None], cache=cache).logits[:, -1] for token in text[PROMPT:-1]]
            total += float(cross_entropy(torch.cat(logits), text[PROMPT:], reduction="sum"))
        rows.append(
            {
                "share_last": share_last,
                "cache": (model.num_loops - share_last + 1) / model.num_loops,
                "cross_entropy": total / (len(texts) * (texts.shape[1] - PROMPT)),
            }
        )
    return rows


def _room(model: LoopedForCausalLM) -> int:
    return min(128, model.config.max_position_embeddings) - PROMPT


def _rule(model: LoopedForCausalLM, threshold: float) -> CalibratedRule:
    return CalibratedRule(rule_named("max_probability"), threshold, "token", model.num_loops)


def _both(generation: Generation) -> tuple[Tensor, Generation]:
    return generation.sequences, generation


def _totals(stats: Sequence[Any]) -> dict[str, Any]:
    """Return ratios over all prompts."""
    if not stats:
        return {}
    decoded = sum(s.new_tokens - s.rows for s in stats)
    drafted = sum(s.drafted for s in stats)
    return {
        "loops_per_token": sum(s.token_loops for s in stats) / decoded,
        "passes_per_token": sum(s.passes for s in stats) / decoded,
        "acceptance": sum(s.accepted for s in stats) / drafted if drafted else None,
        "rechecked": sum(s.rechecked for s in stats),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir", nargs="?", default="runs/laptop/per_loop-raw/seed-42")
    parser.add_argument("--prompts", type=int, default=500)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    measured = run(args.run_dir, args.prompts)
    text = json.dumps(measured, indent=2)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
