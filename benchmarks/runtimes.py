"""One trained model in the runtimes a user would pick: llama.cpp, transformers' generate, our bare loop, speculation.

python -m benchmarks.runtimes RUN_DIR [--prompts 16] [--new 64] [--threads 1] [--out runtimes.json]. The model is
exported as f32; all runtimes write greedily at batch 1 and take turns on every prompt. Beside seconds by the clock
stand seconds of CPU, which other programs on the machine do not lengthen. `shares` says how much of our CPU time the
matrix products take.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import psutil
import torch
from rich.progress import track
from torch import Tensor, nn

from loopscale.data import load_data
from loopscale.decode import full_depth_generate, speculative_generate
from loopscale.export import to_gguf
from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedForCausalLM
from loopscale.system.environment import environment

PROMPT, REPEATS = 32, 200  # tokens of a prompt; times that the bare products are run
SERVER = Path(__file__).with_name("llama_cpp_server.py")

Write = Callable[[Tensor], list[int]]  # the new tokens after a prompt, (1, seq)


@dataclass(frozen=True)
class Runtime:
    """How a runtime writes, and the CPU seconds that it has taken so far."""

    write: Write
    cpu: Callable[[], float]


def run(run_dir: str, corpus: str, prompts: int, new: int, threads: int) -> dict[str, Any]:
    """Measure one run's checkpoint on prompts from its validation text; return a JSON-able dict."""
    torch.set_num_threads(threads)
    model: Any = load_model(run_dir)
    model.generation_config.eos_token_id = None  # every runtime writes as many tokens
    tokenizer = load_tokenizer_of(run_dir)
    data = load_data(corpus, tokenizer, vocab_size=model.config.vocab_size, sequence_length=PROMPT)
    texts = [data.valid[i * len(data.valid) // prompts][:PROMPT][None] for i in range(prompts)]
    with tempfile.TemporaryDirectory() as folder:
        file = to_gguf(model, tokenizer, Path(folder) / "model.gguf")
        with llama_cpp(file, threads, new) as other:
            runtimes = {"llama.cpp": other, **ours(model, new)}
            rows = compare(runtimes, texts, new)
    return {
        "run": Path(run_dir).name,
        "parameters": sum(p.numel() for p in model.parameters()),
        "num_loops": model.num_loops,
        "threads": threads,
        "new_tokens": new,
        "rows": rows,
        "shares": shares(model, texts[0], new),
        "environment": environment(),
    }


def ours(model: LoopedForCausalLM, new: int) -> dict[str, Runtime]:
    """Return what runs in this process."""
    generate: Any = model.generate
    return {
        name: Runtime(write, time.process_time)
        for name, write in {
            "generate": lambda ids: _new(generate(ids, max_new_tokens=new, do_sample=False), ids),
            "bare loop": lambda ids: _new(full_depth_generate(model, ids, new).sequences, ids),
            "speculation": lambda ids: _new(speculative_generate(model, ids, new).sequences, ids),
        }.items()
    }


def _new(sequences: Tensor, ids: Tensor) -> list[int]:
    return sequences[0, ids.shape[1] :].tolist()


@contextmanager
def llama_cpp(file: Path, threads: int, new: int) -> Iterator[Runtime]:
    """Run a llama.cpp on a file in a process of its own."""
    with Popen(
        [sys.executable, str(SERVER), str(file), str(threads)], stdout=PIPE, stderr=DEVNULL, text=True
    ) as server:
        try:
            assert server.stdout is not None
            address = server.stdout.readline().strip()
            assert address, f"llama.cpp does not load {file}"
            opener, process = build_opener(ProxyHandler({})), psutil.Process(server.pid)

            def write(ids: Tensor) -> list[int]:
                wanted = {"prompt": ids[0].tolist(), "n_predict": new, "temperature": 0, "return_tokens": True}
                body = json.dumps({**wanted, "ignore_eos": True, "cache_prompt": False}).encode()
                request = Request(f"{address}/completion", body, {"Content-Type": "application/json"})
                with opener.open(request, timeout=600) as answer:
                    return json.load(answer)["tokens"]

            def cpu() -> float:
                times = process.cpu_times()
                return times.user + times.system

            yield Runtime(write, cpu)
        finally:
            server.kill()


def compare(runtimes: Mapping[str, Runtime], prompts: list[Tensor], new: int) -> list[dict[str, Any]]:
    """Let all runtimes write after every prompt, by turns."""
    clock: dict[str, list[float]] = {name: [] for name in runtimes}
    same = dict.fromkeys(runtimes, 0)
    for runtime in runtimes.values():
        runtime.write(prompts[0])  # the first call of each pays for allocations
    spent = dict.fromkeys(runtimes, 0.0)
    for ids in track(prompts, description="writing"):
        texts = {}
        for name, runtime in runtimes.items():
            before, began = runtime.cpu(), time.perf_counter()
            texts[name] = runtime.write(ids)
            clock[name].append(time.perf_counter() - began)
            spent[name] += runtime.cpu() - before
            assert len(texts[name]) == new, (name, len(texts[name]))
        for name, text in texts.items():
            same[name] += text == texts["generate"]
    tokens = new * len(prompts)
    return [
        {
            "runtime": name,
            "tokens_per_second": tokens / sum(clock[name]),
            "tokens_per_second_median": new / statistics.median(clock[name]),
            "tokens_per_cpu_second": tokens / spent[name],
            "same_text_as_generate": same[name],
            "prompts": len(prompts),
        }
        for name in runtimes
    ]


@torch.inference_mode()
def shares(model: LoopedForCausalLM, ids: Tensor, new: int) -> list[dict[str, Any]]:
    """Return the CPU time per token of each of our ways, and that of its matrix products alone, run bare in a row.

    The rest is Python, the dispatch of operators, norms, attention over few tokens and the cache. Times of operators as
    a profiler has them are by the clock, and on a busy machine no measure of that.
    """
    linear = nn.functional.linear
    inside = {m.in_features: torch.randn(1, 1, m.in_features) for m in model.modules() if isinstance(m, nn.Linear)}
    weights = [m.weight for m in model.model.layers.modules() if isinstance(m, nn.Linear)] * model.num_loops
    weights.append(model.lm_head.weight)
    began = time.process_time()
    for _ in range(REPEATS):
        for weight in weights:
            linear(inside[weight.shape[1]], weight)
    products = (time.process_time() - began) / REPEATS
    rows = []
    for name, runtime in ours(model, new).items():
        runtime.write(ids)
        began = time.process_time()
        runtime.write(ids)
        seconds = (time.process_time() - began) / new
        rows.append({"way": name, "cpu_seconds_per_token": seconds, "products_cpu_seconds_per_token": products})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run_dir")
    parser.add_argument("--corpus", default="stdlib")
    parser.add_argument("--prompts", type=int, default=16)
    parser.add_argument("--new", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    text = json.dumps(run(args.run_dir, args.corpus, args.prompts, args.new, args.threads), indent=2)
    if args.out is not None:
        args.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
