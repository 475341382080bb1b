"""What is no looped model is told in a sentence, wherever it comes in."""

import re
import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from loopscale import InputError, run_loops
from loopscale.adapters import stream_plainly
from loopscale.audit import audit, intervene, loop_curves, search
from loopscale.decode import early_exit_generate, full_depth_generate, speculative_generate
from loopscale.evaluate import RULES, depth_curve, depth_curves, measure_speed, token_flops, trace_exits
from loopscale.load import require_native
from tests.helpers import tiny_model

IDS = torch.arange(1, 25).view(2, 12)

ENTRIES = {
    "run_loops": lambda model: list(run_loops(model, IDS)),
    "depth_curve": lambda model: depth_curve(model, [IDS]),
    "depth_curves": lambda model: depth_curves(model, [IDS]),
    "trace_exits": lambda model: trace_exits(model, [IDS], [RULES["entropy"]]),
    "token_flops": lambda model: token_flops(model, IDS),
    "measure_speed": lambda model: measure_speed(model, IDS, [1]),
    "audit": lambda model: audit(model, [IDS]),
    "search": lambda model: search(model, [IDS, IDS]),
    "loop_curves": lambda model: loop_curves(model, [IDS]),
    "intervene": lambda model: intervene(model, [IDS]),
    "speculative_generate": lambda model: speculative_generate(model, IDS, 4),
    "full_depth_generate": lambda model: full_depth_generate(model, IDS, 4),
    "early_exit_generate": lambda model: early_exit_generate(model, IDS, 4, rule=None),
    "stream_plainly": lambda model: list(stream_plainly(model, IDS, 4)),
}


def llama():
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=31, **sizes))


class Odd:
    num_loops = 0
    embed = step = carry = readout = len


class Foreign(Odd):
    num_loops, family = 3, "Toy"


def others():
    """What is no looped model, and what is said of it."""
    return (
        (nn.DataParallel(tiny_model()), r"DataParallel wraps a looped model.*\.module"),
        ("runs/train", "'runs/train' is a name.*load_model"),
        (type(tiny_model()), "is a class"),
        (llama(), "LlamaForCausalLM is not a looped model: it lacks `embed"),
        (None, "NoneType is not a looped model"),
        (Odd(), r"Odd\.num_loops is 0"),
    )


def main():
    """Ask every entry, and say which took what it should not."""
    for name, call in ENTRIES.items():
        for model, words in others():
            try:
                call(model)
            except InputError as error:
                if not re.search(words, str(error), re.DOTALL):
                    print(name, words, "and not", error)
            except Exception as error:
                print(name, words, type(error).__name__, error)
            else:
                print(name, "took", words)


def test_every_entry_asks():
    # in a process of its own: under pytest, types are checked before any code of ours runs
    code = "from tests.test_errors import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_what_needs_a_cache_names_itself():
    with pytest.raises(InputError, match="self-speculation needs a native model, and Toy"):
        require_native(Foreign(), "self-speculation")
    assert require_native(model := tiny_model(), "x") is model
