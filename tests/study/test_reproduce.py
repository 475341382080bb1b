import json
import math
import os
import shutil
import signal
from dataclasses import fields, replace
from io import StringIO

import pytest
import torch
from rich.console import Console

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.model import LoopedForCausalLM
from loopscale.storage import plain, write_json
from loopscale.study import Failed, load, worker
from loopscale.study.executors import Job, LocalExecutor
from loopscale.study.executors.local import process_environment
from loopscale.study.grid import GRIDS, PAPER, RATE, SCALE_CONTROL, edited, named_conditions, read_grid
from loopscale.study.reproduce import plan, reproduce
from loopscale.system.environment import environment
from loopscale.train import preset_run, read_run, write_config
from loopscale.train.checkpoints import last_checkpoint
from loopscale.train.run_folder import only_one
from tests.helpers import TINY
from tests.shapes import shapes_unchecked
from tests.study.conftest import made_up_run

LISTS = ("perplexity", "cross_entropy", "norm", "perplexity_by_depth", "norm_by_depth")
CHOSEN = ["per_loop-rmsnorm", "terminal-raw"]


class InProcess:
    """Executes jobs here, and remembers them."""

    def __init__(self) -> None:
        self.executed: list[str] = []

    def execute(self, jobs, tick):
        for job in jobs:
            self.executed.append(job.name)
            assert worker.main(job.folder) == 0
            tick()


class Pretending(InProcess):
    """Trains nothing, and writes what a run with a loss of that many nats writes."""

    def __init__(self, nats) -> None:
        super().__init__()
        self.nats = nats

    def execute(self, jobs, tick):
        for job in jobs:
            self.executed.append(job.name)
            config = read_run(job.folder)
            run = made_up_run("per_loop-rmsnorm", config.train.seed)
            losses = (self.nats(config),) * config.model["num_loops"]
            figures = {f.name: getattr(run, f.name)[: len(losses)] for f in fields(run) if f.name in LISTS}
            facts = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in (*LISTS, "measured")}
            write_json(job.folder / worker.RESULT_FILE, plain({**facts, **figures, "cross_entropy": losses}))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """The text that all studies here train on; beside it are its tokens."""
    path = tmp_path_factory.mktemp("corpus") / "text.txt"
    path.write_text("\n".join(f"{i} squared is {i * i}" for i in range(2000)), encoding="utf-8")
    return path


@pytest.fixture
def base(corpus, monkeypatch):
    return tiny_run(corpus, monkeypatch)


