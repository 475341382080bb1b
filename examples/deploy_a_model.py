"""Choose a depth, stop early, decode faster, export: `python examples/deploy_a_model.py MODEL CORPUS`.

MODEL is the folder of a trained model, CORPUS what it is judged on: never the text that it was trained on. For a run of
`loopscale train --preset laptop-rope --out runs/rope`: `python examples/deploy_a_model.py runs/rope stdlib`.
"""

import sys
from pathlib import Path

import torch

from loopscale.data import batches, encode_prompt, load_data
from loopscale.decode import speculative_generate
from loopscale.evaluate import depth_curve
from loopscale.export import to_gguf
from loopscale.halting import RULES, RelativePerplexity, calibrate, evaluate_halting, trace_exits
from loopscale.load import load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.system import keep_freed_memory


def main(folder: str, corpus: str, out: str = "deployed", limit: int = 400, prompt: str = "def main(") -> str:
    keep_freed_memory()
    model, tokenizer = LoopedForCausalLM.from_pretrained(folder).eval(), load_tokenizer_of(folder)
    windows = list(
        batches(
            load_data(corpus, tokenizer, sequence_length=model.config.max_position_embeddings).valid, 8, limit=limit
        )
    )

    # 1. A depth: the shallowest exit that is as good as the trained depth.
    curve = depth_curve(model, windows)
    band = curve.safe_range(1.01)
    print(f"perplexity by exit: {' '.join(f'{point.perplexity:.2f}' for point in curve)}")
    print(f"exits {band.first} to {band.last} are within 1% of the trained depth: decode at exit {band.first}")

    # 2. Stop early: a threshold from one half of the windows, tried on the other.
    rule, target = RULES["max_probability"], RelativePerplexity(1.01)
    found = calibrate(trace_exits(model, windows[::2], [rule]), rule, target, "token")
    result = evaluate_halting(trace_exits(model, windows[1::2], [rule]), found)
    held = "kept" if result.kept else "missed"
    print(f"{found.note}: {result.selected_loops.value:.2f} of {model.num_loops} loops per token; the target is {held}")

    # 3. Decode faster: every loop works on a token of its own, and the text is that of plain decoding.
    ids = torch.tensor([encode_prompt(tokenizer, prompt)])
    plain = model.generate(ids, max_new_tokens=32, do_sample=False)
    fast = speculative_generate(model, ids, max_new_tokens=32)
    same = torch.equal(plain, fast.sequences)
    print(f"{tokenizer.decode(plain[0])!r}, self-speculation writes {'the same' if same else 'another text'}")

    # 4. Take it to a runtime that you already use.
    path = Path(out) / "model.gguf"
    path.parent.mkdir(parents=True, exist_ok=True)
    to_gguf(model, tokenizer, path)
    print(f"wrote {path}")
    return str(path)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
