"""Several processes that measure together: the figures of one, one that writes, and failures told once."""

import contextlib
import json
import os
import re
from pathlib import Path

import pytest
import torch

from benchmarks.trials.subjects import without_clocks
from loopscale import InputError
from loopscale.cli.main import main
from loopscale.processes import agreed, each, first_alone, is_first, require_alike, shared
from tests.cli.runs import saved_run
from tests.helpers import shapes_unchecked
from tests.train.pair import Pair

HALTING = ["--halting", "all", "--level", "token"]
QUICK = ["--repeats", "1", "--speed_batch_sizes", "2"]
MEASURED = {
    "evaluate": [
        "--windows",
        "5",
        "--batch_size",
        "1",
        "--precision",
        "bf16",
        *HALTING,
        *QUICK,
    ],
    "audit": ["--windows", "5", "--batch_size", "2", "--search", "--full"],
}
REFUSED = {
    "a model that is nowhere": ["evaluate", "nowhere"],
    "a word that is not known": ["audit", "run", "--windosw", "3"],
    "a depth that none has": ["evaluate", "run", "--max_loops", "0", "--limit", "2", *QUICK],
    "a command of one process": ["generate", "run", "--prompt", "a"],
    "a run that is not possible": ["train", "--data.corpus", "nowhere.txt", "--out", "new"],
}
APART = {
    "no model in the second": (["audit", "run"], ["audit", "nowhere"]),
    "another text in the second": (["audit", "run"], ["audit", "run", "--corpus", "other.txt"]),
    "no room in the first": (["audit", "run", "--json", "text.txt/file.json"], ["audit", "run"]),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("processes")
    saved_run(folder)
    (folder / "other.txt").write_text("another text altogether. " * 200, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOOPSCALE_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        yield folder


def command(rank: int, words: list[str], place: Path) -> None:
    """Run a command as one of two processes; what it prints and its status go into files."""
    os.chdir(place.parent)
    printed = place / f"{rank}.out", place / f"{rank}.err"
    with contextlib.ExitStack() as stack:
        out, err = (stack.enter_context(path.open("w")) for path in printed)
        stack.enter_context(contextlib.redirect_stdout(out))
        stack.enter_context(contextlib.redirect_stderr(err))
        status = main(words)
    (place / f"{rank}.status").write_text(str(status))


def commands(rank: int, asked: dict[str, tuple[list[str], list[str]]], folder: Path) -> None:
    for name, words in asked.items():
        command(rank, words[rank], folder / name)


@pytest.fixture(scope="module")
def ran(folder):
    """Return what two processes printed under each name, with their statuses."""
    asked = {name: (words, words) for name, words in REFUSED.items()} | APART
    for name, words in MEASURED.items():
        files = ["--json", f"{name}/two.json"]
        asked[name] = ([name, "run", *words, *files], [name, "run", *words, *files])
    for name in asked:
        (folder / name).mkdir()
    Pair(folder).run(commands, asked, folder)
    return {
        name: [[(folder / name / f"{rank}.{what}").read_text() for rank in (0, 1)] for what in ("out", "err", "status")]
        for name in asked
    }


@pytest.mark.parametrize("name", MEASURED)
def test_two_processes_find_what_one_finds_to_the_last_digit_and_the_first_alone_tells(name, ran, folder, capsys):
    with shapes_unchecked():
        status = main([name, "run", *MEASURED[name], "--json", f"{name}/one.json"])
    found = [without_clocks(json.loads((folder / name / f"{which}.json").read_text())) for which in ("one", "two")]
    assert found[0] == found[1]
    out, _, statuses = ran[name]
    assert statuses == [str(status)] * 2 and out[1] == ""
    if name == "audit":
        assert out[0] == capsys.readouterr().out


@pytest.mark.parametrize("name", [*REFUSED, *APART])
def test_what_is_wrong_in_any_process_ends_all_of_them_with_one_sentence(name, ran):
    out, err, statuses = ran[name]
    assert statuses == ["2", "2"] and out == ["", ""]
    (told,) = [line for said in err for line in said.splitlines() if line.startswith("loopscale")]
    assert re.fullmatch(r"loopscale \w+: .*[.)]", told), told


def test_sentences_say_what_is_wrong_with_several_processes(ran):
    assert "WORLD_SIZE=2: only train, evaluate and audit share" in "".join(ran["a command of one process"][1])
    assert "in process 0 and" in "".join(ran["another text in the second"][1])


def primitives(rank: int) -> None:
    def third_fails(i):
        if i == 3:
            raise InputError("the third is none.")
        return {"rank": torch.tensor(rank), "item": i}

    with shared():
        assert is_first() == (rank == 0)
        assert [int(found["rank"]) for found in each(range(3), third_fails)] == [0, 1, 0]
        assert [found["item"] for found in each(iter(range(3)), third_fails)] == [0, 1, 2]
        assert list(each([], third_fails)) == []
        assert first_alone(lambda: rank) == 0
        assert agreed(lambda: rank) == rank
        require_alike("a number", lambda: 7)
        for wrong, sentence in (
            (lambda: list(each(range(6), third_fails)), "third"),
            (lambda: list(each(range(2 * rank), str)), "different numbers"),
            (lambda: first_alone(lambda: third_fails(3)), "third"),
            (lambda: agreed(lambda: third_fails(3 * rank)), "third"),
            (lambda: require_alike("a number", lambda: rank), "0 in process 0 and 1 in process 1"),
        ):
            with pytest.raises(InputError, match=sentence):
                wrong()
        with pytest.raises((ZeroDivisionError, InputError) if rank == 0 else ZeroDivisionError):
            agreed(lambda: 1 / (1 - rank))
    assert is_first() and list(each([1], str)) == ["1"]
    if rank:
        with pytest.raises(InputError, match="another process of this launch is gone"), shared():
            agreed(lambda: None)
            agreed(lambda: None)
    else:
        with contextlib.suppress(KeyboardInterrupt), shared():
            agreed(lambda: None)
            raise KeyboardInterrupt


def test_work_is_shared_out_in_order_and_fails_in_all_processes(folder):
    Pair(folder).run(primitives)


def test_one_process_alone_does_everything():
    with shared():
        assert is_first() and list(each([1, 2], str)) == ["1", "2"]
        assert first_alone(lambda: 3) == agreed(lambda: 3) == 3
        require_alike("a number", 7)


def test_processes_that_cannot_meet_are_a_sentence(monkeypatch):
    for name, value in {"RANK": "1", "LOCAL_RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MASTER_PORT", "no-port")
    with pytest.raises(InputError, match="cannot meet at MASTER_ADDR=localhost MASTER_PORT=no-port"), shared():
        raise AssertionError


@pytest.mark.parametrize("command", ["evaluate", "audit"])
def test_processes_of_mpi_do_not_each_measure(command, folder, monkeypatch, capsys):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert main([command, "run"]) == 2
    assert "MPI started processes that know nothing of each other" in capsys.readouterr().err
