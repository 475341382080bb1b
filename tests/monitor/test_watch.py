import copy
import io
import logging
import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from loopscale.monitor import watch
from loopscale.state import angular_step, norm
from tests.helpers import tiny_model
from tests.monitor.loops import TheirLoop, a_batch, train


@pytest.fixture(autouse=True)
def _speaks(caplog):
    caplog.set_level(logging.WARNING, logger="loopscale.monitor")


def states_of(model, ids):
    h, states = model.tokens(ids), []
    for _ in range(model.loops):
        for layer in model.core:
            h = layer(h)
        states.append(h.detach())
    return states


def test_its_figures_are_those_of_the_states():
    model = TheirLoop()
    states = states_of(model, a_batch())
    with watch(model, "core.1") as watching:
        train(model, 1)
    (reading,) = watching.readings
    assert reading.norm == pytest.approx([float(norm(z).mean()) for z in states], rel=1e-5)
    assert reading.scale == pytest.approx([value / 4 for value in reading.norm])
    turned = [float(angular_step(a, b).mean()) for a, b in pairwise(states)]
    assert reading.angular_step == pytest.approx(turned, rel=1e-5)
    moved = [float((norm(b - a) / norm(a)).mean()) for a, b in pairwise(states)]
    assert reading.update == pytest.approx(moved, rel=1e-5)
    assert reading.float16_range == pytest.approx([float(z.abs().max()) / 65504 for z in states], rel=1e-5)
    for k, z in enumerate(states):
        rms = z.square().mean((0, 1)).sqrt()
        assert reading.channel[k] == int(rms.argmax())
        assert reading.largest_channel[k] == pytest.approx(float(rms.max() / z.square().mean().sqrt()), rel=1e-5)
    names = {f"loop/{name}/{k}" for name in ("norm", "scale", "largest_channel", "bf16_range") for k in (1, 2, 3)}
    names |= {f"loop/{name}/{k}" for name in ("angular_step", "update") for k in (1, 2)}
    names |= {f"loop/float16_range/{k}" for k in (1, 2, 3)} | {"loop/visibility/3", "loop/cost"}
    assert set(reading.scalars()) == names


@pytest.mark.parametrize("relaxation", ["full", {"kind": "fixed", "factor": 0.25}, {"kind": "learned", "initial": 0.5}])
def test_a_model_of_ours_is_read_where_its_state_comes_out(relaxation):
    model = tiny_model(relaxation=relaxation)
    ids = torch.arange(24).view(2, 12) % 31
    states = model(ids, output_states=True).states
    with watch(model) as watching:
        model.train()(ids, labels=ids).loss.backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
    (reading,) = watching.readings
    assert reading.norm == pytest.approx([float(norm(z.detach()).mean()) for z in states], rel=1e-5)


def test_it_reads_the_first_step_and_every_so_many():
    seen = []
    model = TheirLoop()
    with watch(model, "core.1", every=3, log=lambda scalars, step: seen.append(step)):
        train(model, 7)
    train(model, 7)
    assert seen == [1, 3, 6]
    assert not model._forward_hooks and not model.core[1]._forward_hooks


@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad")  # said of evaluation
@pytest.mark.parametrize("recompute", [None, False, True])
def test_accumulation_checkpointing_and_evaluation_count_for_nothing(recompute):
    expected = TheirLoop()
    model = TheirLoop(recompute=recompute)
    model.load_state_dict(expected.state_dict())

    def evaluate(model):
        model.eval()
        with torch.no_grad():
            model(a_batch(99))
        model(a_batch(98))  # some forget no_grad
        model.train()

    with watch(expected, "core.1", every=2) as plain, watch(model, "core.1", every=2) as watching:
        train(expected, 4, accumulate=3)
        train(model, 4, accumulate=3, between=evaluate)
    assert [r.step for r in watching.readings] == [1, 2, 4]
    for a, b in zip(plain.readings, watching.readings, strict=True):
        assert b.norm == pytest.approx(a.norm, rel=1e-4)


def test_what_training_does_is_the_same():
    weights = []
    for watched in (False, True):
        torch.manual_seed(0)
        model = TheirLoop()
        with watch(model, "core.1", every=1 if watched else 100):
            train(model, 5)
        weights.append([p.detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*weights, strict=True))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch's own tracing asks for it
