"""Numbers of tiny models as version 0.1 had them: moving code must not move these.

`python -m tests.model.test_golden` writes them anew, for a change that is meant to move numbers.
"""

import json
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch

from loopscale import LoopedConfig, LoopedForCausalLM
from tests.helpers import tiny_config, tiny_model

DATA = Path(__file__).parents[1] / "data"
NUMBERS = DATA / "golden_variants.json"
READOUTS = ("rmsnorm", "layernorm", "raw", "final_rmsnorm")
RECURRENCES = ("residual", "rmsnorm", "damped")
VARIANTS: dict[str, dict[str, Any]] = {
    **{f"{a}, {b}": {"readout": a, "recurrence": b} for a, b in product(READOUTS, RECURRENCES)},
    "sandwich of LayerNorms": {"norm_placement": "sandwich", "block_norm": "layernorm"},
    "rope, grouped heads": {"position_embedding": "rope", "num_attention_heads": 4, "num_key_value_heads": 2},
    "one norm": {"recurrence": "rmsnorm", "share_loop_norm": True, "supervision": "terminal", "init": "normal"},
    "gate and penalty": {"supervision": "exit_gate", "norm_penalty_coef": 0.01, "tie_word_embeddings": False},
    "weights": {"loop_weights": [0.0, 1.0, 3.0], "norm_penalty_coef": 0.1, "readout": "final_rmsnorm"},
}


def measure(variant: str) -> dict[str, Any]:
    """Return the loss, what it is made of, and some logits and gradients of a freshly built model."""
    torch.manual_seed(7)
    model = tiny_model(**VARIANTS[variant])
    ids = torch.arange(40).view(2, 20) * 7 % 31
    out = model(ids, labels=ids)
    out.loss.backward()
    past_depth = model(ids, num_loops=5)
    return {
        "loss": out.loss.tolist(),
        "loop_losses": out.loop_losses.mean(0).tolist(),
        "loop_norms": out.loop_norms.mean(0).tolist(),
        "logits": out.logits[:, -1, :4].tolist(),
        "logits past the trained depth": past_depth.logits[:, -1, :4].tolist(),
        "gradient": [float(p.grad.double().norm()) for _, p in sorted(model.named_parameters())],
        "parameters": [name for name, _ in sorted(model.named_parameters())],
    }


@pytest.mark.parametrize("variant", VARIANTS)
def test_numbers_of_every_variant_stay(variant):
    found, golden = measure(variant), json.loads(NUMBERS.read_text())[variant]
    assert found.pop("parameters") == golden.pop("parameters")
    for name, numbers in golden.items():
        torch.testing.assert_close(
            torch.tensor(found[name]),
            torch.tensor(numbers),
            rtol=1e-5,
            atol=1e-6,
            msg=lambda m, name=name: f"{name}: {m}",
        )


def test_a_config_json_of_version_0_1_loads_to_an_equal_model(tmp_path):
    fields = json.loads((DATA / "config_0_1.json").read_text())
    config = LoopedConfig.from_pretrained(DATA / "config_0_1.json")
    given = {"hidden_size": 16, "readout": "final_rmsnorm", "recurrence": "damped", "norm_placement": "sandwich"}
    assert given.items() <= fields.items()
    again = config.to_dict()
    for name in fields.keys() - {"transformers_version"}:
        assert again[name] == fields[name], name
    torch.manual_seed(7)
    one = LoopedForCausalLM(config)
    torch.manual_seed(7)
    other = LoopedForCausalLM(tiny_config(**OLD))
    assert [name for name, _ in one.named_parameters()] == [name for name, _ in other.named_parameters()]
    for ours, theirs in zip(one.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    one.save_pretrained(tmp_path)
    assert LoopedConfig.from_pretrained(tmp_path).to_dict() == one.config.to_dict()


OLD = {
    "readout": "final_rmsnorm",
    "recurrence": "damped",
    "norm_placement": "sandwich",
    "norm_penalty_coef": 0.01,
    "exit_gate": True,
    "loop_weights": [1.0, 1.0, 2.0],
}


if __name__ == "__main__":
    NUMBERS.write_text(json.dumps({variant: measure(variant) for variant in VARIANTS}, indent=1) + "\n")
