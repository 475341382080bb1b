"""Looped models that know nothing of ours, right and wrong."""

import weakref

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from loopscale import InputError
from loopscale.audit import Coordinate, audit, intervene, loop_curves, search
from loopscale.audit.measurement.derivatives import push
from loopscale.study.topics.audit import record_of

VOCAB, HIDDEN = 43, 20


def batches(count=2):
    return [torch.randint(0, VOCAB, (3, 12)) for _ in range(count)]


class Base(nn.Module):
    """A residual MLP loop behind the four verbs."""

    def __init__(self, num_loops=3, readout_norm=True):
        super().__init__()
        self.num_loops = num_loops
        self.tokens, self.head = nn.Embedding(VOCAB, HIDDEN), nn.Linear(HIDDEN, VOCAB, bias=False)
        self.norm = nn.RMSNorm(HIDDEN, eps=1e-6)
        self.up, self.down = nn.Linear(HIDDEN, 40), nn.Linear(40, HIDDEN)
        self.readout_norm = readout_norm

    def embed(self, input_ids):
        return self.tokens(input_ids)

    def step(self, h, k):
        return h + self.down(F.gelu(self.up(self.norm(h))))

    def carry(self, z, k):
        return z

    def readout(self, z, k):
        return self.head(self.norm(z) if self.readout_norm else z)


class Gated(Base):
    """Keeps a learned share of the old state."""

    def __init__(self):
        super().__init__()
        self.gate = nn.Linear(HIDDEN, HIDDEN)

    def step(self, h, k):
        g = torch.sigmoid(self.gate(self.norm(h)))
        return g * h + (1 - g) * torch.tanh(self.up(self.norm(h))[..., :HIDDEN])


class Overwriting(Base):
    """A step that makes a new state of the old one's direction."""

    def step(self, h, k):
        return self.down(F.gelu(self.up(self.norm(h))))


class Attending(Base):
    """Injects its input at every loop and attends by the fused kernel."""

    def embed(self, input_ids):
        self.injected = self.tokens(input_ids)
        return torch.zeros_like(self.injected)

    def step(self, h, k):
        x = self.norm(h + self.injected)[:, None]
        return h + self.injected + F.scaled_dot_product_attention(x, x, x, is_causal=True)[:, 0]


class TwoStepTable(Base):
    """One bias per loop: it cannot run past its trained depth."""

    def __init__(self):
        super().__init__()
        self.bias = nn.ParameterList(torch.randn(HIDDEN) for _ in range(3))

    def step(self, h, k):
        return super().step(h, k) + self.bias[k]


class WithoutLastCarry(Base):
    """What loop K would receive is nobody's business."""

    def carry(self, z, k):
        return {0: z, 1: z}[k]


class AtOneLength(Base):
    """Mixes tokens by a matrix of one size."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(11, 11).tril() / 4)

    def step(self, h, k):
        return super().step(h, k) + self.mix @ self.norm(h)


class FromThreeTokens(Base):
    """Cannot take fewer tokens than its kernel."""

    def step(self, h, k):
        return super().step(h, k) + 0.1 * F.pad(self.norm(h).unfold(1, 3, 1).mean(-1), (0, 0, 2, 0))


class Sparse(Base):
    """Some states are zero and stay so."""

    def embed(self, input_ids):
        return self.tokens(input_ids) * (input_ids % 3 > 0)[..., None]

    def step(self, h, k):
        return h * (1 + 0.1 * torch.tanh(self.down(self.up(self.norm(h)))))


class Squared(torch.autograd.Function):
    """An operation without forward mode."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, g):
        return 2 * g * ctx.saved_tensors[0]


class WithoutForwardMode(Base):
    def step(self, h, k):
        return h + 0.1 * Squared.apply(self.norm(h))


class WithForwardMode(Base):
    def step(self, h, k):
        return h + 0.1 * self.norm(h).square()


@pytest.mark.parametrize(
    "model, told, verdict",
    [
        (Base, {}, "blind_spot"),
        (Base, {"supervision": "terminal"}, "blind_spot"),
        (Base, {"norm_penalty_coef": 0.01}, "visible"),
        (lambda: Base(readout_norm=False), {}, "visible"),
        (Gated, {}, "blind_spot"),
        (Overwriting, {}, "removed"),
        (Attending, {}, "blind_spot"),
        (TwoStepTable, {}, "blind_spot"),
        (WithoutLastCarry, {}, "blind_spot"),
        (AtOneLength, {}, "blind_spot"),
        (FromThreeTokens, {}, "blind_spot"),
        (Sparse, {}, "blind_spot"),
    ],
)
def test_the_verdict_on_scale(model, told, verdict):
    assert audit(model(), batches(), **told).coordinates["scale"].verdict == verdict


def test_what_removes_is_named():
    assert audit(Overwriting(), batches()).coordinates["scale"].removed_by == "step"
    normed = Base()
    normed.carry = lambda z, k: normed.norm(z)
    assert audit(normed, batches()).coordinates["scale"].removed_by == "carry"


