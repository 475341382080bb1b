"""The paper's two lemmas as the audit measures them, in float64."""

import math

import pytest
import torch

from loopscale.audit import audit, mean, scale
from loopscale.audit.loop_steps import power_law
from loopscale.audit.measurement.derivatives import alignment, exit_gradient, push
from loopscale.state import angular_step, radial_step
from tests.helpers import tiny_model


def double_model(**overrides):
    return tiny_model(**{"rms_norm_eps": 0.0, **overrides}).double()


def batches(vocab_size=31, count=2):
    return [torch.randint(0, vocab_size, (2, 17)) for _ in range(count)]


def state_of(model, s=1.0):
    """A state of loop 1, every token scaled by s."""
    ids = torch.arange(32).view(2, 16) % 31
    with torch.no_grad():
        return s * model.step(model.embed(ids), 0)


def scale_retention(model, z):
    """ds_{k+1} / ds_k, averaged over tokens."""
    after, change = push(lambda x: model.step(model.carry(x, 0), 1), z, z)
    _, grown = push(scale.value, after, change)
    return float((grown / scale.value(z)).mean())


@pytest.mark.parametrize("readout", ["rmsnorm", "layernorm"])
def test_a_norm_readout_hides_scale(readout):
    report = audit(double_model(readout=readout), batches())
    assert max(report.coordinates["scale"].visibility) < 1e-9
    assert max(report.coordinates["scale"].abs_nats_per_unit) < 1e-9


def test_a_raw_readout_shows_scale():
    report = audit(double_model(readout="raw"), batches())
    assert min(report.coordinates["scale"].visibility) > 1e-3


def test_a_layernorm_readout_hides_the_mean_and_an_rmsnorm_readout_does_not():
    assert max(audit(double_model(readout="layernorm"), batches()).coordinates["mean"].visibility) < 1e-9
    assert min(audit(double_model(readout="rmsnorm"), batches()).coordinates["mean"].visibility) > 1e-3


@pytest.mark.parametrize("s", [1.0, 10.0, 100.0])
def test_with_eps_visibility_of_scale_is_of_order_eps_over_s_squared(s):
    eps = 1e-4
    model = double_model(rms_norm_eps=eps)
    z = state_of(model)
    z = s * z / scale.value(z)[..., None]
    gradient, _ = exit_gradient(model, z, 0, torch.randint(0, 31, (2, 16)))
    seen = float(alignment(gradient, z).mean())
    assert 0.01 * eps / s**2 < seen < eps / s**2


def test_nats_per_unit_is_the_slope_of_the_loss():
    model, labels = double_model(readout="raw"), torch.randint(0, 31, (2, 16))
    z = state_of(model)
    for coordinate in (scale, mean):
        xi, step = coordinate.tangent(z), 1e-6
        gradient, _ = exit_gradient(model, z, 0, labels)
        up, down = (exit_gradient(model, z + sign * step * xi, 0, labels)[1] for sign in (1, -1))
        torch.testing.assert_close((gradient * xi).sum(-1), (up - down) / (2 * step), rtol=1e-6, atol=1e-8)


def test_an_inter_loop_norm_retains_no_scale():
    report = audit(double_model(recurrence="rmsnorm"), batches())
    assert max(map(abs, report.coordinates["scale"].retention)) < 1e-9
    assert report.coordinates["scale"].removed_by == "carry"


def test_a_residual_recurrence_retains_scale_ever_more_as_it_grows():
    model = double_model()
    lost = [1 - scale_retention(model, state_of(model, s)) for s in (10.0, 1e3, 1e5)]
    assert abs(lost[0]) < 0.1
    assert abs(lost[1]) < 1e-4
    assert abs(lost[2]) < 1e-8


def test_the_radial_increment_does_not_grow_with_scale_and_the_angular_step_falls_as_its_inverse():
    model = double_model()
    scales = [1e2, 1e3, 1e4, 1e5]
    radial, angular, log_drift = [], [], []
    for s in scales:
        z = state_of(model, s)
        with torch.no_grad():
            after = model.step(model.carry(z, 0), 1)
        radial.append(float(radial_step(z, after).mean()))
        angular.append(float(angular_step(z, after).mean()))
        log_drift.append(float((scale.value(after) / scale.value(z)).log().mean()))
    fit = power_law(scales, angular)
    assert fit.slope == pytest.approx(-1, abs=0.05)
    assert fit.r_squared > 0.999
    assert radial[-1] == pytest.approx(radial[-2], rel=1e-2)
    assert power_law(scales, [abs(d) for d in log_drift]).slope == pytest.approx(-1, abs=0.05)


def test_retention_is_the_derivative_that_finite_differences_approach():
    model = double_model(readout="raw")
    z, step = state_of(model), 1e-6

    def one_loop(x):
        return scale.value(model.step(model.carry(x, 0), 1))

    with torch.no_grad():
        slope = (one_loop(z * (1 + step)) - one_loop(z * (1 - step))) / (2 * step) / scale.value(z)
    assert scale_retention(model, z) == pytest.approx(float(slope.mean()), rel=1e-6)


def test_retention_of_the_audit_is_the_mean_of_a_jacobian_vector_product():
    model, ids = double_model(readout="raw"), torch.randint(0, 31, (2, 17))
    found = audit(model, [ids]).coordinates
    with torch.no_grad():
        z = model.step(model.embed(ids[:, :-1]), 0)
    for coordinate in (scale, mean):
        after, change = push(lambda x: model.step(model.carry(x, 0), 1), z, coordinate.tangent(z))
        value, moved = push(coordinate.value, z, coordinate.tangent(z))
        end, grown = push(coordinate.value, after, change)
        expected = found[coordinate.name]
        assert float((grown / moved).mean()) == pytest.approx(expected.retention[0], rel=1e-9)
        if coordinate.positive:
            in_logs = float((grown / moved * value / end).mean())
            assert in_logs == pytest.approx(expected.log_retention[0], rel=1e-9)


def test_retention_in_logs_is_retention_over_growth():
    report = audit(double_model(), batches()).coordinates["scale"]
    assert all(math.isfinite(x) for x in report.log_retention)
    # growth is e^drift, so on average over tokens the two agree where tokens are alike
    for share, in_logs, drift in zip(report.retention, report.log_retention, report.drift, strict=True):
        assert in_logs == pytest.approx(share * math.exp(-drift), rel=0.05)


def test_a_scale_that_varies_by_rounding_has_no_slope():
    assert power_law([1.0, 1.0 + 1e-7, 1.0 - 1e-7, 1.0], [0.5, 0.25, 0.125, 0.1]) is None
