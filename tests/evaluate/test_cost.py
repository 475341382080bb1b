import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from loopscale.evaluate import counted_flops, formula_flops, measure_speed, measure_speeds, token_flops
from loopscale.model.parts import SLOTS
from tests.evaluate.models import Injecting, text
from tests.helpers import tiny_config, tiny_model


@pytest.mark.parametrize(
    "overrides",
    [
        {},
        {"num_attention_heads": 4, "num_key_value_heads": 2},
        {"intermediate_size": 24, "position_embedding": "rope"},
        {"head_dim": 10, "num_key_value_heads": 1, "mlp": "gelu"},
        {"num_prelude_layers": 1, "injection": "linear"},
        {"num_coda_layers": 2, "coda_input": "linear"},
    ],
)
@pytest.mark.parametrize("exit", [1, 3, 5])
def test_the_formula_is_what_the_counter_counts(overrides, exit):
    model, ids = tiny_model(**overrides), text()[:, :-1]
    with torch.no_grad(), FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
        model(ids, num_loops=exit)
    counted = counter.get_total_flops() / ids.numel()
    # some versions of transformers compute RoPE's angles, once a call, by a small matrix product
    assert formula_flops(model.config, ids.shape[1]).at_exit(exit) == pytest.approx(counted, rel=1e-3)
    assert counted_flops(model, ids).at_exit(exit) == pytest.approx(counted, rel=1e-3)


@pytest.mark.parametrize(("slot", "name"), [(slot, name) for slot, parts in SLOTS.items() for name in parts])
def test_the_formula_counts_the_matrices_of_every_part(slot, name):
    model, ids = tiny_model(**{slot: name}, num_coda_layers=1), text()[:1, :-1]
    formula, counted = formula_flops(model.config, ids.shape[1]), counted_flops(model, ids)
    assert (formula.step, formula.carry, formula.readout) == (counted.step, counted.carry, counted.readout)


def test_the_paper_size_by_hand():
    flops = formula_flops(
        tiny_config(hidden_size=768, num_stack_layers=12, num_attention_heads=12, vocab_size=20_000), 256
    )
    layer = 2 * (4 * 768**2 + 3 * 768 * 3072) + 4 * 256 * 768
    assert flops.at_exit(4) == 4 * 12 * layer + 2 * 768 * 20_000


def test_other_models_are_counted_verb_by_verb():
    model, ids = Injecting(), text()[:, :-1]
    flops = token_flops(model, ids)
    assert (flops.embed, flops.step, flops.carry, flops.readout) == (0, 2 * 32 * 16, 0, 2 * 32 * 31)
    assert flops.at_exit(3) == 3 * flops.step + flops.readout


def test_a_pass_to_exit_k_runs_k_steps_and_one_readout():
    model, ids = Injecting(), text()[:, :-1]
    speeds = measure_speed(model, ids, (1, 3), repeats=2)
    assert model.rows_stepped == 3 * (1 + 3) * len(ids)  # a round that is not counted, and two that are
    assert [(s.exit, s.batch_size, s.sequence_length, len(s.seconds)) for s in speeds] == [(1, 6, 12, 2), (3, 6, 12, 2)]
    assert all(s.tokens_per_second == pytest.approx(72 / s.latency) for s in speeds)


def test_models_are_timed_in_turns(monkeypatch):
    order = []
    models = {name: Injecting() for name in "ab"}
    for name, model in models.items():
        monkeypatch.setattr(model, "readout", lambda z, k, name=name: order.append((name, k)))
    ids = dict.fromkeys(models, text()[:, :-1])
    measure_speeds(models, ids, {"a": (1, 2), "b": (1,)}, repeats=2)
    assert order == [("a", 0), ("a", 1), ("b", 0)] * 3