def test_a_gate_of_someone_elses_counts():
    class Leaving(Base):
        def exit_probability(self, z, k):
            return torch.sigmoid(z.sum(-1))

    assert audit(Leaving(), batches(), supervision="exit_gate").coordinates["scale"].seen_by == {"exit gate": (1, 2)}
    assert audit(Leaving(), batches()).coordinates["scale"].verdict == "blind_spot"
    with pytest.raises(InputError, match="exit_probability"):
        audit(Base(), batches(), supervision="exit_gate")


def test_a_model_that_cannot_go_on_is_measured_within_its_depth():
    report = audit(TwoStepTable(), batches())
    assert len(report.coordinates["scale"].retention) == 2
    assert len(report.coordinates["scale"].visibility) == 3
    assert "past its trained depth" in report.notes[0]


@pytest.mark.parametrize("model", [TwoStepTable, WithoutLastCarry])
def test_curves_of_a_model_that_cannot_go_on_end_at_its_depth(model):
    assert len(loop_curves(model(), batches()).scale) == 3
    assert record_of(model(), batches()).lemma2.loops == 3


def test_an_assertion_on_the_loop_is_an_answer_too():
    class Asserting(Base):
        def step(self, h, k):
            assert k < self.num_loops
            return super().step(h, k)

    assert audit(Asserting(), batches()).notes


def test_a_state_of_length_zero_does_not_dilute_what_is_retained():
    model = Sparse()
    scale = audit(model, batches()).coordinates["scale"]
    model.step = lambda h, k: 0.5 * h
    assert 0.9 < scale.retained < 1.1
    assert audit(model, batches()).coordinates["scale"].retention == pytest.approx([0.5] * 3, rel=1e-6)


def test_an_operation_without_forward_mode_is_differentiated_twice_in_reverse():
    reverse, forward = WithoutForwardMode().double(), WithForwardMode().double()
    forward.load_state_dict(reverse.state_dict())
    data = batches()
    z, xi = torch.randn(2, 3, HIDDEN).double(), torch.randn(2, 3, HIDDEN).double()
    expected = push(lambda x: forward.step(x, 0), z, xi)
    torch.testing.assert_close(push(lambda x: reverse.step(x, 0), z, xi), expected)
    found, same = audit(reverse, data).coordinates, audit(forward, data).coordinates
    assert found["scale"].retention == pytest.approx(same["scale"].retention, rel=1e-9)


@pytest.mark.parametrize("measure", [audit, loop_curves, intervene, search])
def test_states_alive_at_once_grow_neither_with_loops_nor_with_batches(measure):
    def most_alive(num_loops, count):
        class Watched(Base):
            def step(self, h, k):
                z = super().step(h, k)
                alive.add(z)
                most.append(len(alive))
                return z

        alive, most = WeakTensors(), []
        measure(Watched(num_loops=num_loops), batches(count))
        return max(most)

    assert most_alive(12, 2) == most_alive(4, 2) == most_alive(4, 8) <= 8


class WeakTensors:
    """How many of the tensors added are still alive."""

    def __init__(self):
        self.references = []

    def add(self, tensor):
        self.references.append(weakref.ref(tensor))

    def __len__(self):
        return sum(reference() is not None for reference in self.references)


class Wrong(Base):
    def __init__(self, **verbs):
        super().__init__()
        for verb, function in verbs.items():
            setattr(self, verb, function.__get__(self))


def cumulative(self, z, k):
    """A readout that adds what it saw before."""
    self.seen = getattr(self, "seen", 0.0) + z.mean()
    return self.head(self.norm(z)) * self.seen


def not_finite_late(self, z, k):
    """A readout that fails on tokens that a short trial does not reach."""
    late = torch.arange(z.shape[1]) > 9
    return Base.readout(self, z, k) * torch.where(late, float("nan"), 1.0)[:, None]


def in_place(self, h, k):
    return h.mul_(2.0)


@pytest.mark.parametrize(
    "verbs, sentence",
    [
        ({"carry": lambda self, z, k: z[..., :10]}, r"carry.*returned \(2, 8, 10\) for \(2, 8, 20\)"),
        ({"carry": lambda self, z, k: z if k == 0 else z[:, :4]}, r"carry.*returned \(2, 4, 20\)"),
        ({"step": lambda self, h, k: h.mean(1)}, r"step.*returned \(2, 20\)"),
        ({"step": in_place}, "step.*changes its input"),
        ({"step": lambda self, h, k: h / 0}, "step.*not finite"),
        ({"step": lambda self, h, k: h + torch.randn_like(h)}, "step.*differently"),
        ({"step": lambda self, h, k: (h, None)}, "step.*returned tuple"),
        ({"step": lambda self, h: h}, "step.*failed.*TypeError"),
        ({"step": lambda self, h, k: h @ torch.eye(3)}, "step.*failed.*RuntimeError"),
        ({"step": lambda self, h, k: h.bfloat16()}, "bfloat16.*model.float"),
        ({"embed": lambda self, ids: self.tokens(ids).mean(1)}, r"embed.*returned \(2, 20\)"),
        ({"embed": lambda self, ids: self.tokens(ids) + torch.randn(20)}, "embed.*keep no state between calls"),
        ({"readout": cumulative}, "readout.*keep no state between calls"),
        ({"readout": lambda self, z, k: self.head(z.mean(1))}, r"readout.*returned \(2, 43\)"),
        ({"readout": lambda self, z, k: self.head(z.detach())}, "readout.*no gradient"),
        ({"step": lambda self, h, k: Base.step(self, h.detach(), k)}, "step.*no gradient"),
        ({"readout": lambda self, z, k: self.head(z).argmax(-1)}, "readout.*floating-point"),
        ({"readout": lambda self, z, k: self.head(z)[..., : VOCAB - k]}, "readout.*43 logits at k = 0 and 42 at k = 1"),
        ({"readout": not_finite_late}, "gradient of exit 1 is not finite"),
        ({"carry": lambda self, z, k: z.detach()}, "carry.*no gradient"),
        ({"readout": lambda self, z, k: 0 * self.head(z)}, "gradient of exit 1 is zero at every token"),
        ({"step": lambda self, h, k: 1e-4 * torch.rand_like(h) + 0 * h}, "step.*differently"),
    ],
)
def test_a_wrong_verb_is_told_so_in_words(verbs, sentence):
    for measure in (audit, search):
        with pytest.raises(InputError, match=sentence):
            measure(Wrong(**verbs), batches(2))