def tiny_run(corpus, monkeypatch):
    """Return a function that makes the run of a few steps that the conditions edit."""
    monkeypatch.setenv("LOOPSCALE_CACHE", str(corpus.parent / "cache"))

    def make(**model):
        run = preset_run("laptop")
        sizes = {k: v for k, v in TINY.items() if k != "vocab_size"}
        return replace(
            run,
            model={**sizes, **model},
            data=replace(run.data, corpus=str(corpus), sequence_length=32),
            train=replace(run.train, max_steps=3, batch_size=2, log_every=1, save_every=1),
        )

    return make


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A study of one condition, trained and measured once."""
    out = tmp_path_factory.mktemp("trained") / "study"
    with pytest.MonkeyPatch.context() as patch, shapes_unchecked():
        run_study(tiny_run(corpus, patch)(), out, conditions=CHOSEN[:1])
    return out


@pytest.fixture
def study_folder(trained, tmp_path):
    """Return a copy of it that a test may change."""
    return shutil.copytree(trained, tmp_path / "study")


def run_study(base, out, executor=None, **kwargs):
    console = Console(file=StringIO(), width=140)
    return reproduce(base, out, console=console, executor=executor or InProcess(), **kwargs)


def test_the_grid_is_the_papers_seven_and_the_inter_loop_norm():
    assert len(PAPER) == 8
    models = [preset_run("laptop").with_model(**fields).model_config(256) for fields in PAPER.values()]
    shapes = {(m.supervision, m.readout, m.recurrence, m.norm_penalty_coef) for m in models}
    assert len(shapes) == 8
    assert list(named_conditions(CHOSEN)) == ["terminal-raw", "per_loop-rmsnorm"]
    with pytest.raises(InputError, match="did you mean 'per_loop-raw'"):
        named_conditions(["per_lop-raw"])


def test_seeds_come_one_whole_comparison_after_the_other(base, tmp_path):
    names = [run.name for run in plan(base(), named_conditions(CHOSEN), [1, 2, 1], tmp_path)]
    assert names == [f"{c}/seed-{s}" for s in (1, 2) for c in ("terminal-raw", "per_loop-rmsnorm")]


def test_a_study_writes_everything_and_goes_on_where_it_was(base, study_folder):
    first = load(study_folder / "results.json")
    run = first.conditions["per_loop-rmsnorm"].runs[0]
    assert (len(run.perplexity), len(run.norm_by_depth)) == (3, 9)
    assert (run.steps, run.checkpoint) == (3, "per_loop-rmsnorm/seed-42")
    for name in ("results.json", "report.html", "tables/table-1.md", "figures/norm-by-depth.png"):
        assert (study_folder / name).stat().st_size > 0
    second = InProcess()
    grown = run_study(base(), study_folder, second, conditions=CHOSEN)
    assert second.executed == ["terminal-raw/seed-42"]
    assert grown.conditions["per_loop-rmsnorm"].runs[0] == run
    assert load(study_folder / "results.json").corpus["sha256"] == first.corpus["sha256"]
    assert len(json.loads((study_folder / "results.json").read_text())["claims"]) == len(grown.claims) > 8


def test_a_study_names_the_machines_of_its_runs_and_not_the_one_that_collects_them(base, study_folder):
    path = study_folder / "per_loop-rmsnorm" / "seed-42" / "run.json"
    record = json.loads(path.read_text())
    write_json(path, {**record, "environment": {**record["environment"], "cpu": "another", "gpu": "a card"}})
    alone = run_study(base(), study_folder, conditions=CHOSEN[:1]).environment
    assert (alone["cpu"], alone["gpu"]) == ("another", "a card")
    both = run_study(base(), study_folder, conditions=CHOSEN)
    here = environment()
    assert both.environment["cpu"] == [here["cpu"], "another"] and both.environment["python"] == here["python"]
    page = (study_folder / "report.html").read_text(encoding="utf-8")
    assert "Runs are of several machines" in page and f"{here['cpu']}, another<" in page


def test_a_folder_of_another_study_is_refused_before_anything_is_written(base, study_folder):
    before = sorted(p.stat().st_mtime_ns for p in study_folder.rglob("*"))
    with pytest.raises(InputError, match=r"model\.num_loops differ"):
        run_study(base(num_loops=2), study_folder, conditions=CHOSEN[:1])
    assert sorted(p.stat().st_mtime_ns for p in study_folder.rglob("*")) == before


def test_a_study_that_an_older_version_began_goes_on(base, study_folder):
    """It states fewer settings; those have their defaults."""
    document = json.loads((study_folder / "study.json").read_text())
    assert document["train"].pop("optimizer") == "adamw"
    del document["data"]["stream"]
    write_json(study_folder / "study.json", document)
    run_study(base(), study_folder, again := InProcess(), conditions=CHOSEN[:1])
    assert again.executed == []


def test_a_run_that_fails_is_named_with_its_last_words(tmp_path):
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InputError, match=r"run broken failed .*lacks .config"):
        LocalExecutor(1).execute([Job("broken", tmp_path)], lambda: None)


def test_an_executor_that_is_asked_to_end_leaves_no_process_behind(base, tmp_path):
    endless = replace(base(), train=replace(base().train, max_steps=10_000))
    run = plan(endless, named_conditions(CHOSEN[:1]), [1], tmp_path / "out")[0]
    write_config(run.config)
    folder = run.config.folder

    def end_once_it_trains():
        if (folder / worker.PROGRESS_FILE).exists():
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        LocalExecutor(1).execute([Job(run.name, folder)], end_once_it_trains)
    assert signal.getsignal(signal.SIGTERM) is before
    assert last_checkpoint(folder) is not None
    with only_one(folder):
        pass  # nobody trains there any more


def test_every_process_has_a_gpu_of_those_that_are_shown(monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    assert [process_environment(place, 3)["CUDA_VISIBLE_DEVICES"] for place in range(3)] == ["4", "5", "4"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [process_environment(place, 2)["CUDA_VISIBLE_DEVICES"] for place in range(2)] == ["0", "1"]


@pytest.mark.parametrize(("told", "threads"), [(None, "4"), ("", "4"), ("0", "4"), ("1", "1"), ("16", "16")])
def test_the_threads_of_a_process_are_its_share_unless_told(monkeypatch, told, threads):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if told is not None:
        monkeypatch.setenv("OMP_NUM_THREADS", told)
    assert process_environment(0, 2)["OMP_NUM_THREADS"] == threads


def test_a_study_knows_the_runs_of_earlier_calls(base, tmp_path):
    out = tmp_path / "study"
    executor = Pretending(lambda config: 2.0)
    run_study(base(), out, executor, conditions=CHOSEN[:1], seeds=(1, 2))
    results = run_study(base(), out, executor, conditions=CHOSEN[1:], seeds=(1,))
    seeds = {name: [run.seed for run in condition.runs] for name, condition in results.conditions.items()}
    assert seeds == {"per_loop-rmsnorm": [1, 2], "terminal-raw": [1]}


class Ending(Pretending):
    """Executes one job and is interrupted."""

    def execute(self, jobs, tick):
        super().execute(jobs[:1], tick)
        raise KeyboardInterrupt


def test_an_interrupted_study_reports_what_is_finished(base, tmp_path):
    out = tmp_path / "study"
    with pytest.raises(KeyboardInterrupt):
        run_study(base(), out, Ending(lambda config: 2.0), conditions=CHOSEN)
    assert list(load(out / "results.json").conditions) == ["terminal-raw"]
    assert (out / "report.html").exists()
    again = Pretending(lambda config: 2.0)
    assert len(run_study(base(), out, again, conditions=CHOSEN).conditions) == 2
    assert again.executed == ["per_loop-rmsnorm/seed-42"]


def test_a_diverged_run_is_reported_like_any_other(base, tmp_path):
    out = tmp_path / "study"
    run = base()
    results = run_study(replace(run, train=replace(run.train, learning_rate=1e30)), out, conditions=CHOSEN)
    assert all(math.isnan(p) for p in results.conditions["terminal-raw"].runs[0].perplexity)
    assert any("diverged" in claim.note for claim in results.claims)
    assert (out / "report.html").exists()
    (run,) = results.runs("terminal-raw")
    assert run.measured["audit"] == run.measured["depth"] == Failed(run.measured["diverged"])
    json.loads((out / "results.json").read_text(), parse_constant=pytest.fail)


@pytest.mark.parametrize(("lost", "status"), [((), 0), (("per_loop-raw",), 1)])
def test_the_command_says_by_its_status_that_a_run_diverged(study, diverge, monkeypatch, tmp_path, lost, status):
    results = study()
    for name in lost:
        results = diverge(results, name)
    monkeypatch.setattr("loopscale.cli.reproduce.reproduce", lambda *args, **kwargs: results)
    assert main(["reproduce", "--preset", "laptop", "--out", str(tmp_path / "out")]) == status


def test_other_files_are_not_overwritten(base, tmp_path):
    out = tmp_path / "mine"
    out.mkdir()
    (out / "results.json").write_text("mine")
    with pytest.raises(InputError, match="not empty and holds no study"):
        run_study(base(), out)
    assert (out / "results.json").read_text() == "mine"


def test_a_damaged_result_is_named(base, study_folder):
    path = study_folder / "per_loop-rmsnorm" / "seed-42" / "result.json"
    path.write_text("{")
    with pytest.raises(InputError, match=r"result\.json is not JSON"):
        run_study(base(), study_folder, conditions=CHOSEN[:1])
    path.unlink()
    again = Pretending(lambda config: 2.0)
    run_study(base(), study_folder, again, conditions=CHOSEN[:1])
    assert again.executed == ["per_loop-rmsnorm/seed-42"]


def test_what_the_conditions_differ_in_cannot_be_set(base, tmp_path):
    with pytest.raises(InputError, match=r"model\.readout is what the conditions differ in"):
        run_study(base(readout="raw"), tmp_path / "study")


def test_a_study_on_another_text_is_refused(base, corpus, study_folder):
    text = corpus.read_text()
    corpus.write_text(text.replace("squared", "cubed"))
    try:
        with pytest.raises(InputError, match="was trained on another text"):
            run_study(base(), study_folder, conditions=CHOSEN)
    finally:
        corpus.write_text(text)


def test_the_executor_never_starts_more_than_its_width():
    assert LocalExecutor().width(1) == 1
    assert LocalExecutor(3).width(8) == 3


def test_a_scale_control_entry_is_as_large_as_the_blind_model_and_trains_one_way_to_control_it():
    assert GRIDS["scale-control"] is SCALE_CONTROL and SCALE_CONTROL["none"] == {}
    run = preset_run("laptop")
    sizes = {}
    for name, edit in SCALE_CONTROL.items():
        config = edited(run, edit).model_config(256)
        with torch.device("meta"):
            sizes[name] = LoopedForCausalLM(config).num_parameters()
    assert all(abs(size / sizes["none"] - 1) < 0.02 for size in sizes.values()), sizes
    assert len({json.dumps(edited(run, edit).to_dict(), sort_keys=True) for edit in SCALE_CONTROL.values()}) == len(
        sizes
    )


def test_every_condition_is_tuned_by_its_first_seed_and_the_others_train_at_its_best_rate(base, tmp_path):
    executor = Pretending(lambda config: abs(config.train.learning_rate - (0.1 if "readout" in config.model else 0.3)))
    rates = (0.1, 0.3)
    results = run_study(
        base(), tmp_path / "study", executor, conditions=["none", "raw"], seeds=(1, 2), rates=rates, grid=SCALE_CONTROL
    )
    first = [f"{name}@{rate}/seed-1" for name in ("none", "raw") for rate in rates]
    assert executor.executed == [*first, "none@0.3/seed-2", "raw@0.1/seed-2"]
    assert [run.seed for run in results.runs("none@0.3")] == [1, 2] and len(results.runs("none@0.1")) == 1
    assert results.conditions["none@0.3"].model[RATE] == 0.3


def test_a_grid_of_a_file_is_every_mix_of_its_values(base, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("readout: [raw, {kind: power, alpha: 0.5}]\ntrain.clip: [1.0, 2.0]\n")
    grid = read_grid(path)
    assert list(grid) == [
        f"readout={readout},clip={clip}" for readout in ("raw", "kindpower,alpha0.5") for clip in ("1.0", "2.0")
    ]
    alike = tmp_path / "alike.yaml"
    alike.write_text("train.depth: [{kind: uniform, low: 1, high: 23}, {kind: uniform, low: 12, high: 3}, fixed]\n")
    assert len(read_grid(alike)) == 3
    run = edited(base(), list(grid.values())[-1])
    assert (run.model["readout"], run.train.clip) == ({"kind": "power", "alpha": 0.5}, 2.0)
    out = tmp_path / "study"
    run_study(base(), out, Pretending(lambda config: 2.0), grid=grid)
    assert list(load(out / "results.json").conditions) == list(grid)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("reedout: [raw]", "did you mean 'readout'"),
        ("readout: raw", "give a list of its values"),
        ("- 1", "holds no grid"),
        ("num_loops: [2, 4]", "one for a whole study: give --model.num_loops"),
        ("train.seed: [1, 2]", "one for a whole study: give --seeds"),
        ("readout: [2026-01-01, raw]", "give numbers, words, lists or mappings"),
        (None, "no grid at"),
    ],
)
def test_a_file_that_is_no_grid_is_one_sentence(tmp_path, text, said):
    path = tmp_path / "grid.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=said):
        read_grid(path)


def test_runs_of_another_grid_in_the_folder_are_named(base, tmp_path):
    out, said = tmp_path / "study", StringIO()
    executor, console = Pretending(lambda config: 2.0), Console(file=said, width=200)
    run_study(base(), out, executor, conditions=CHOSEN[:1])
    results = reproduce(base(), out, ["none"], console=console, executor=executor, grid=SCALE_CONTROL)
    assert list(results.conditions) == ["none"] and "not of this grid, left out: per_loop-rmsnorm" in said.getvalue()
