"""A real llama.cpp, and models that write something else at every prompt."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Any, NamedTuple
from urllib.request import ProxyHandler, Request, build_opener

import pytest
import torch
from transformers import PreTrainedTokenizerFast

from loopscale.model import LoopedForCausalLM
from tests.export.byte_level import bpe, byte_tokenizer
from tests.helpers import tiny_config

TEXT = "The loop runs once and the state grows. def main(depth): return [step(h, k) for k in range(12)]"
SERVE = Path(__file__).with_name("serve.py")
VARIANTS = {
    "residual, tied, bytes": ({"recurrence": "residual"}, "bytes"),
    "shared norm, untied, grouped, BPE": (
        {
            "recurrence": "rmsnorm",
            "share_loop_norm": True,
            "tie_word_embeddings": False,
            "num_key_value_heads": 2,
        },
        "bpe",
    ),
    "residual, untied, one key head, BPE": ({"tie_word_embeddings": False, "num_key_value_heads": 1}, "bpe"),
    "shared norm, tied, bytes": ({"recurrence": "rmsnorm", "share_loop_norm": True}, "bytes"),
}


class Subject(NamedTuple):
    """A model with its tokenizer."""

    model: LoopedForCausalLM
    tokenizer: PreTrainedTokenizerFast


@torch.no_grad()
def decided(tokenizer: PreTrainedTokenizerFast, **fields: Any) -> LoopedForCausalLM:
    """Return a RoPE model of random weights, so large that layers outweigh the embedding and one token stands out."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 48, "num_attention_heads": 4, "max_position_embeddings": 128}
    start = {"init": "normal", "initializer_range": 0.2, "position_embedding": "rope"}
    model = LoopedForCausalLM(tiny_config(vocab_size=len(tokenizer), **{**sizes, **start, **fields})).eval()
    model.lm_head.weight *= 4
    shown = [
        token.isascii() and not token.startswith("<|")
        for token in tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    ]
    model.lm_head.weight[~torch.tensor(shown)] *= 0.05  # llama.cpp would hold back bytes that make no character
    for layer in model.model.layers:
        layer.self_attn.o_proj.weight *= 2
    return model


@pytest.fixture(scope="session", params=VARIANTS)
def subject(request: pytest.FixtureRequest) -> Subject:
    fields, kind = VARIANTS[request.param]
    tokenizer = byte_tokenizer() if kind == "bytes" else bpe("gpt-2", TEXT)
    return Subject(decided(tokenizer, **fields), tokenizer)


class LlamaCpp:
    """One GGUF file in a llama.cpp of its own process, which may abort, or hang when it is told to end."""

    def __init__(self, path: Path) -> None:
        self.process = Popen([sys.executable, str(SERVE), str(path)], stdout=PIPE, stderr=DEVNULL, text=True)
        assert self.process.stdout is not None
        self.address = self.process.stdout.readline().strip()
        assert self.address, f"llama.cpp does not load {path}"
        self.opener = build_opener(ProxyHandler({}))  # this machine alone

    def ask(self, what: str, **fields: Any) -> dict[str, Any]:
        """Return the server's answer."""
        request = Request(f"{self.address}/{what}", json.dumps(fields).encode(), {"Content-Type": "application/json"})
        with self.opener.open(request, timeout=60) as answer:
            return json.load(answer)

    def tokens(self, text: str) -> list[int]:
        """Return the ids of a text, special tokens among them."""
        return self.ask("tokenize", content=text, add_special=True, parse_special=True)["tokens"]

    def write(self, prompt: str, tokens: int, **fields: Any) -> dict[str, Any]:
        """Return the greedy continuation: content, tokens, completion_probabilities."""
        return self.ask(
            "completion", prompt=prompt, n_predict=tokens, temperature=0, return_tokens=True, **fields, n_probs=5
        )


@pytest.fixture
def llama_cpp() -> Iterator[Callable[[Path], LlamaCpp]]:
    if find_spec("xllamacpp") is None:
        pytest.skip("no llama.cpp here: pip install 'loopscale[llamacpp]'")
    running: list[LlamaCpp] = []

    def start(path: Path) -> LlamaCpp:
        running.append(LlamaCpp(path))
        return running[-1]

    yield start
    for server in running:
        server.process.kill()
        server.process.communicate()
