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
from loopscale.study.executors import Job, LocalExecutor, local
from loopscale.study.executors.job import Failure, interruptions_wait
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interruption_while_a_process_starts_leaves_none_behind(tmp_path, monkeypatch, number):
    started = []

    def start(job, environment):
        command = [sys.executable, "-c", "import time; time.sleep(600)"]
        started.append(subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True))
        signal.raise_signal(number)  # before anybody knows of the process
        return started[0]

    monkeypatch.setattr("loopscale.study.executors.local._start", start)
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(1).execute([Job("a", tmp_path)], lambda: None)
    (process,) = started
    try:
        assert process.poll() == -signal.SIGTERM
    finally:
        process.kill()


def test_an_interruption_that_waited_comes_after_the_block_and_handlers_are_given_back():
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    with pytest.raises(KeyboardInterrupt), interruptions_wait():
        signal.raise_signal(signal.SIGINT)
        raise OSError("the block fails too")
    assert [signal.getsignal(number) for number in numbers] == before


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


def test_as_many_run_at_once_as_there_are_gpus_each_with_one_and_its_share_of_the_cores(tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("os.cpu_count", lambda: 6)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("loopscale.study.executors.local.WORKER", "tests.study.executors.toy_worker")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    jobs = [Job(f"run-{i}", tmp_path / f"run-{i}") for i in range(3)]
    for one in jobs:
        one.folder.mkdir()
        (one.folder / "does").write_text("finish")
    running = []
    begin = local._start

    def start(job, environment):
        running.append(environment["CUDA_VISIBLE_DEVICES"])
        return begin(job, environment)

    monkeypatch.setattr(local, "_start", start)
    LocalExecutor().execute(jobs, lambda: None)
    seen = [(one.folder / "gpus").read_text() for one in jobs]
    assert seen == running and set(seen[:2]) == {"4", "7"} and seen[2] in {"4", "7"}
    assert {(one.folder / "pids").read_text().split()[1] for one in jobs} == {"3"}
    assert LocalExecutor().width(100) == 2 and LocalExecutor(5).width(100) == 5


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
