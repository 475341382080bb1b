import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from loopscale.errors import InputError
from loopscale.monitor import Reading, Thresholds, watch
from loopscale.monitor.alarms import Alarms
from tests.helpers import tiny_model
from tests.monitor.loops import TheirLoop, train

CALM = Reading(
    step=1,
    tokens=8,
    dtype=torch.float32,
    hidden=16,
    scale=(1.0, 1.0),
    norm=(4.0, 4.0),
    angular_step=(2.0,),
    update=(0.5,),
    largest_channel=(1.0, 1.0),
    channel=(0, 0),
    largest=(3.0, 3.0),
    visibility=0.0,
    cost=0.0,
)


def kinds(readings, **options):
    alarms = Alarms(Thresholds(), **options)
    return [[alarm.kind for alarm in alarms.of(reading)] for reading in readings]


def scaled(factor, step, **changes):
    grown = {name: tuple(factor * v for v in getattr(CALM, name)) for name in ("scale", "norm", "largest")}
    return replace(CALM, step=step, **grown, **changes)


def test_a_blind_scale_that_grows_is_told_and_again_only_once_it_is_worse():
    readings = [scaled(factor, step) for step, factor in enumerate((1, 2, 4, 5, 11, 13), 1)]
    assert kinds(readings) == [[], [], ["drift"], [], [], ["drift"]]
    seen = [replace(reading, visibility=0.3) for reading in readings]
    assert not any(kinds(seen))
    unread = [replace(reading, visibility=None) for reading in readings]
    assert not any(kinds(unread)) and any(kinds(unread, blind=True))
    assert not any(kinds(readings, blind=False))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float16, 5000), (torch.bfloat16, 3e17), (torch.float32, 3e17)])
def test_a_state_near_the_end_of_its_range_is_told(dtype, near):
    calm, full = (replace(scaled(factor / 3, 1), dtype=dtype) for factor in (near / 100, near))
    assert kinds([calm], blind=False) == [[]]
    assert kinds([full], blind=False) == [["range"]]


def test_growth_that_leads_there_soon_is_told_before():
    readings = [replace(scaled(3.0**step, step), dtype=torch.float16, visibility=0.5) for step in range(1, 9)]
    said = kinds(readings)
    assert said.index(["range"]) < 6 and 3.0 * 3.0**6 < 65504 / 16
    steady = [replace(reading, largest=(3.0, 3.0)) for reading in readings]
    assert not any(kinds(steady))


def test_a_scale_that_grows_all_at_once_is_told():
    steady = [scaled(1.1**step, step, visibility=0.5) for step in range(1, 9)]
    assert not any(kinds(steady))
    assert kinds([*steady, scaled(5 * 1.1**8, 9, visibility=0.5)])[-1] == ["surge"]
    early = [scaled(3.0**step, step, visibility=0.5) for step in range(1, 7)]  # as at the beginning of training
    assert not any(kinds(early))


def test_a_depth_that_is_drawn_anew_is_no_growth():
    deep = {"scale": (1.0, 4.0, 9.0), "norm": (4.0, 16.0, 36.0)}
    drawn = [replace(CALM, step=step, **(deep if step % 2 else {})) for step in range(1, 20)]
    assert not any(kinds(drawn))
    shallow = [replace(CALM, step=0, scale=(1.0,), norm=(4.0,), angular_step=(), update=()), *drawn]
    assert not any(kinds(shallow))


def test_loops_that_no_longer_turn_the_state_are_told_until_they_do():
    still = replace(CALM, angular_step=(0.01,), update=(0.001,))
    alarms = Alarms(Thresholds())
    (alarm,) = alarms.of(still)
    assert alarm.kind == "idle" and "from loop 2 on" in alarm.text
    assert not alarms.of(still) and not alarms.of(CALM) and alarms.of(still)


def test_a_state_that_is_not_finite_is_told_once():
    broken = replace(CALM, norm=(4.0, float("nan")))
    assert kinds([CALM, broken, broken]) == [[], ["not_finite"], []]


def test_thresholds_of_no_use_are_refused():
    for mistake in ({"grown": 1.0}, {"range": 0.0}, {"ahead": -1}):
        with pytest.raises(InputError):
            Thresholds(**mistake)


def test_a_run_is_warned_of_in_words_and_by_a_call(caplog):
    caplog.set_level(logging.WARNING, logger="loopscale.monitor")
    torch.manual_seed(0)
    model, calls = TheirLoop(), []
    with watch(model, "core.1", every=2, on_alarm=calls.append, thresholds=Thresholds(grown=1.2)):
        train(model, 30, rate=3e-2)
    assert calls[0].kind == "drift" and calls[0].loop == 3 and str(calls[0]) in caplog.text
    assert "no loss sees it" in caplog.text


def test_a_run_whose_readout_sees_the_scale_is_not(caplog):
    torch.manual_seed(0)
    model = TheirLoop(read=nn.Identity())
    with watch(model, "core.1", every=2, thresholds=Thresholds(grown=1.2)):
        train(model, 30, rate=3e-2)
    assert "no loss sees it" not in caplog.text


def test_a_callback_may_end_the_run():
    class Enough(Exception):
        pass

    def end(alarm):
        raise Enough

    model = tiny_model().train()
    ids = torch.randint(0, 31, (2, 12))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    with pytest.raises(Enough), watch(model, on_alarm=end, thresholds=Thresholds(turn=100.0)):
        model(ids, labels=ids).loss.backward()
        optimizer.step()
