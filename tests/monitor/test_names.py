import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from loopscale.errors import InputError
from loopscale.monitor import watch
from loopscale.monitor.names import find_modules
from tests.monitor.loops import TheirLoop, train


@pytest.mark.parametrize("state", ["core.1", r"core\.1", r".*\.1"])
def test_a_module_is_found_by_its_whole_name(state):
    model = TheirLoop()
    with watch(model, state) as watching:
        train(model, 1)
    assert len(watching.readings[0].norm) == 3


class Outer(nn.Module):
    def __init__(self, inner):
        super().__init__()
        self.net = inner

    def forward(self, ids):
        return self.net(ids)


def test_the_end_of_one_name_will_do():
    model = Outer(TheirLoop())
    with watch(model, "core.1") as watching:
        train(model, 1)
    assert len(watching.readings[0].norm) == 3


@pytest.mark.parametrize(
    ("state", "said"),
    [
        ("core.2", "nearest names are 'core.1', 'core.0'"),
        ("core", "is a list, which is never called itself; its modules are 'core.0', 'core.1'"),
        ("cor.1", "nearest names are 'core.1'"),
        ("blocks.11.norm", "nearest names are .*norm"),
        ("xyzzy", "the model's modules are 'tokens'"),
        ("up", "matches the end of 2 modules' names"),
        ("core.(", "is no regular expression"),
    ],
)
def test_what_matches_nothing_is_told_in_one_sentence(state, said):
    with pytest.raises(InputError, match=said) as told:
        watch(TheirLoop(), state)
    assert str(told.value).count(". ") == 0 and str(told.value).endswith(".")


def test_other_mistakes_are_told():
    model = TheirLoop()
    for mistake, said in [
        ({"every": 0}, "at least 1"),
        ({"state": None}, "which module of this TheirLoop ends a loop"),
        ({"loops": 0}, "at least 1 loop"),
        ({"loops": "head"}, "is inside a block"),
        ({"log": 3}, "callable"),
    ]:
        with pytest.raises(InputError, match=said):
            watch(model, **{"state": "core.1", **mistake})
    with pytest.raises(InputError, match="torch module, not a list"):
        watch([model], "core.1")
    with pytest.raises(InputError, match="DataParallel"):
        watch(nn.DataParallel(model), "core.1")


def test_states_that_do_not_fit_together_are_told_in_the_first_forward():
    model = TheirLoop()
    with watch(model, r"core\.1(\.up)?"), pytest.raises(InputError, match="32 and 16 channels"):
        train(model, 1)
    with watch(model, "core.1", output=lambda output: output.argmax(-1)), pytest.raises(InputError, match="output="):
        train(model, 1)
    assert not torch.is_grad_enabled() or not model.core[1]._forward_hooks


def test_a_wrapped_model_is_also_known_by_its_wrappers_names():
    model = get_peft_model(TheirLoop(), LoraConfig(r=2, target_modules=["up"]))
    (name,) = find_modules(model, r"base_model\.model\.core\.1", "state")
    assert name == "core.1"


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # old models are still about
def test_what_torchscript_compiled_cannot_be_listened_to():
    model = nn.Sequential(torch.jit.script(nn.Linear(2, 2)))
    with pytest.raises(InputError, match="'0' is compiled by TorchScript"):
        watch(model, "0")
