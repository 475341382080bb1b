"""Nothing waits for an accelerator inside the loop over k, in training, measuring and decoding."""

from itertools import zip_longest

import pytest
import torch

from loopscale.audit import audit, intervene, loop_curves
from loopscale.decode import early_exit_generate, full_depth_generate, speculative_generate
from loopscale.evaluate import depth_curve
from loopscale.halting import RULES, trace_exits
from loopscale.model.parts import SLOTS
from loopscale.objective import PENALTIES, SUPERVISIONS
from loopscale.train.metrics import LoopSums, token_sums
from tests.accelerator import There, accelerator, moved
from tests.helpers import tiny_model

WINDOWS = torch.arange(40).view(4, 10) * 7 % 31
FEW, MANY = 2, 3  # loops
SMALL = {"num_stack_layers": 1, "hidden_size": 8}
NEEDS = {"coda_input": {"num_coda_layers": 1}}  # what a slot is nothing without
TRAINED = [
    *({slot: name, **NEEDS.get(slot, {})} for slot, registry in SLOTS.items() for name in registry),
    *({"supervision": name, "exit_gate": kind.gated} for name, kind in SUPERVISIONS.items()),
    *({"penalties": [name]} for name in PENALTIES),
    {"num_prelude_layers": 1, "num_coda_layers": 1, "initial_state": "noise", "injection": "linear"},
    {"position_embedding": "rope", "qk_norm": True, "dropout": 0.1},
    {"tie_word_embeddings": False, "share_loop_norm": True, "recurrence": "rmsnorm"},
]


@pytest.fixture
def device(monkeypatch, unchecked_shapes):
    with accelerator(monkeypatch) as here:
        yield here


@pytest.mark.parametrize(
    ("work", "waits"),
    [
        (lambda x: x.sum().item(), 1),
        (lambda x: bool((x > 3).any()), 1),
        (lambda x: x.nonzero(), 1),
        (lambda x: x[x > 3], 1),
        (lambda x: x[[0, 2]], 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.tolist(), 1),
        (lambda x: x + torch.tensor([1.0], device=x.device), 1),
        (lambda x: x + x[1:2] * 2, 0),
        (lambda x: torch.where(x > 3, x, 0.0).sum(), 0),
    ],
)
def test_the_accelerator_notes_what_a_real_one_would_wait_for(device, work, waits):
    numbers = torch.arange(6.0)
    expected = work(numbers.clone()) if waits == 0 else None
    found = work(There(numbers))
    assert len(device.waits) == waits
    if expected is not None:
        torch.testing.assert_close(found.cpu(), expected)


@pytest.mark.parametrize("fields", TRAINED, ids=lambda fields: "-".join(map(str, fields.values())))
def test_a_training_step_waits_for_nothing(device, fields):
    model = moved(tiny_model(**SMALL, num_loops=FEW, **fields)).train()
    model.checkpoint_loops = "exit_gate" in fields
    optimizer, sums = torch.optim.AdamW(model.parameters()), LoopSums()
    batch = {"input_ids": There(WINDOWS[:, :-1]), "shift_labels": There(WINDOWS[:, 1:])}
    device.waits.clear()
    out = model(**batch, supervised_exits_only=True)
    out.loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    sums.add(token_sums(batch, out.loop_losses, out.loop_norms))
    sums.add_loss(out.loss.detach())
    figures = sums.figures(norm)
    assert device.waits == []
    assert bool(torch.isfinite(figures[:2]).all())
    assert all(p.grad is not None for p in model.parameters())


# the search for blind directions is not here: torch's forward mode crashes on tensors that are a subclass
MEASURED = {
    "audit": audit,
    "loop curves": lambda model, batches: loop_curves(model, batches, model.num_loops + 1),
    "interventions": lambda model, batches: intervene(model, batches, factors=(0.3,)),
    "depth curve": depth_curve,
    "halting trace": lambda model, batches: trace_exits(model, batches, rules_of(model)),
}


def rules_of(model):
    return [rule for rule in RULES.values() if rule.applies_to(model)]


@pytest.mark.parametrize("name", MEASURED)
def test_a_measurement_waits_between_batches_alone(device, name):
    def waits_of_a_batch(loops):
        model = moved(tiny_model(**SMALL, num_loops=loops))
        counts = []
        for batches in (1, 2):
            device.waits.clear()
            MEASURED[name](model, [There(WINDOWS)] * batches)
            counts.append(len(device.waits))
        return counts[1] - counts[0]

    assert waits_of_a_batch(FEW) == waits_of_a_batch(MANY)


def generated(model, ids, new):
    model.generate(ids, max_new_tokens=new, min_new_tokens=new, do_sample=False)
    return new


def full_depth(model, ids, new):
    return full_depth_generate(model, ids, new).stats.new_tokens / len(ids)


def speculation(model, ids, new):
    return speculative_generate(model, ids, new).stats.passes


PARTS_OF_A_LOOP = [  # every carry and every injection, two at a time
    {"recurrence": carry or "residual", "injection": injection or "none"}
    for carry, injection in zip_longest(SLOTS["recurrence"], SLOTS["injection"])
]
DECODED = [(generated, {}), (full_depth, {}), (speculation, {}), *((full_depth, fields) for fields in PARTS_OF_A_LOOP)]


@pytest.mark.parametrize(("write", "fields"), DECODED)
def test_decoding_waits_between_tokens_or_passes_alone(device, write, fields):
    def waits_of_one(loops):
        model, ids = moved(tiny_model(**SMALL, num_loops=loops, **fields)), There(WINDOWS[:2, :4])
        counts, steps = [], []
        for new in (3, 6):
            device.waits.clear()
            steps.append(write(model, ids, new))
            counts.append(len(device.waits))
        return (counts[1] - counts[0]) / (steps[1] - steps[0])

    assert waits_of_one(FEW) == waits_of_one(MANY)


def test_early_exit_waits_once_a_loop_to_know_whether_to_go_on(device):
    class Never:
        def watch(self, model):
            return lambda k, z, logits: z[..., 0] > torch.inf

    def waits_of_a_token(loops):
        model, ids = moved(tiny_model(**SMALL, num_loops=loops)), There(WINDOWS[:2, :4])
        counts = []
        for new in (3, 6):
            device.waits.clear()
            early_exit_generate(model, ids, new, Never())
            counts.append(len(device.waits))
        return (counts[1] - counts[0]) / 3

    assert waits_of_a_token(MANY) - waits_of_a_token(FEW) == MANY - FEW
