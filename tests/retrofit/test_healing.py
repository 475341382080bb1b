import pytest
import torch

from loopscale import InputError
from loopscale.data import Tokens, Windows
from loopscale.retrofit import Healing, distilled, heal, retrofit
from tests.retrofit.originals import LAYERS, original

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),  # PEFT's
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
]

CORE = (1, LAYERS - 1)
ROW = torch.arange(3, 64)  # a text that repeats itself is learned in a few steps


@pytest.fixture
def windows():
    return Windows(Tokens(ROW.repeat(8).numpy().astype("uint16"), text_bytes=0), 16, 16)


def changed(before, model):
    return {name for name, weight in model.state_dict().items() if not torch.equal(before[name], weight)}


def test_adapters_learn_and_are_merged(windows):
    looped = retrofit(original(), CORE, num_loops=2, relaxation="learned")
    before = {name: weight.clone() for name, weight in looped.state_dict().items()}
    lines = heal(looped, windows, Healing(steps=6, learning_rate=2e-2, lora_rank=2), quiet=True)
    assert [line.step for line in lines] == list(range(1, 7))
    assert lines[-1].loss < lines[0].loss - 0.1
    assert set(before) == set(looped.state_dict())
    found = changed(before, looped)
    assert "model.relaxation.mixing" in found
    assert all(".self_attn." in name or ".mlp." in name for name in found - {"model.relaxation.mixing"})
    assert not any("norm" in name or "embed" in name for name in found)
    assert {name.split(".")[1] for name in found} == {"prelude", "layers", "coda", "relaxation"}
    assert not looped.training
    assert all(parameter.requires_grad for parameter in looped.parameters())


def test_without_adapters_all_weights_learn_by_a_curriculum_of_depths(windows):
    looped = retrofit(original(), CORE, num_loops=3)
    before = {name: weight.clone() for name, weight in looped.state_dict().items()}
    depth = {"kind": "growing", "start": 1, "end": 3, "share": 1.0}
    lines = heal(looped, windows, Healing(steps=6, depth=depth), quiet=True)
    assert [line.loops for line in lines] == [1, 1, 2, 2, 3, 3]
    assert changed(before, looped) == {*before}


def test_a_teacher_is_followed(windows):
    teacher = original()
    looped = retrofit(teacher, CORE, num_loops=2)
    ids = windows.rows(range(4))[:, :-1]

    def distance():
        with torch.no_grad():
            return float(distilled(teacher(ids).logits, looped(ids).logits, 1.0))

    before = distance()
    heal(looped, windows, Healing(steps=6, learning_rate=3e-3, lora_rank=4, distillation=1.0), teacher, True)
    assert distance() < before
    assert distilled(teacher(ids).logits, teacher(ids).logits, 2.0).abs() < 1e-5


@pytest.mark.parametrize(
    ("fields", "told"),
    [
        ({"steps": 0}, "at least 1"),
        ({"lora_rank": 0}, "at least 1"),
        ({"learning_rate": 0.0}, "above 0"),
        ({"distillation": 1.5}, "from 0 to 1"),
        ({"distillation": 0.5}, "wants the original as teacher"),
        ({"depth": {"kind": "uniform", "low": 3, "high": 5}}, "would not be trained"),
    ],
)
def test_bad_settings_are_told(windows, fields, told):
    with pytest.raises(InputError, match=told):
        heal(retrofit(original(), CORE, num_loops=2), windows, Healing(**fields), quiet=True)
