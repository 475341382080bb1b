"""Depth of every step: drawn by the step, exact on resume, truncated exactly, told where it cannot be trained."""

from collections import Counter
from pathlib import Path

import pytest
import torch

from loopscale import InputError
from loopscale.model.unrolled import Unrolled, unrolled_loss
from loopscale.objective import OneMoreLoop
from loopscale.train import DEPTHS, FixedDepth, RunConfig, train
from loopscale.train.arguments import unreached
from loopscale.train.depth_schedules import build_schedule
from tests.helpers import tiny_config, tiny_model
from tests.train.test_resumption import KillAt, history, weights

IDS = torch.arange(24).view(2, 12) * 7 % 31
DRAWN = [
    {"kind": "uniform", "low": 2, "high": 5, "with_gradient": 2},
    {"kind": "poisson", "mean": 3.0, "most": 6},
    {"kind": "growing", "start": 1, "share": 1.0},
]


def loops_of(depth, steps, seed=0, **fields):
    schedule = build_schedule(depth, tiny_config(**fields), seed)
    return [schedule.depth(step, steps).loops for step in range(1, steps + 1)]


def test_uniform_draws_every_depth_alike_and_by_the_seed():
    loops = loops_of({"kind": "uniform", "low": 2, "high": 4}, 3000)
    assert Counter(loops).keys() == {2, 3, 4} and all(900 < n < 1100 for n in Counter(loops).values())
    assert loops_of({"kind": "uniform", "low": 2, "high": 4}, 3000) == loops
    assert loops_of({"kind": "uniform", "low": 2, "high": 4}, 3000, seed=1) != loops


@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_poisson_has_its_mean_a_tail_and_an_end(sigma):
    loops = torch.tensor(loops_of({"kind": "poisson", "sigma": sigma}, 8000, num_loops=8), dtype=torch.float64)
    assert 7.9 < loops.mean() < 8.1
    variance = 7 + 49 * (torch.tensor(sigma**2).exp() - 1)  # Poisson's own, and that of its rate
    assert loops.var() == pytest.approx(float(variance), rel=0.1)
    assert max(loops_of({"kind": "poisson", "most": 9}, 500, num_loops=8)) == 9


def test_growing_takes_equal_parts_of_its_share():
    assert loops_of({"kind": "growing", "start": 2, "share": 0.5}, 16, num_loops=5) == [2, 2, 3, 3, 4, 4, *[5] * 10]
    assert loops_of({"kind": "growing", "start": 1, "share": 1.0}, 6) == [1, 1, 2, 2, 3, 3]
    assert loops_of({"kind": "growing", "start": 3}, 3) == [3, 3, 3]


@pytest.mark.parametrize(
    ("depth", "words"),
    [
        ("unifrom", "did you mean 'uniform'"),
        ({"kind": "uniform", "lo": 2}, "did you mean 'low'"),
        ({"kind": "uniform", "low": 3, "high": 2}, "low is 3 and high 2"),
        ({"kind": "uniform", "low": 4, "high": 8}, "draws 4 to 8 loops, and the model is to run 3"),
        ({"kind": "growing", "end": 2}, "ends at 2 loops, and the model is to run 3"),
        ({"kind": "growing", "start": 4}, "ends at 4 loops"),
        ({"kind": "growing", "share": 0.0}, "share is 0.0"),
        ({"kind": "poisson", "mean": 1.0}, "mean is 1.0"),
        ({"kind": "poisson", "sigma": -1}, "sigma is -1"),
        ({"kind": "poisson", "most": 2, "mean": 4}, "most is 2"),
        ({"kind": "fixed", "with_gradient": 0}, "with_gradient is 0"),
        ({"low": 2}, "its name under `kind`"),
    ],
)
def test_what_cannot_be_drawn_is_told(run_config, depth, words):
    with pytest.raises(InputError, match=words):
        RunConfig.from_dict(run_config(depth=depth).to_dict())


def test_weights_of_exits_need_a_fixed_depth():
    config = tiny_config(loop_weights=[1.0, 1.0, 2.0])
    assert isinstance(build_schedule("fixed", config, 0), FixedDepth)
    with pytest.raises(InputError, match="loop_weights are for exits of a fixed depth"):
        build_schedule("uniform", config, 0)


@pytest.mark.parametrize("depth", DRAWN, ids=lambda depth: depth["kind"])
def test_drawn_depths_resume_exactly_and_are_logged_by_loop(run_config, depth):
    whole = train(run_config("whole", depth=depth, log_every=2), quiet=True)
    parts = run_config("parts", depth=depth, log_every=2)
    assert train(parts, [KillAt(3)], quiet=True) is None
    resumed = train(RunConfig.from_dict(parts.to_dict()), quiet=True)
    assert history(resumed) == history(whole) and torch.equal(weights(resumed), weights(whole))
    loops = [parts.schedule.depth(step, 6).loops for step in range(1, 7)]
    assert len(set(loops)) > 1
    lines = [line for line in whole.history if "loss" in line]
    for i, line in enumerate(lines):
        deepest = max(loops[2 * i : 2 * i + 2])
        for name in ("losses", "norms"):
            found = [value for key, value in line.items() if key.startswith(f"loop_{name}/")]
            assert len(found) == deepest and all(0 < value < 1e6 for value in found)


