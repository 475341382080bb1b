import pytest
import torch
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from loopscale import InputError, Looped, continue_loops, run_loops
from loopscale.load import require_native
from tests.adapters.toy_loop import POSITIONS, VOCAB, ToyLoop
from tests.helpers import tiny_model


@pytest.fixture
def toy():
    return ToyLoop().eval()


@pytest.fixture
def tokens():
    return torch.randint(0, VOCAB, (2, 9))


def test_an_adapter_is_a_looped_model(toy):
    assert isinstance(toy, Looped)


@pytest.mark.parametrize("num_loops", [1, 3, 5])
def test_the_four_verbs_run_the_whole_model(toy, tokens, num_loops):
    states = list(run_loops(toy, tokens, num_loops))
    assert len(states) == num_loops
    logits = toy.readout(states[-1], num_loops - 1, toy.context(tokens))
    torch.testing.assert_close(logits, toy.model(tokens, num_loops))


def test_a_loop_goes_on_from_a_state(toy, tokens):
    states = list(run_loops(toy, tokens, 4))
    (again,) = continue_loops(toy, toy.carry(states[2], 2), 3, 4, toy.context(tokens))
    assert torch.equal(again, states[3])


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # torch's own, at the first jvp
def test_gradients_and_directional_derivatives_pass(toy, tokens):
    z, context = next(iter(run_loops(toy, tokens, 1))), toy.context(tokens)
    toy.readout(z, 0, context).sum().backward()
    assert all(p.grad is not None for p in toy.model.first.parameters())
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        move = lambda x: toy.step(toy.carry(x, 0), 1, context)  # noqa: E731 (what is differentiated)
        _, tangent = jvp(move, (z,), (z,))
    step = 1e-3
    with torch.no_grad():
        difference = (toy.step(z * (1 + step), 1, context) - toy.step(z * (1 - step), 1, context)) / (2 * step)
    torch.testing.assert_close(tangent, difference, atol=2e-3, rtol=2e-2)


def test_calls_do_not_know_of_each_other(toy, tokens):
    context, other = toy.context(tokens), toy.context(tokens[:, :5].flip(0))
    h = toy.embed(tokens, context)
    z = toy.step(h, 0, context)
    toy.step(toy.embed(tokens[:, :5].flip(0), other), 0, other)
    assert torch.equal(toy.step(h, 0, context), z)
    with pytest.raises(InputError, match=r"a state of \(2, 9\) tokens is none of a call on \(2, 5\)"):
        toy.readout(z, 0, other)


def test_misuse_is_told(toy):
    with pytest.raises(InputError, match="Toy reads its input again in every loop: make context"):
        toy.step(torch.zeros(1, 2, 16), 0)
    with pytest.raises(InputError, match=f"{POSITIONS + 1} tokens are more than the {POSITIONS} positions this Toy"):
        toy.embed(torch.zeros(1, POSITIONS + 1, dtype=torch.long))


def test_what_needs_a_native_model_says_which_part(toy):
    model = tiny_model()
    assert require_native(model, "speculation") is model
    with pytest.raises(InputError, match="speculation needs a native model, and Toy"):
        require_native(toy, "speculation")