@pytest.mark.parametrize("wrapped", ["compile first", "compile after", "its core", "peft", "checkpoint_wrapper"])
def test_wrapped_models_are_watched_by_the_names_their_author_knows(wrapped):
    torch._dynamo.reset()
    model: nn.Module = TheirLoop()
    expected = states_of(model, a_batch())
    compiled: Any = {"backend": "aot_eager", "fullgraph": True}
    if wrapped == "peft":
        model = get_peft_model(model, LoraConfig(target_modules=["up"]))
    if wrapped == "compile first":
        model = torch.compile(model, **compiled)
    if wrapped == "checkpoint_wrapper":
        from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

        model.core[1] = checkpoint_wrapper(model.core[1])
    with watch(model, "core.1", every=2) as watching:
        if wrapped == "compile after":
            model = torch.compile(model, **compiled)
        if wrapped == "its core":
            model.core[1].compile(**compiled)
        train(model, 4)
    assert [r.step for r in watching.readings] == [1, 2, 4]
    assert watching.readings[0].norm == pytest.approx([float(norm(z).mean()) for z in expected], rel=1e-4)


def test_a_model_that_ran_compiled_before_is_told_of(caplog):
    torch._dynamo.reset()
    model = torch.compile(TheirLoop(), backend="aot_eager")
    train(model, 1)
    with watch(model, "core.1"):
        train(model, 1)
    assert "compiled and run before watch" in caplog.text


def test_loops_may_be_told_by_their_block():
    class Blocks(TheirLoop):
        def __init__(self):
            super().__init__()
            self.loop = nn.Sequential(self.core[0], self.core[0])  # one layer, twice in each loop

        def forward(self, ids, attention_mask=None):
            h = self.tokens(ids)
            for _ in range(3):
                h = self.loop(h)
            return self.head(self.norm(h))

    model = Blocks()
    with watch(model, loops="loop") as blocks, watch(model, "core.0", loops="loop") as last:
        train(model, 1)
    assert len(last.readings[0].norm) == 3
    assert last.readings[0].norm == blocks.readings[0].norm


def test_layers_of_their_own_may_be_the_loops():
    model = TheirLoop(loops=1)
    with watch(model, r"core\.\d") as watching:
        train(model, 1)
    assert len(watching.readings[0].norm) == 2


def test_a_loop_that_nobody_calls_around_is_counted_by_its_number():
    model = TheirLoop()

    def call(ids):
        h = model.tokens(ids)
        for _ in range(3):
            h = model.core[0](h)
        return model.head(h)

    with watch(model, "core.0", loops=3, every=1) as watching:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            call(a_batch()).square().mean().backward()
            optimizer.step()
    assert [len(r.norm) for r in watching.readings] == [3, 3]


def test_without_a_number_a_forward_that_nobody_calls_around_ends_with_its_backward_pass():
    model = TheirLoop()
    with watch(model, "core.1", every=1) as watching:
        optimizer = torch.optim.SGD(model.parameters(), 0.1)
        for _ in range(2):
            for _ in range(2):  # micro-batches
                TheirLoop.forward(model, a_batch()).square().mean().backward()
            optimizer.step()
            with torch.no_grad():
                TheirLoop.forward(model, a_batch())
    assert [(len(r.norm), r.tokens) for r in watching.readings] == [(3, 16), (3, 16)]


def test_a_block_that_stands_several_times_in_a_list_has_all_its_names():
    model = TheirLoop(loops=1)
    model.core = nn.ModuleList([model.core[0]] * 4)
    for state in ("core.3", "core.0", r"core\.\d"):
        with watch(model, state) as watching:
            train(model, 1)
        assert len(watching.readings[0].norm) == 4


@pytest.mark.parametrize("seq_first", [False, True])
@pytest.mark.parametrize("named", [False, True])
def test_torchs_own_masks_of_padding_are_read(seq_first, named):
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=not seq_first)

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, h, src_key_padding_mask):
            for _ in range(2):
                h = self.layer(h, src_key_padding_mask=src_key_padding_mask)
            return h

    h, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False, True, True, True, True]])
    model, h = Encoder(), h.transpose(0, 1) if seq_first else h
    with watch(model, "layer") as watching:
        (model(h, src_key_padding_mask=padding) if named else model(h, padding)).sum().backward()
        watching.step()
    assert watching.readings[0].tokens == 6


def test_a_mask_that_does_not_fit_is_told_of(caplog):
    model = TheirLoop()
    with watch(model, "core.1") as watching:
        model(a_batch(), torch.tensor([[1] * 9, [1, 0, 0, 0, 0, 0, 0, 0, 0]])).sum().backward()
        watching.step()
    assert watching.readings[0].tokens == 16 and "(2, 9) does not fit" in caplog.text


def test_nested_and_mapped_states_are_read_and_none_where_there_are_no_tokens(caplog):
    layer = TheirLoop().core[0]
    layer.norm = nn.Identity()
    rows = [torch.randn(3, 16), torch.randn(5, 16)]
    nested = torch.nested.nested_tensor(rows, layout=torch.jagged, requires_grad=True)
    many = torch.randn(4, 2, 16)
    with watch(nn.Sequential(layer), "0", every=1) as watching:
        layer(nested).values().sum().backward()
        watching.step()
        torch.func.vmap(layer)(many).sum().backward()
        watching.step()
        layer(many[:0]).sum().backward()
        watching.step()
    assert [r.tokens for r in watching.readings] == [8, 8]
    with torch.no_grad():
        means = [float(torch.cat([layer(z) for z in batch]).norm(dim=-1).mean()) for batch in (rows, many)]
    assert [r.norm[0] for r in watching.readings] == pytest.approx(means, rel=1e-5)
    assert "has one loop" in caplog.text and "with a token was heard" in caplog.text


