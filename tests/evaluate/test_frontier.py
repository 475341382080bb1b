import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from loopscale.errors import InputError
from loopscale.evaluate import FrontierPoint, Measured, Speed, TokenFlops, differences, dominated, frontier
from loopscale.evaluate.curve import DepthCurve
from loopscale.evaluate.pareto import points_table


def _point(flops, perplexity, **more):
    return FrontierPoint("m", 1, perplexity, None, flops, None, **more)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(1, 5)), min_size=1, max_size=12))
def test_dominated_is_what_it_says(places):
    found = dominated([_point(float(x), float(y)) for x, y in places], "flops")
    for (x, y), is_dominated in zip(places, found, strict=True):
        assert is_dominated == any(a <= x and b <= y and (a, b) != (x, y) for a, b in places)
    assert not all(found)


def test_points_of_another_group_or_without_a_cost_are_not_judged():
    points = [_point(1.0, 1.0, group="published"), _point(2.0, 2.0), _point(None, 9.0)]
    assert dominated(points, "flops") == dominated(points, "seconds") == [False] * 3


def _measured(per_exit, speeds=(1.0, 2.0, 4.0), windows=50, seed=0, bytes_per_token=None, noise=0.2, tokens=10.0):
    """Exits of these cross-entropies with noise shared by all exits of a window, at these seconds per pass."""
    wobble = noise * torch.randn(windows, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wobble -= wobble.mean()
    losses = (torch.tensor(per_exit, dtype=torch.float64)[:, None] + wobble) * tokens
    counts = torch.full((windows,), tokens, dtype=torch.float64)
    curve = DepthCurve("trained", len(per_exit), losses, torch.ones_like(losses), counts, bytes_per_token)
    timed = [Speed(k, 1, 10, (s, s, s)) for k, s in enumerate(speeds, 1)]
    return Measured(curve, TokenFlops(0.0, 10.0, 0.0, 0.0), timed)


def test_equal_models_differ_by_nothing_and_known_gaps_are_found():
    models = {"a": _measured([3.0, 2.5, 2.4]), "b": _measured([3.0, 2.5, 2.4]), "c": _measured([2.9, 2.4, 2.3])}
    for at_equal in ("flops", "seconds"):
        assert [d.nats.value for d in differences(models, "b", "a", at_equal)] == pytest.approx([0, 0, 0])
        for d in differences(models, "c", "a", at_equal):
            assert d.nats.value == pytest.approx(-0.1)
            assert d.nats.low == pytest.approx(-0.1) and d.nats.high == pytest.approx(-0.1)  # paired windows
            assert d.per == "token"


def test_a_faster_model_wins_at_equal_throughput_by_interpolation():
    models = {"slow": _measured([3.0, 2.0, 1.0]), "fast": _measured([3.0, 2.0, 1.0], speeds=(0.5, 1.0, 2.0))}
    found = {d.exit: d.nats.value for d in differences(models, "fast", "slow", "seconds")}
    assert found == pytest.approx({2: -1.0, 3: -1.0})  # exit 1 is cheaper than any of slow's
    assert [d.nats.value for d in differences(models, "fast", "slow", "flops")] == pytest.approx([0, 0, 0])
    models["fast"] = _measured([3.0, 2.0, 1.0], speeds=(math.sqrt(2), 2.0, 4.0))
    assert differences(models, "fast", "slow", "seconds")[0].nats.value == pytest.approx(0.5)  # midway in log cost


def test_noise_of_windows_and_of_the_clock_is_in_the_interval():
    still = {"a": _measured([3.0, 2.0, 1.0]), "b": _measured([3.0, 2.0, 1.0], seed=1)}
    widths = [d.nats.high - d.nats.low for d in differences(still, "b", "a", "flops")]
    assert min(widths) > 0.02
    shaky = {"a": _measured([3.0, 2.0, 1.0], noise=0), "b": _measured([3.0, 2.0, 1.0], noise=0)}
    shaky["b"].speeds[1] = Speed(2, 1, 10, (1.4, 2.0, 2.8))
    at_two = next(d for d in differences(shaky, "b", "a", "seconds") if d.exit == 2)
    assert at_two.nats.value == pytest.approx(0)
    assert at_two.nats.low < -0.2 and at_two.nats.high > 0.2


def test_different_tokens_are_compared_per_byte_or_not_at_all():
    models = {"a": _measured([2.0] * 3, windows=30), "b": _measured([2.0] * 3, windows=40)}
    with pytest.raises(InputError, match="bytes_per_token"):
        differences(models, "a", "b", "flops")
    models = {
        "a": _measured([2.0] * 3, windows=30, bytes_per_token=2.0),
        "b": _measured([2.0] * 3, windows=40, bytes_per_token=4.0),
    }
    found = differences(models, "a", "b", "flops")
    assert [d.nats.value for d in found] == pytest.approx([0.5] * 3)
    assert {d.per for d in found} == {"byte"}


def test_models_timed_apart_are_not_compared():
    models = {"a": _measured([2.0] * 3), "b": _measured([2.0] * 3)}
    models["b"].speeds[:] = [Speed(k, 1, 10, (1.0,)) for k in (1, 2, 3)]
    with pytest.raises(InputError, match="measure_speeds"):
        differences(models, "a", "b", "seconds")


def test_points_carry_quality_and_both_costs():
    published = FrontierPoint("theirs", 1, 5.0, None, 1e6, 1e-5, group="published")
    points = frontier({"a": _measured([3.0, 2.5, 2.4], noise=0)}, [published])
    assert [p.perplexity for p in points] == pytest.approx([math.exp(3.0), math.exp(2.5), math.exp(2.4), 5.0])
    assert [p.flops for p in points] == [10, 20, 30, 1e6]
    assert [p.tokens_per_second for p in points] == pytest.approx([10, 5, 2.5, 1e5])
    assert [row["dominated_flops"] for row in points_table(points)] == [False] * 4