def test_the_figure_of_a_loop_is_the_mean_of_the_steps_that_ran_it(run_config):
    depth = {"kind": "growing", "start": 1, "share": 1.0}
    apart = [line for line in train(run_config("apart", depth=depth), quiet=True).history if "loss" in line]
    together = train(run_config("together", depth=depth, log_every=6, save_every=6), quiet=True).history[0]
    for key in (f"loop_{name}/{k}" for name in ("losses", "norms") for k in (1, 2, 3)):
        values = [line[key] for line in apart if key in line]
        assert together[key] == pytest.approx(sum(values) / len(values))


def test_a_growing_run_keeps_its_length(run_config):
    depth = {"kind": "growing", "start": 1}
    train(run_config(depth=depth), [KillAt(3)], quiet=True)
    with pytest.raises(InputError, match=r"max_steps was 6 and is 9, and the growth of train\.depth"):
        train(run_config(depth=depth, max_steps=9), quiet=True)


@pytest.mark.parametrize("kept", [False, True])
@pytest.mark.parametrize(
    "fields",
    [
        {"readout": "final_rmsnorm", "recurrence": "gated", "injection": "add", "norm_penalty_coef": 0.1},
        {"supervision": "exit_gate", "recurrence": "rmsnorm"},
        {"supervision": "terminal", "injection": "linear"},
    ],
)
def test_a_truncated_gradient_is_that_of_a_loop_that_detaches(fields, kept):
    torch.manual_seed(0)
    model = tiny_model(**fields).double().train()
    model.checkpoint_loops = kept
    loops, with_gradient = 5, 2
    naive = _naive(model, loops, with_gradient)
    out = model(IDS, labels=IDS, num_loops=loops, gradient_loops=with_gradient, supervised_exits_only=True)
    torch.testing.assert_close(out.loss, naive)
    parameters = list(model.parameters())
    ours, theirs = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (out.loss, naive))
    whole = torch.autograd.grad(model(IDS, labels=IDS, num_loops=loops).loss, parameters, allow_unused=True)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other)
    assert any(not torch.allclose(one, other) for one, other in zip(ours, whole, strict=True) if one is not None)


def _naive(model, loops, with_gradient):
    """Return the loss of plain verbs in a row, detached before the last loops, by the model's own loss."""
    context = model.context(IDS)
    h, states, gates, exits = model.embed(IDS, context), [], [], []
    for k in range(loops):
        constant = k < loops - with_gradient
        h = h.detach() if constant else h
        z = model.step(h, k, context)
        z = z.detach() if constant else z
        states.append(z)
        exits.append(model.readout_state(z, k, last=k + 1 == loops))
        if model.exit_gate is not None:
            gates.append(model.exit_probability(z, k, context, h))
        h = model.carry(z, k, context, h)
        h = h.detach() if constant else h
    labels = torch.cat([IDS[:, 1:], torch.full_like(IDS[:, :1], -100)], 1)
    supervision = model.supervision
    seen = [exit_ if supervision.supervises(k, loops) else None for k, exit_ in enumerate(exits)]
    count = (labels != -100).sum()
    gated = torch.stack(gates) if gates else None
    unrolled = Unrolled(states, seen, gated, OneMoreLoop(model, context, h, loops - 1))
    return unrolled_loss(model, supervision, unrolled, labels, count)[0]


def test_loops_without_gradient_keep_nothing():
    model = tiny_model(supervision="terminal").train()

    def saved(**options):
        total = 0

        def pack(x):
            nonlocal total
            total += x.numel()
            return x

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            model(IDS, labels=IDS, supervised_exits_only=True, **options)
        return total

    assert saved(num_loops=9, gradient_loops=2) <= saved(num_loops=2) < saved(num_loops=3) < saved(num_loops=9)


def test_parameters_that_truncation_leaves_out_are_found():
    model = tiny_model(supervision="terminal", tie_word_embeddings=False)
    schedule = build_schedule({"kind": "uniform", "low": 1, "high": 3, "with_gradient": 1}, model.config, 0)
    never, sometimes = unreached(model, schedule.extremes)
    assert not never and sometimes == {"model.embed_tokens.weight", "model.embed_positions.weight"}


def test_a_last_loop_without_a_whole_number_of_gradient_loops_is_told():
    with pytest.raises(InputError, match="gradient_loops is 0"):
        tiny_model()(IDS, labels=IDS, gradient_loops=0)


def test_every_schedule_is_in_the_documentation():
    page = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in page for name in DEPTHS)
