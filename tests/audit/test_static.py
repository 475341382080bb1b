"""The verdict from a configuration agrees with the one measured on weights."""

from itertools import combinations, product
from random import Random

import pytest
import torch

from loopscale.audit import audit, mean, scale, static_verdict, static_warning
from loopscale.mechanism import Effect
from loopscale.model import CARRIES, CODA_INPUTS, INJECTIONS, READOUTS, RESIDUALS, LoopedConfig, config_losses
from loopscale.objective import PENALTIES, SUPERVISIONS
from tests.helpers import tiny_config, tiny_model

PENALISED = [None, *([kind] for kind in PENALTIES)]
CODAS = [None, *CODA_INPUTS]
EVERY = list(product(READOUTS, CARRIES, RESIDUALS, INJECTIONS, CODAS, SUPERVISIONS, PENALISED))


def covering(rows: list[tuple]) -> list[tuple]:
    """Return few rows in which every pair of values stands: each is the best of some drawn ones."""
    drawn = Random(0)
    left = set().union(*map(pairs, rows))
    chosen = []
    while left:
        chosen.append(max(drawn.sample(rows, 300), key=lambda row: len(left & pairs(row))))
        left -= pairs(chosen[-1])
    return chosen


def pairs(row: tuple) -> set[tuple]:
    """Return the pairs of values in a row."""
    return {(i, str(row[i]), j, str(row[j])) for i, j in combinations(range(len(row)), 2)}


GRID = covering(EVERY)


def weights_decide(config: LoopedConfig, name: str) -> bool:
    """Whether some part or penalty leaves a coordinate to the weights: then the measurement alone can tell."""
    parts = (
        READOUTS[config.readout],
        CARRIES[config.recurrence],
        RESIDUALS[config.residual],
        INJECTIONS[config.injection],
    )
    penalties = [type(penalty) for penalty in config_losses(config).penalties]
    if config.num_coda_layers:  # what is not hidden from the coda may reach its norms, and they weigh it
        read = {READOUTS[config.readout].effects_at(last).get(name) for last in (True, False)}
        if config.coda_input != "readout" or read != {Effect.HIDES}:
            return True
    return any(part.effects.get(name, Effect.WEIGHTS) == Effect.WEIGHTS for part in (*parts, *penalties))


@pytest.mark.parametrize("readout, recurrence, residual, injection, coda, supervision, penalties", GRID)
def test_static_and_measured_verdicts_agree(readout, recurrence, residual, injection, coda, supervision, penalties):
    model = tiny_model(
        readout=readout,
        recurrence=recurrence,
        residual=residual,
        injection=injection,
        **({} if coda is None else {"num_coda_layers": 1, "coda_input": coda}),
        supervision=supervision,
        penalties=penalties,
        rms_norm_eps=0.0,
        num_stack_layers=1,
    ).double()
    measured = audit(model, [torch.randint(0, 31, (2, 9))], coordinates=[scale, mean]).coordinates
    for name, expected in static_verdict(model.config).items():
        got = measured[name]
        if expected.verdict == "undecided":
            assert weights_decide(model.config, name), name  # nobody else may leave it open
            continue
        assert got.verdict == expected.verdict, name
        if not weights_decide(model.config, name):
            assert (got.seen_by, got.removed_by) == (expected.seen_by, expected.removed_by), name
        for loss, loops in expected.seen_by.items():
            assert set(loops) <= set(got.seen_by[loss]), name


def test_few_configurations_are_left_to_the_weights():
    verdicts = [
        static_verdict(tiny_config(readout=readout, recurrence=carry, supervision=supervision))
        for readout, carry, supervision in product(
            ["raw", "rmsnorm", "layernorm"], ["residual", "rmsnorm"], ["terminal", "per_loop", "exit_gate"]
        )
    ]
    assert all(found["scale"].verdict != "undecided" for found in verdicts)
    assert sum(found["mean"].verdict == "undecided" for found in verdicts) == 3


