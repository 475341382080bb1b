"""What a study's processes say when they fail, and that none outlives the study."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loopscale import InputError
from loopscale.storage import write_json
from loopscale.study import worker
from loopscale.study.executors import Job, LocalExecutor
from loopscale.study.executors.job import Failure
from loopscale.study.grid import named_conditions
from loopscale.study.reproduce import plan, reproduce
from loopscale.train import write_config
from loopscale.train.checkpoints import last_checkpoint


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

        monkeypatch.setattr("loopscale.study.executors.local._let_go", lambda process: None)

        def start(job, environment):
            (job.folder / "log.txt").write_text(log)
            return self

        monkeypatch.setattr("loopscale.study.executors.local._start", start)

    def poll(self) -> int:
        return self.returncode


@pytest.mark.parametrize(
    ("returncode", "written", "said"),
    [
        (2, Failure(4242, "the disk is full."), "the disk is full"),
        (2, Failure(17, "of another process"), "Writing model shards"),
        (-signal.SIGKILL, None, "ended by SIGKILL, as a system short of memory does, 3 times"),
        (worker.STOPPED, None, "asked to stop, 3 times"),
    ],
)
def test_the_reason_of_a_failure_is_its_own(tmp_path, monkeypatch, returncode, written, said):
    Script(monkeypatch, returncode, "Writing model shards: 100%")
    if written is not None:
        write_json(tmp_path / "failure.json", written)
    with pytest.raises(InputError, match=f"run a failed .status {returncode}.: .*{said}"):
        LocalExecutor(1).execute([Job("a", Path(tmp_path))], lambda: None)


@pytest.mark.parametrize("status", [-signal.SIGKILL, worker.STOPPED])
def test_a_run_whose_process_was_ended_from_outside_is_gone_on_with(tmp_path, monkeypatch, status):
    script = Script(monkeypatch, 0)
    statuses = [status, status, 0]
    monkeypatch.setattr(Script, "poll", lambda _: setattr(script, "returncode", statuses.pop(0)) or script.returncode)
    LocalExecutor(1).execute([Job("a", tmp_path)], lambda: None)
    assert not statuses


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
