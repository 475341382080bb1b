import json
import os

import psutil
import pytest

from loopscale import InputError
from loopscale.system.lock import Owner, only_one, require_held


def hold(place):
    return only_one(place, "sleeping here", "wake it")


def said_by(place, **changes):
    """Leave the word of an owner without its lock, as after somebody removed the lock's file."""
    parent = psutil.Process(os.getppid())
    place.mkdir(parents=True, exist_ok=True)
    word = {"pid": parent.pid, "began": parent.create_time(), **changes}
    (place / ".owner.json").write_text(json.dumps(word))


def test_a_second_holder_is_refused_with_the_first_one_named_and_nothing_is_left(tmp_path):
    place = tmp_path / "a" / "b"
    sentence = rf"is sleeping here \(process {os.getpid()}\): wake it\."
    with hold(place), pytest.raises(InputError, match=sentence), hold(place):
        pass
    assert list(tmp_path.iterdir()) == []


def test_what_was_put_there_meanwhile_stays(tmp_path):
    with hold(tmp_path / "a" / "b"):
        (tmp_path / "a" / "mine.txt").write_text("x")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.txt"]


def test_an_owner_without_a_lock_is_believed_while_it_lives(tmp_path):
    said_by(tmp_path)
    with pytest.raises(InputError, match=rf"process {os.getppid()}\)"), hold(tmp_path):
        pass


@pytest.mark.parametrize("stale", [{"began": 1.0}, {"pid": 2**30}, {"host": "elsewhere.invalid"}, {"pid": "?"}])
def test_the_word_of_one_that_has_died_counts_for_nothing(tmp_path, stale):
    said_by(tmp_path, **stale)
    with hold(tmp_path):
        assert json.loads((tmp_path / ".owner.json").read_text())["pid"] == os.getpid()


def test_a_clock_that_is_corrected_makes_no_other_process_of_the_owner():
    me = Owner.this_process()
    assert Owner(me.pid, me.began + 0.5, me.host).is_there and not Owner(me.pid, me.began + 5, me.host).is_there


def test_a_place_that_is_gone_or_taken_by_another_is_told_to_its_holder(tmp_path):
    place = tmp_path / "place"
    with hold(place):
        (place / ".owner.json").unlink()
        require_held(place)  # nobody else has it
        said_by(place)
        with pytest.raises(InputError, match=rf"process {os.getppid()} has taken .*place meanwhile"):
            require_held(place)
        place.rename(tmp_path / "renamed")
        with pytest.raises(InputError, match="is gone since the run began"):
            require_held(place)
