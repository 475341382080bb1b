"""What a study's processes say when they fail, and that none outlives the study."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from loopscale import InputError
from loopscale.storage import write_json
from loopscale.study import worker
from loopscale.study.executor import Failure, Job, LocalExecutor
from loopscale.study.grid import named_conditions
from loopscale.study.reproduce import plan, reproduce
from loopscale.train import preset_run, write_config
from loopscale.train.checkpoints import last_checkpoint
from tests.helpers import TINY


@pytest.fixture
def base(tmp_path, monkeypatch):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("\n".join(f"{i} squared is {i * i}" for i in range(4000)), encoding="utf-8")
    run = preset_run("laptop")
    return replace(
        run,
        model={key: value for key, value in TINY.items() if key != "vocab_size"},
        data=replace(run.data, corpus=str(text), sequence_length=32),
        train=replace(run.train, max_steps=100_000, batch_size=2, log_every=1, save_every=1000),
    )


def test_a_worker_saves_and_ends_when_who_started_it_is_gone(base, tmp_path):
    run = plan(base, named_conditions(["terminal-raw"]), [1], tmp_path / "out")[0].config
    write_config(run)
    command = [sys.executable, "-m", "loopscale.study.worker", run.out]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        while not (run.folder / worker.PROGRESS_FILE).exists():
            assert process.poll() is None
            time.sleep(0.05)
        process.stdin.close()  # what the system does when the parent is killed
        assert process.wait(60) == worker.STOPPED
    assert last_checkpoint(run.folder) is not None


class Script:
    """Stands for a job's process: ends at once, by a signal or with a status."""

    def __init__(self, monkeypatch, returncode: int, log: str = "") -> None:
        self.pid, self.returncode = 4242, returncode

        monkeypatch.setattr("loopscale.study.executor._let_go", lambda process: None)

        def start(executor, job, place):
            (job.folder / "log.txt").write_text(log)
            return self

        monkeypatch.setattr(LocalExecutor, "_start", start)

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize(
    ("returncode", "written", "said"),
    [
        (2, Failure(4242, "the disk is full."), "the disk is full"),
        (2, Failure(17, "of another process"), "Writing model shards"),
        (-signal.SIGKILL, None, "ended by SIGKILL, as a system short of memory does"),
    ],
)
def test_the_reason_of_a_failure_is_its_own(tmp_path, monkeypatch, returncode, written, said):
    Script(monkeypatch, returncode, "Writing model shards: 100%")
    if written is not None:
        write_json(tmp_path / "failure.json", written)
    with pytest.raises(InputError, match=f"run a failed .status {returncode}.: .*{said}"):
        LocalExecutor(1).execute([Job("a", Path(tmp_path))], lambda: None)


class Waiting:
    """Executes nothing, and starts the study a second time meanwhile."""

    def __init__(self, again) -> None:
        self.again = again

    def execute(self, jobs, tick):
        self.again()


def test_a_second_study_in_the_same_folder_is_refused_with_the_first_one_named(base, tmp_path):
    out = tmp_path / "out"

    def again():
        with pytest.raises(InputError, match=rf"another process is reproducing in .*out \(process {os.getpid()}\)"):
            reproduce(base, out, ["terminal-raw"], executor=Waiting(lambda: None))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        reproduce(base, out, ["terminal-raw"], executor=Waiting(again))
    assert not (out / ".lock").exists()
