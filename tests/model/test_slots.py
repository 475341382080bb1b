import pytest

from loopscale import InputError
from loopscale.model.slots import Slots
from tests.helpers import tiny_config


def test_every_visit_of_every_layer_has_a_slot_of_its_own():
    slots = Slots(prelude=2, core=3, coda=2, loops=4, exits=(3, 1))
    found = [slots.before(i) for i in range(2)]
    found += [slots.at(k, i) for k in range(4) for i in range(3)]
    found += [slots.at_exit(k, i) for k in (3, 1) for i in range(2)]
    assert found == list(range(slots.total))
    with pytest.raises(InputError, match="coda of exit 1 has no slots in this call's cache, which is for exits 2, 4"):
        slots.at_exit(0, 0)


def test_the_last_exit_keeps_its_place_where_every_exit_has_slots():
    slots = Slots(core=3, coda=2, loops=4)
    assert slots.total == 14
    assert slots.every_exit.total == 20
    assert slots.at_exit(3, 1) == slots.every_exit.at_exit(3, 1) == 13
    assert slots.every_exit.at_exit(0, 1) == 19


def test_depth_is_read_back_from_the_number_of_slots():
    slots = Slots(prelude=2, core=3, coda=1, loops=4)
    assert slots.total == 15
    assert slots.loops_in(18) == 5
    for wrong in (3, 16, 0):
        with pytest.raises(InputError, match="multiple of the stack's 3 layers beside 3 that run once"):
            slots.loops_in(wrong)


def test_the_virtual_depth_of_a_configuration_is_its_slots():
    config = tiny_config(num_stack_layers=3, num_loops=2)
    assert config.num_hidden_layers == config.slots().total == 6
    assert config.at_depth(5).num_hidden_layers == config.slots(5).total == 15
    assert config.num_loops == 2
