import pytest
import torch

from loopscale import InputError
from loopscale.objective import build_supervision, exits_loss, fused_cross_entropy, token_cross_entropy
from loopscale.objective.passes import differentiate, differentiate_at_once, equal_parts

V, D = 17, 8


def problem(dtype=torch.float64, loops=3):
    generator = torch.Generator().manual_seed(1)
    inputs = [torch.randn(2, 5, D, dtype=dtype, generator=generator, requires_grad=True) for _ in range(loops)]
    weight = torch.randn(V, D, dtype=dtype, generator=generator, requires_grad=True)
    labels = torch.randint(0, V, (2, 5), generator=generator)
    labels[0, 1] = labels[1, 4] = -100
    return inputs, weight, labels


ROW_BYTES = V * 8  # of logits in float64


@pytest.mark.parametrize("chunk", [0, 1, 3, 100])
@pytest.mark.parametrize("block", [0, 2, 100])
@pytest.mark.parametrize("passes", [differentiate, differentiate_at_once])
def test_fused_is_plain_in_float64_whatever_the_chunks_blocks_and_passes(chunk, block, passes, monkeypatch):
    monkeypatch.setattr("loopscale.objective.passes.CPU_BLOCK_BYTES", block * ROW_BYTES)
    exits, weight, labels = problem()
    row_weights = torch.rand(3, 10, dtype=torch.float64)
    plain = torch.stack([token_cross_entropy(x, weight, labels).flatten() for x in exits])
    expected = torch.autograd.grad((plain * row_weights).sum(), (weight, *exits))
    total, losses = fused_cross_entropy(
        [x.flatten(0, 1) for x in exits], weight, labels.flatten(), row_weights, chunk * ROW_BYTES, passes
    )
    torch.testing.assert_close(total, (plain * row_weights).sum())
    torch.testing.assert_close(losses, plain.detach())
    assert not losses.requires_grad
    for ours, theirs in zip(torch.autograd.grad(2 * total, (weight, *exits)), expected, strict=True):
        torch.testing.assert_close(ours, 2 * theirs)


@pytest.mark.parametrize(("chunk", "block"), [(0, 0), (3, 2), (100, 100)])
def test_plain_in_chunks_and_blocks_is_plain_at_once(chunk, block, monkeypatch):
    (x, *_), weight, labels = problem()
    whole = token_cross_entropy(x, weight, labels)
    monkeypatch.setattr("loopscale.objective.head.CHUNK_BYTES", chunk * ROW_BYTES)
    monkeypatch.setattr("loopscale.objective.passes.CPU_BLOCK_BYTES", block * ROW_BYTES)
    with torch.no_grad():
        torch.testing.assert_close(token_cross_entropy(x, weight, labels), whole.detach())


@pytest.mark.parametrize(("rows", "at_most", "lengths"), [(10, 4, [3, 3, 4]), (4, 9, [4]), (2, 0, [1, 1]), (0, 3, [])])
def test_rows_are_split_into_the_fewest_parts_of_nearly_equal_size(rows, at_most, lengths):
    parts = equal_parts(rows, at_most)
    assert [part.stop - part.start for part in parts] == lengths
    assert [i for part in parts for i in range(rows)[part]] == list(range(rows))


def test_no_rows_have_no_loss():
    weight = torch.randn(V, D, requires_grad=True)
    labels = torch.empty(0, dtype=torch.long)
    total, losses = fused_cross_entropy([torch.empty(0, D)], weight, labels, torch.empty(1, 0))
    total.backward()
    assert total == 0 and losses.shape == (1, 0) and not weight.grad.any()


@pytest.mark.parametrize(
    "supervision",
    [
        build_supervision("terminal"),
        build_supervision("per_loop"),
        build_supervision("per_loop", [0.0, 1.0, 3.0]),
        build_supervision("exit_gate", entropy_coef=0.1),
        build_supervision({"kind": "batch_exit_gate", "prior": "geometric"}),
    ],
)
def test_loss_and_gradients_equal_autograd_through_plain_exits(supervision):
    inputs, weight, labels = problem()
    logits = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    mask = labels != -100
    leaves = (*inputs, weight, logits)

    plain = supervision.loss(
        torch.stack([token_cross_entropy(x, weight, labels) for x in inputs]), logits.sigmoid(), mask, 8.0
    )
    loss, token_losses = exits_loss(supervision, inputs, weight, labels, logits.sigmoid(), 8.0)
    torch.testing.assert_close(loss, plain)
    assert not token_losses.isnan().any()
    ours, theirs = (torch.autograd.grad(value, leaves, allow_unused=True) for value in (loss, plain))
    for one, other in zip(ours, theirs, strict=True):
        none = other is None or not other.any()
        assert (one is None or not one.any()) if none else torch.allclose(one, other)
    with torch.no_grad():
        torch.testing.assert_close(exits_loss(supervision, inputs, weight, labels, logits.sigmoid(), 8.0)[0], plain)


def test_float16_has_gradients_of_the_scaled_loss():
    inputs, weight, labels = problem(torch.float16)
    count, scale = 1e6, 2.0**16  # without the scale most gradients underflow
    loss, _ = exits_loss(build_supervision("per_loop"), inputs, weight, labels, None, count)
    (found,) = torch.autograd.grad(scale * loss, weight)
    wide = [x.double().detach() for x in inputs], weight.double().detach().requires_grad_()
    (want,) = torch.autograd.grad(exits_loss(build_supervision("per_loop"), *wide, labels, None, count)[0], wide[1])
    torch.testing.assert_close(found.double() / scale, want, rtol=2e-2, atol=1e-2 * float(want.abs().max()))


def test_the_fused_loss_refuses_float16():
    exits, weight, labels = problem(torch.float16)
    with pytest.raises(InputError, match="use bfloat16"):
        fused_cross_entropy([exits[0].flatten(0, 1)], weight, labels.flatten(), torch.ones(1, 10))


def test_bf16_stays_within_its_tolerance():
    inputs, weight, labels = problem(torch.float32)
    loss, _ = exits_loss(build_supervision("per_loop"), inputs, weight, labels, None, 8.0)
    exact = torch.autograd.grad(loss, weight)[0]
    with torch.autocast("cpu", torch.bfloat16):
        rough, _ = exits_loss(build_supervision("per_loop"), inputs, weight, labels, None, 8.0)
    assert rough.dtype == torch.float32
    torch.testing.assert_close(rough, loss, rtol=1e-2, atol=0)
    gradient = torch.autograd.grad(rough, weight)[0]
    assert gradient.dtype == torch.float32
    assert (gradient - exact).norm() < 0.02 * exact.norm()
