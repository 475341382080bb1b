"""Models with layers before and behind the loops, trained here for some hundred steps, decoded in every exact way.

python -m benchmarks.coda [--steps 300] [--prompts 200] [--out decode-coda.json]. One is Huginn's shape (linear
injection, a coda that receives what is read out), one Parcae's (diagonal injection, a coda that receives a map).
"""

import argparse
import json
import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.decode import PROMPT, Way, compare, exact_ways
from benchmarks.shapes import device
from loopscale.data import load_data
from loopscale.decode import early_exit_generate, shared_cache
from loopscale.evaluate import CalibratedRule, rule_named
from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.system.environment import environment
from loopscale.train import preset_run, train

AROUND: Mapping[str, Any] = {"num_prelude_layers": 1, "num_coda_layers": 1}
SHAPES: Mapping[str, Mapping[str, Any]] = {
    "linear": {**AROUND, "injection": "linear", "coda_input": "readout", "residual": "post_add"},
    "diagonal": {**AROUND, "injection": "diagonal", "coda_input": "linear", "position_embedding": "rope"},
}


LENGTH = 80  # tokens of a training window, and of a prompt with what is written behind it


def run(names: Sequence[str], steps: int, prompts: int) -> dict[str, Any]:
    """Train and decode each; return a JSON-able dict."""
    return {
        "steps": steps,
        "environment": environment(),  # before anything is written
        "models": {name: {"model": dict(SHAPES[name]), **measured(SHAPES[name], steps, prompts)} for name in names},
    }


def measured(fields: Mapping[str, Any], steps: int, prompts: int) -> dict[str, Any]:
    """Train one model, and compare every exact way with `generate` on prompts from the validation text."""
    preset = preset_run("laptop")
    settings, data = replace(preset.train, max_steps=steps, save_every=10 * steps), preset.data
    with tempfile.TemporaryDirectory() as folder:
        out = str(Path(folder, "run"))
        model_fields = {**preset.model, **fields, "max_position_embeddings": LENGTH}
        data = replace(data, sequence_length=LENGTH)
        train(replace(preset, model=model_fields, data=data, train=settings, out=out), quiet=True)
        model: Any = load_model(out)
        model.to(device())
        windows = load_data("stdlib", load_tokenizer_of(out), sequence_length=LENGTH).valid
    texts = torch.stack([windows[i * len(windows) // prompts][:PROMPT] for i in range(prompts)]).to(device())
    with torch.no_grad():
        few = torch.stack([windows[i] for i in range(32)]).to(device())
        exits = model(few[:, :-1], shift_labels=few[:, 1:]).loop_losses.mean(0).tolist()
    return {
        "cross_entropy": exits,
        "exact": compare(model, texts, exact_ways(model) | more_ways(model, LENGTH - PROMPT)),
    }


def more_ways(model: LoopedForCausalLM, new: int) -> dict[str, Way]:
    """Early exit under a rule that lets nobody go, and a cache that is shared by nobody."""
    never = CalibratedRule(rule_named("max_probability"), math.inf, "token", model.num_loops)

    def unshared(ids: Tensor) -> tuple[Tensor, None]:
        return model.generate(ids, max_new_tokens=new, do_sample=False, cache=shared_cache(model, 1)), None

    def staying(ids: Tensor) -> tuple[Tensor, None]:
        return early_exit_generate(model, ids, new, never).sequences, None

    return {"shared cache of 1 loop": unshared, "early exit that never leaves": staying}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES), help="injections")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--prompts", type=int, default=200)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = json.dumps(run(args.only, args.steps, args.prompts), indent=2)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
