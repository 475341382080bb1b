"""A study on a real Ray cluster of two machines (on this one), of which one dies."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from benchmarks.trials.subjects import without_clocks
from loopscale import InputError
from loopscale.cli.main import main
from loopscale.storage import read_json
from loopscale.study import worker
from loopscale.study.executors import EXECUTORS, Job, RayExecutor, executor_named, ray_cluster
from loopscale.study.executors.ray_cluster import share
from loopscale.system.lock import Owner
from tests.helpers import shapes_unchecked

TOY = "tests.study.executors.toy_worker"
MEMORY = 80 * 2**20  # the least that Ray takes for its objects


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'loopscale[ray]'")
    from ray.cluster_utils import Cluster

    paths = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "RAY_USAGE_STATS_ENABLED": "0"}
    paths["RAY_worker_niceness"] = "0"  # 15 by default: beside other tests they would starve
    with pytest.MonkeyPatch.context() as patch:
        for name, value in paths.items():  # the machines' own
            patch.setenv(name, value)
        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": MEMORY}
        cluster = Cluster(initialize_head=True, head_node_args=head)
        try:
            for _ in range(2):
                cluster.add_node(num_cpus=1, object_store_memory=MEMORY)
            yield cluster
        finally:
            cluster.shutdown()


@pytest.fixture
def toys(tmp_path, monkeypatch):
    """Return a function that makes jobs which do what they are told."""
    monkeypatch.setattr(ray_cluster, "WORKER", TOY)

    def make(*does):
        jobs = [Job(f"run-{i}", tmp_path / f"run-{i}") for i in range(len(does))]
        for one, word in zip(jobs, does, strict=True):
            one.folder.mkdir()
            (one.folder / "does").write_text(word)
        return jobs

    return make


def starts(one):
    path = one.folder / "pids"
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def test_a_process_that_is_killed_is_started_again_and_one_that_fails_is_named(cluster, toys, monkeypatch):
    monkeypatch.setattr(ray_cluster, "PATIENCE", 0.5)
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    jobs = toys("die", "finish", "fail", "elsewhere")
    executor = RayExecutor(cluster.address)
    executor.execute(jobs[:2], lambda: None)
    assert [len(starts(one)) for one in jobs[:2]] == [2, 1] and starts(jobs[1])[0][1] == "3"
    with pytest.raises(InputError, match=r"run run-2 failed on \S+ \(status 2\): no such luck"):
        executor.execute(jobs[2:3], lambda: None)
    with pytest.raises(InputError, match=r"does not share .*run-3 with this one: put --out on"):
        executor.execute(jobs[3:], lambda: None)


def test_an_interrupted_study_leaves_no_process_and_every_run_has_saved(cluster, toys):
    jobs = toys("wait", "wait", "wait")
    before = signal.getsignal(signal.SIGTERM)

    def end_once_two_run():
        if sum(map(len, map(starts, jobs))) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(KeyboardInterrupt):
        RayExecutor(cluster.address).execute(jobs, end_once_two_run)
    assert signal.getsignal(signal.SIGTERM) is before
    begun = [one for one in jobs if starts(one)]
    assert len(begun) == 2 and all((one.folder / "saved").exists() for one in begun)
    assert not any(psutil.pid_exists(int(pid)) for one in begun for pid, _ in starts(one))


def test_machines_that_do_not_share_the_folder_are_named_before_anything_runs(cluster, toys, monkeypatch):
    jobs = toys("finish", "finish")
    ours = ray_cluster._marked

    @contextmanager
    def of_another_disk(folder):
        with ours(folder) as mark:
            yield mark._replace(token="another")

    monkeypatch.setattr(ray_cluster.ray_task, "LATE", 0.1)
    monkeypatch.setattr(ray_cluster, "_marked", of_another_disk)
    with pytest.raises(InputError, match=r"machine \S+ of the Ray cluster does not share .*run-0 with this one"):
        RayExecutor(cluster.address).execute(jobs, lambda: None)
    assert not any(map(starts, jobs)) and not (jobs[0].folder / ray_cluster.MARK_FILE).exists()


def test_no_cluster_at_an_address_is_one_sentence(monkeypatch):
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'loopscale[ray]'")

    def absent(where, **_):
        raise ConnectionError(f"nobody at {where}")

    monkeypatch.setattr("ray.init", absent)
    for address, where in (("10.0.0.1:6379", "10.0.0.1:6379"), (None, "local")):
        with pytest.raises(InputError, match=rf"no Ray cluster answers at {where} \(nobody at {where}\)"):
            RayExecutor(address).execute([Job("a", Path("a"))], lambda: None)


def test_ray_that_is_not_installed_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'loopscale\[ray\]'"):
        RayExecutor().execute([Job("a", Path("a"))], lambda: None)


def test_an_executor_has_a_name():
    assert executor_named("ray", 3, "auto") == RayExecutor("auto", 3)
    with pytest.raises(InputError, match="did you mean 'local'"):
        executor_named("locl")
    with pytest.raises(InputError, match="is for --executor ray"):
        executor_named("local", None, "auto")
    with pytest.raises(InputError, match="--processes is 0"):
        executor_named("ray", 0)


@pytest.mark.parametrize(
    ("nodes", "wanted", "given"),
    [
        ([(8, 0)], 2, (4, 0)),
        ([(3, 0), (5, 0)], 2, (3, 0)),
        ([(0, 0), (2, 0), (2, 0)], 100, (1, 0)),
        ([(32, 4), (32, 4)], 8, (8, 1)),
        ([(32, 4)], 1, (32, 1)),
    ],
)
def test_cores_are_shared_out_among_the_runs_at_once(nodes, wanted, given):
    assert share(nodes, wanted) == given


def test_a_cluster_without_cores_is_refused():
    with pytest.raises(InputError, match="no cores"):
        share([(0, 0)], 1)


def owner(folder):
    try:
        return read_json(folder / "checkpoints" / ".owner.json", Owner).pid
    except InputError:
        return None


class Here:
    """Executes jobs in this process."""

    def execute(self, jobs, tick):
        for one in jobs:
            assert worker.main(one.folder) == 0


CONDITIONS = ["terminal-raw", "per_loop-rmsnorm"]


@pytest.fixture
def grid(base, tmp_path):
    """Return a function that makes the words of a study of two short runs."""
    sizes = [word for name, value in base.model.items() for word in (f"--model.{name}", str(value))]
    steps = ["--train.max_steps", "40", "--train.save_every", "1", "--train.log_every", "1", "--train.batch_size", "2"]
    text = ["--corpus", base.data.corpus, "--data.sequence_length", "32"]

    def words(name, *more):
        own = ["--out", str(tmp_path / name), "--conditions", *CONDITIONS]
        return ["reproduce", "--preset", "laptop", *text, *sizes, *steps, *own, *more]

    return words


def test_a_grid_of_which_a_machine_dies_ends_as_if_nothing_had_been(cluster, grid, tmp_path, monkeypatch):
    """The last test: it takes a machine of the cluster away."""
    killed = []

    def kill_a_machine():
        while not killed:
            for run in (tmp_path / "many" / name / "seed-42" for name in CONDITIONS):
                line = worker.read_report(run / worker.PROGRESS_FILE)
                if not killed and line and 3 <= line["step"] < 35 and (pid := owner(run)) is not None:
                    above = {parent.pid for parent in psutil.Process(pid).parents()}
                    (node,) = (n for n in cluster.worker_nodes if above & {p.pid for _, p in n.live_processes()})
                    cluster.remove_node(node, allow_graceful=False)
                    killed.append(pid)
            time.sleep(0.05)

    thread = threading.Thread(target=kill_a_machine, daemon=True)
    thread.start()
    assert main(grid("many", "--executor", "ray", "--ray_address", cluster.address)) == 0
    assert killed
    monkeypatch.setitem(EXECUTORS, "local", lambda processes, address: Here())
    with shapes_unchecked():
        assert main(grid("one")) == 0
    many, one = (without_clocks(read_json(tmp_path / name / "results.json", dict)) for name in ("many", "one"))
    assert many == one
    missing = tmp_path / "many" / CONDITIONS[1] / "seed-42" / "result.json"
    missing.unlink()
    asked = []

    def execute(self, jobs, tick):
        asked.extend(one.name for one in jobs)
        raise KeyboardInterrupt

    monkeypatch.setattr(RayExecutor, "execute", execute)
    assert main(grid("many", "--executor", "ray")) == 130
    assert asked == [f"{CONDITIONS[1]}/seed-42"]
