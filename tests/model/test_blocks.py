import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from loopscale.model.blocks import in_compute_precision, plain_causal_attention
from tests.helpers import tiny_model


def test_the_plain_formula_is_the_kernel_in_float64():
    q, k, v = (torch.randn(2, 3, 7, 4, dtype=torch.float64, requires_grad=True) for _ in range(3))
    ours, theirs = plain_causal_attention(q, k, v), scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(ours, theirs)
    up = torch.randn_like(ours)
    for one, other in zip(*(torch.autograd.grad(y, (q, k, v), up) for y in (ours, theirs)), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.parametrize("heads", [{}, {"num_key_value_heads": 1}])
def test_bf16_training_stays_near_float32(heads):
    model = tiny_model(**heads)
    ids = torch.arange(40).view(2, 20) % 31
    exact = model(ids, labels=ids)
    exact.loss.backward()
    expected = torch.cat([p.grad.flatten() for p in model.parameters()])
    model.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(ids, labels=ids)
    rough.loss.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    torch.testing.assert_close(rough.loss, exact.loss, rtol=1e-2, atol=0)
    assert (gradient - expected).norm() < 0.05 * expected.norm()


def test_the_cast_is_autocasts_own():
    x = torch.zeros(1, 1, 2)
    assert in_compute_precision(x).dtype == torch.float32
    with torch.autocast("cpu", torch.bfloat16):
        assert in_compute_precision(x).dtype == torch.bfloat16