@pytest.mark.parametrize(
    "gate, sentence",
    [
        (lambda z, k: 0.5, "returned float"),
        (lambda z, k: z.mean(), r"returned \(\)"),
        (lambda z, k: z.detach().mean(-1).sigmoid(), "without detach"),
        (lambda z, k: z.mean(-1) / 0 * 0, "gradient of the gate of loop 1 is not finite"),
        (lambda z, k: z.nothing, "failed with AttributeError"),
    ],
)
@pytest.mark.parametrize("measure", [audit, search])
def test_a_wrong_gate_is_told_so_in_words(measure, gate, sentence):
    model = Base()
    model.exit_probability = gate
    with pytest.raises(InputError, match=sentence):
        measure(model, batches(2), supervision="exit_gate")


def test_a_padded_vocabulary_may_be_masked():
    class Masked(Base):
        def readout(self, z, k):
            return super().readout(z, k).index_fill(-1, torch.tensor([VOCAB - 1]), -torch.inf)

    data = [batch.clamp_max(VOCAB - 2) for batch in batches(2)]
    assert audit(Masked(), data).coordinates["scale"].verdict == "blind_spot"


def test_a_second_batch_that_a_model_cannot_embed_is_told():
    class Short(Base):
        def embed(self, input_ids):
            return self.tokens(input_ids) + torch.zeros(12, HIDDEN)[: input_ids.shape[1], :]

    data = [*batches(1), torch.randint(0, VOCAB, (3, 20))]
    for measure in (audit, search):
        with pytest.raises(InputError, match=r"embed.*failed on"):
            measure(Short(), data)


def test_one_loop_that_cannot_be_repeated_carries_nothing():
    class Once(Base):
        def step(self, h, k):
            assert k == 0
            return super().step(h, k)

    for measure in (audit, search):
        with pytest.raises(InputError, match="nothing is carried on"):
            measure(Once(num_loops=1), batches(2))


def test_a_coordinate_whose_tangent_does_not_move_it_is_told():
    class Crossed(Coordinate):
        name = "crossed"

        def value(self, z):
            return z[..., 0]

        def tangent(self, z):
            return torch.eye(z.shape[-1])[1].expand_as(z)

    with pytest.raises(InputError, match="'crossed' does not move along its tangent"):
        audit(Base(), batches(1), coordinates=[Crossed()])


def test_a_model_may_name_its_own_supervision_and_have_no_weights():
    class Plain:
        num_loops, trained_loops, supervision = 3, 2, "terminal"

        def __init__(self):
            self.base = Base()
            self.embed, self.step, self.carry = self.base.embed, self.base.step, self.base.carry
            self.readout = self.base.readout

    report = audit(Plain(), batches(1))
    assert (report.num_loops, report.supervision, report.supervised_loops) == (2, "terminal", (2,))


def test_every_part_keeps_its_mode():
    model = Base().train()
    model.norm.eval()
    audit(model, batches(1))
    assert model.training and model.up.training and not model.norm.training


@pytest.mark.parametrize("measure", [loop_curves, intervene, record_of])
def test_every_measure_tries_the_verbs_first(measure):
    with pytest.raises(InputError, match=r"carry.*returned \(2, 8, 10\) for \(2, 8, 20\)"):
        measure(Wrong(carry=lambda self, z, k: z[..., :10]), batches(1))
    with pytest.raises(InputError, match="lacks"):
        measure(nn.Linear(2, 2), batches(1))


def test_a_missing_verb_and_a_wrong_depth_are_told_so_in_words():
    with pytest.raises(InputError, match=r"Embedding is not a looped model: it lacks `embed.*`step.*`carry.*`readout"):
        audit(nn.Embedding(3, 3), batches(1))
    with pytest.raises(InputError, match="num_loops is 0"):
        audit(Base(num_loops=0), batches(1))
