"""A step without numbers takes what a real one takes, to the byte and the operation."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode, flop_registry

from benchmarks.shapes import Shape, train_flops
from loopscale.model import LoopedForCausalLM
from loopscale.plan import Ledger, step_cost
from loopscale.plan.ledger import FORMULAS
from tests.helpers import tiny_config

WHOLE = {"num_prelude_layers": 1, "num_coda_layers": 1, "injection": "linear"}
MODELS = [{}, {"dropout": 0.1, **WHOLE}, {"supervision": "exit_gate", "exit_gate": True, "penalties": ["norm"]}]
B, T = 3, 24


class AsItIs:
    """A formula that the counter does not wrap once more."""

    _get_raw = True

    def __init__(self, formula):
        self.formula = formula

    def __call__(self, *args, **kwargs):
        return self.formula(*args, **kwargs)


def real(config, bf16, checkpoint_loops):
    """Return what a real step has alive beyond the model, and its operations by torch's own counter."""
    model = LoopedForCausalLM(config).train()
    model.checkpoint_loops = checkpoint_loops
    ids = torch.zeros((B, T), dtype=torch.long)

    def step(mode):
        with mode, torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = model(ids, shift_labels=ids, supervised_exits_only=True).loss
            with torch.autocast("cpu", enabled=False):
                loss.backward()
        model.zero_grad()
        return mode

    on_cpu = {packet: AsItIs(formula) for packet, formula in FORMULAS.items() if packet not in flop_registry}
    counter = step(FlopCounterMode(display=False, custom_mapping=on_cpu))
    return step(Ledger()).peak, counter.get_total_flops()


@pytest.mark.parametrize(
    ("fields", "bf16", "checkpoint_loops"),
    [(MODELS[0], True, True), (MODELS[1], True, False), (MODELS[2], False, False)],
)
def test_memory_and_operations_are_those_of_a_real_step(fields, bf16, checkpoint_loops, unchecked_shapes):
    config = tiny_config(**fields)
    planned = step_cost(config, B, T, bf16=bf16, gpu=False, checkpoint_loops=checkpoint_loops)
    peak, flops = real(config, bf16, checkpoint_loops)
    assert planned.flops == flops
    assert planned.peak == pytest.approx(peak, rel=0.02)  # of random states, which a real checkpoint keeps


def test_what_was_there_before_is_not_counted_in_its_views():
    weight = torch.ones(64, 32, requires_grad=True)
    with Ledger() as ledger:
        made = (torch.ones(8, 32) @ weight.T)[:4].sum()
        made.backward()
    assert ledger.peak < 4 * (3 * 64 * 32)  # its gradient, and what is as large as a row or two


def test_what_is_kept_is_what_autograd_saves(unchecked_shapes):
    config = tiny_config(norm_penalty_coef=0.01)
    model = LoopedForCausalLM(config).train()
    ids = torch.zeros((B, T), dtype=torch.long)
    saved = {}
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}

    def pack(x):
        storage = x.untyped_storage()
        if storage.data_ptr() not in weights:
            saved[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        output = model(ids, shift_labels=ids, supervised_exits_only=True)
    planned = step_cost(config, B, T, bf16=False, gpu=False)
    assert output.loss.requires_grad and planned.kept == pytest.approx(sum(saved.values()), rel=0.1)


def test_a_gpu_s_kernels_keep_less_and_recompute_the_scores(unchecked_shapes):
    config = tiny_config(dropout=0.1)
    cpu, gpu = (step_cost(config, B, T, gpu=there) for there in (False, True))
    K, L, D = config.num_loops, config.num_stack_layers, config.hidden_size
    assert gpu.kept < cpu.kept and gpu.peak < cpu.peak
    assert gpu.flops - cpu.flops == K * L * B * 2 * T * T * D  # one more product of every layer's attention


def test_loops_without_gradient_keep_nothing(unchecked_shapes):
    config = tiny_config()
    all_, last = (step_cost(config, B, T, depth={"num_loops": 6, "gradient_loops": n}) for n in (6, 1))
    assert last.kept < 0.5 * all_.kept and last.flops < all_.flops


def test_the_benchmark_s_formula_is_the_counter_s(unchecked_shapes):
    shape = Shape("laptop", 1, 64)
    assert step_cost(shape.config(), 1, 64, gpu=False).flops == train_flops(shape)