@pytest.mark.parametrize(
    "overrides, verdict",
    [
        ({}, "blind_spot"),
        ({"supervision": "terminal"}, "blind_spot"),
        ({"readout": "layernorm"}, "blind_spot"),
        ({"recurrence": "damped"}, "blind_spot"),
        ({"norm_placement": "sandwich"}, "blind_spot"),
        ({"readout": "final_rmsnorm", "supervision": "terminal"}, "blind_spot"),
        ({"readout": "final_rmsnorm", "num_loops": 1}, "blind_spot"),
        ({"exit_gate": True}, "blind_spot"),  # a gate that no loss trains
        ({"readout": "final_rmsnorm", "supervision": "annealed"}, "blind_spot"),  # as training ends
        ({"readout": "raw", "supervision": "annealed"}, "visible"),
        ({"num_coda_layers": 1, "coda_input": "readout"}, "blind_spot"),
        ({"num_coda_layers": 1}, "undecided"),
        ({"num_coda_layers": 1, "readout": "raw"}, "visible"),
        ({"num_coda_layers": 1, "readout": "raw", "residual": "post_add", "penalties": ["norm"]}, "visible"),
        ({"num_coda_layers": 1, "recurrence": "rmsnorm"}, "undecided"),
        ({"readout": "raw"}, "visible"),
        ({"readout": "final_rmsnorm"}, "visible"),
        ({"norm_penalty_coef": 0.01}, "visible"),
        ({"penalties": ["norm"]}, "visible"),
        ({"supervision": "exit_gate"}, "visible"),
        ({"supervision": {"kind": "batch_exit_gate", "prior": "geometric"}}, "visible"),
        ({"recurrence": "rmsnorm"}, "removed"),
        ({"recurrence": {"kind": "rmsnorm"}}, "removed"),
        ({"recurrence": "rmsnorm", "supervision": "exit_gate"}, "removed"),
    ],
)
def test_the_verdict_on_scale(overrides, verdict):
    assert static_verdict(tiny_config(**overrides))["scale"].verdict == verdict


def test_a_residual_that_removes_is_heard(monkeypatch):
    class Removing(RESIDUALS["pre"].__bases__[0]):
        effects = {"scale": Effect.REMOVES}  # noqa: RUF012  # and the mean is left to the weights

    monkeypatch.setitem(RESIDUALS, "removing", Removing)
    found = static_verdict(tiny_config(residual="removing", readout="layernorm"))
    assert (found["scale"].verdict, found["scale"].removed_by) == ("removed", "step")
    assert found["mean"].verdict == "undecided"


def test_loops_that_see_and_remedies_are_named():
    config = tiny_config(readout="final_rmsnorm", loop_weights=[1.0, 0.0, 1.0])
    assert static_verdict(config)["scale"].seen_by == {"cross-entropy": (1,)}
    blind = static_verdict(tiny_config())["scale"]
    assert "norm_penalty_coef" in blind.remedy and "recurrence" in blind.remedy


def test_the_warning_names_what_is_blind_and_is_silent_otherwise():
    assert static_warning(tiny_config(readout="raw")) is None
    assert "the scale of the state" in static_warning(tiny_config())
    both = static_warning(tiny_config(readout="layernorm"))
    assert both.count("blind spot") == 2 and "mean" in both
    assert "from loop to loop" in both and "loop to loop" not in static_warning(tiny_config(num_loops=1))


def test_a_penalty_to_come_counts():
    assert static_verdict(tiny_config(), penalty=True)["scale"].seen_by == {"norm penalty": (1, 2, 3)}


def test_a_changed_depth_does_not_change_what_was_trained():
    model = tiny_model(readout="final_rmsnorm")
    model.config.num_loops = 5
    report = audit(model.double(), [torch.randint(0, 31, (2, 9))])
    assert report.num_loops == 3 and report.coordinates["scale"].seen_by == {"cross-entropy": (1, 2)}