def test_what_was_not_stepped_is_read_at_the_end_and_nothing_is_told(caplog):
    model = TheirLoop()
    with watch(model, "core.1") as watching:
        model(a_batch()).sum().backward()
    assert len(watching.readings) == 1 and not caplog.text
    with watch(model, "core.1") as watching, torch.no_grad():
        model(a_batch())
    assert not watching.readings and "nothing was read" in caplog.text


def test_steps_of_other_optimizers_can_be_told_or_are_forwards(caplog):
    model = TheirLoop()
    with watch(model, "core.1", every=2) as watching:
        for _ in range(4):
            model(a_batch()).sum().backward()
            watching.step()
    assert [r.step for r in watching.readings] == [1, 2, 4] and not caplog.text
    with watch(model, "core.1", every=5) as watching:
        for _ in range(112):
            model(a_batch()).sum().backward()
    assert [r.step for r in watching.readings] == [1, 101, 105, 110] and "every forward is one" in caplog.text


def test_two_optimizers_make_one_step_and_those_of_others_none():
    model, other = TheirLoop(), TheirLoop()
    parameters = list(model.parameters())
    optimizers = [torch.optim.SGD(parameters[:2], 0.1), torch.optim.AdamW(parameters[2:])]
    with watch(model, "core.1", every=1) as watching:
        for _ in range(3):
            model(a_batch()).sum().backward()
            for optimizer in optimizers:
                optimizer.step()
            train(other, 1)
    assert watching.steps == 3


def test_padded_tokens_are_left_out():
    model = TheirLoop()
    ids, mask = a_batch(), torch.ones(2, 8, dtype=torch.long)
    mask[0, :5] = 0
    real = [norm(z)[mask.bool()].mean() for z in states_of(model, ids)]
    with watch(model, "core.1") as watching:
        model(ids, attention_mask=mask).sum().backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
    assert watching.readings[0].tokens == 11
    assert watching.readings[0].norm == pytest.approx([float(value) for value in real], rel=1e-5)


def test_copies_and_pickles_of_the_model_are_not_watched():
    model = TheirLoop()
    with watch(model, "core.1", every=1) as watching:
        average = copy.deepcopy(model)
        torch.save(model, buffer := io.BytesIO())
        buffer.seek(0)
        train(average, 2)
        train(torch.load(buffer, weights_only=False), 2)
        assert not watching.readings
        train(model, 1)
    assert [r.step for r in watching.readings] == [1]


def test_a_forward_that_fails_is_forgotten():
    model = TheirLoop()
    with watch(model, "core.1", every=1) as watching:
        with pytest.raises(IndexError):
            model(torch.full((2, 8), 99))
        train(model, 1)
    assert len(watching.readings[0].norm) == 3


def test_half_precision_and_states_inside_other_outputs():
    class Pair(nn.Module):
        def __init__(self, layer):
            super().__init__()
            self.layer = layer

        def forward(self, x):
            return {"mask": torch.ones(2), "states": (torch.zeros(2, 2, dtype=torch.long), self.layer(x))}

    class Model(TheirLoop):
        def __init__(self):
            super().__init__()
            self.pair = Pair(self.core[1])

        def forward(self, ids, attention_mask=None):
            h = self.tokens(ids)
            for _ in range(3):
                h = self.pair(h)["states"][1]
            return self.head(self.norm(h))

    model = Model().to(torch.bfloat16)
    with watch(model, "pair") as watching:
        train(model, 1)
    (reading,) = watching.readings
    assert reading.dtype == torch.bfloat16 and all(map(math.isfinite, reading.norm)) and len(reading.norm) == 3


def test_our_own_model_needs_no_names():
    model = tiny_model().train()
    ids = torch.randint(0, 31, (2, 12))
    with watch(model) as watching:
        output = model(ids, labels=ids)
        output.loss.backward()
        torch.optim.SGD(model.parameters(), 0.1).step()
    assert watching.readings[0].norm == pytest.approx(output.loop_norms.mean(0).tolist(), rel=1e-5)
    assert watching.readings[0].visibility < 1e-5  # rmsnorm hides the scale


def test_it_says_what_it_costs():
    model = TheirLoop()
    with watch(model, "core.1", every=2) as watching:
        train(model, 3)
    assert 0 < watching.cost.share < 1 and "us a step" in str(watching.cost) and "over 3 steps" in str(watching.cost)
