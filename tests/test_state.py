import pytest
import torch

from loopscale import state

Z = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(1))


def test_norm_scale_and_direction_fit_together():
    torch.testing.assert_close(state.norm(Z), Z.norm(dim=-1))
    torch.testing.assert_close(state.scale(Z), Z.square().mean(-1).sqrt())
    torch.testing.assert_close(state.energy(Z), state.scale(Z) ** 2)
    torch.testing.assert_close(state.direction(Z) * state.scale(Z)[..., None], Z)
    torch.testing.assert_close(state.scale(state.direction(7 * Z)), torch.ones(2, 3))


def test_steps_along_and_across_the_direction():
    torch.testing.assert_close(state.radial_step(Z, 3 * Z), 2 * state.scale(Z))
    torch.testing.assert_close(state.angular_step(Z, 3 * Z), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(state.angular_step(Z, -Z), torch.full((2, 3), 2 * 16**0.5))


@pytest.mark.parametrize("figure", [state.norm, state.scale, state.energy, state.direction])
def test_figures_are_wide_and_finite_in_any_precision(figure):
    assert figure(Z.bfloat16()).dtype == torch.float32
    assert figure(Z.double()).dtype == torch.float64
    large = 300 * Z.half()  # its square is infinite in float16
    torch.testing.assert_close(figure(large), figure(large.float()))
    assert figure(torch.zeros(1, 1, 4)).isfinite().all()


def test_norm_has_a_derivative_at_zero():
    z = torch.zeros(1, 1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(state.norm(z).sum(), z)
    assert gradient.tolist() == [[[0.0] * 4]]


@pytest.mark.parametrize("length", [1e-18, 1e-22, 1e-40])
def test_a_direction_never_exceeds_unit_length(length):
    assert float(state.scale(state.direction(length * Z)).max()) < 1 + 1e-3
