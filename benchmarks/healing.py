"""Does looping pay? A retrofit healed for a few steps, beside its blind control and the plain model at equal compute.

python -m benchmarks.healing SOURCE --corpus wikitext-2 --core 12:18 --loops 2 [--steps 100] --out healing.json. Three
arms get the same adapters, windows and rates: `learned` loops mixed in by one scalar, `blind` the same loops on noise,
and `plain`, the original without loops, which takes as many more steps as its step is cheaper. The file is written
after every arm, and an arm that it holds is not run again.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from loopscale.audit import audit
from loopscale.data import batches, load_data
from loopscale.evaluate import DepthCurve, depth_curve, token_flops
from loopscale.evaluate.statistics import standard_error, token_mean
from loopscale.load import load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.retrofit import Healing, heal, retrofit
from loopscale.storage import plain
from loopscale.system.environment import environment

ARMS = {"learned": "learned", "blind": "blind", "plain": "full"}  # an arm's relaxation


def run(
    source: str,
    corpus: str,
    core: tuple[int, int],
    loops: int,
    how: Healing,
    length: int,
    windows: int,
    out: Path,
    arms: Sequence[str] = tuple(ARMS),
) -> dict[str, Any]:
    """Run the arms that `out` does not hold; return everything."""
    data = load_data(corpus, load_tokenizer_of(source), sequence_length=length)
    held = list(batches(data.valid, 4, limit=-(-windows // 4)))
    settings = {"core": list(core), "num_loops": loops, "healing": plain(asdict(how)), "sequence_length": length}
    found = json.loads(out.read_text()) if out.exists() else {**settings, "arms": {}, "environment": environment()}
    assert all(found[key] == value for key, value in settings.items()), f"{out} is of other settings"
    found |= {"corpus": data.corpus.name, "sha256": data.corpus.sha256, "tokens": sum(w[:, 1:].numel() for w in held)}
    looped_flops = _flops(retrofit(source, core, loops), held[0], loops)
    original: DepthCurve | None = None
    for arm in arms:
        if arm in found["arms"]:
            continue
        relaxation = ARMS[arm]
        depth = 1 if arm == "plain" else loops
        model = retrofit(source, core, depth, relaxation=relaxation)
        if original is None:
            original = depth_curve(model, held, 1)
            found["original"] = {"cross_entropy": original[0].cross_entropy, "perplexity": original[0].perplexity}
        share = looped_flops / _flops(model, held[0], depth)
        began, settings_of_arm = time.process_time(), replace(how, steps=round(how.steps * share))
        lines = heal(model, data.train, settings_of_arm)
        curve = depth_curve(model, held, loops)
        found["arms"][arm] = {
            "steps": settings_of_arm.steps,
            "cpu_seconds": time.process_time() - began,
            "first_losses": [line.loss for line in lines[:5]],
            "last_losses": [line.loss for line in lines[-5:]],
            "exits": [{**asdict(point), **_below(curve, original, point.exit)} for point in curve],
            "mixing": _mixing(model),
            "audit": _audited(model, held) if arm == "learned" else None,
        }
        out.write_text(json.dumps(plain(found), indent=1) + "\n")
    return found


def _flops(model: LoopedForCausalLM, window: torch.Tensor, loops: int) -> float:
    return token_flops(model, window[:1, :-1]).at_exit(loops)


def _below(curve: DepthCurve, original: DepthCurve, exit: int) -> dict[str, float]:
    """Return nats per token below the original before healing, paired by window, with a standard error."""
    sums = original.losses[0] - curve.losses[exit - 1]
    return {
        "below_original": float(token_mean(sums, curve.tokens)),
        "below_original_se": float(standard_error(sums, curve.tokens)),
    }


def _mixing(model: LoopedForCausalLM) -> float | None:
    relaxation: Any = model.model.relaxation
    return relaxation.arguments.rate * float(relaxation.mixing.detach()) if hasattr(relaxation, "mixing") else None


def _audited(model: LoopedForCausalLM, held: list[torch.Tensor]) -> Any:
    report = audit(model, held[:2])
    return {name: plain(found) for name, found in report.coordinates.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("source")
    parser.add_argument("--corpus", default="wikitext-2")
    parser.add_argument("--core", default="12:18")
    parser.add_argument("--loops", type=int, default=2)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--rate", type=float, default=3e-4)
    parser.add_argument("--batch_size", type=int, default=4)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--rank", type=int, default=8)
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=tuple(ARMS))
    parser.add_argument("--bf16", action="store_true")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    first, _, last = args.core.partition(":")
    how = Healing(args.steps, args.rate, args.batch_size, lora_rank=args.rank, bf16=args.bf16)
    core, sizes = (int(first), int(last)), (args.length, args.windows)
    found = run(args.source, args.corpus, core, args.loops, how, *sizes, args.out, args.arms)
    print(json.dumps(plain(found["arms"]), indent=1))


if __name__ == "__main__":
    main()
