"""Worker: one run of a study in a process of its own, which trains, measures and writes.

`python -m loopscale.study.worker FOLDER [SECONDS]`, which waits so long for who still trains there.
"""

import math
import os
import signal
import stat
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.audit.measured_card import in_words
from loopscale.audit.verdict import Verdict
from loopscale.data import Data
from loopscale.display import inert, inert_logs
from loopscale.errors import InputError
from loopscale.model import LoopedForCausalLM
from loopscale.model_card import Known
from loopscale.storage import plain, read_json, write_json
from loopscale.system.allocator import keep_freed_memory
from loopscale.train import Trained, read_run, train
from loopscale.train.run import known_of
from loopscale.train.run_folder import only_one, read_record_of_run

from .executors.job import FAILURE_FILE, RESULT_FILE, STOPPED, Failure
from .results import Failed
from .topics import TOPICS, depth

PROGRESS_FILE = "progress.json"
FAILED = 2


class ReportProgress(TrainerCallback):
    """Writes the last log line where the study's table reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Write step, last step and the line."""
        line = {"state": "training", "step": state.global_step, "steps": state.max_steps, **logs}
        write_json(self.folder / PROGRESS_FILE, line)


def read_report(path: Path) -> dict[str, Any] | None:
    """Return what a run wrote of its progress or result, None where it has not yet. Raises `InputError` if damaged."""
    if not path.exists():
        return None
    return read_json(path, dict[str, Any], "remove it, and the same command makes it again")


def measure(model: LoopedForCausalLM, data: Data) -> dict[str, Any]:
    """Return every record of one trained model, the figures that all tables start from in front."""
    records = {topic.name: topic.measured(model, data) for topic in TOPICS if topic.measure is not None}
    curve = records[depth.TOPIC.name]
    if curve is None or isinstance(curve, Failed):
        return {**_figures_lost(model), **records}
    points, K = curve["trained"].exits, model.num_loops
    return {
        "perplexity": [point.perplexity for point in points[:K]],
        "cross_entropy": [point.cross_entropy for point in points[:K]],
        "norm": [point.norm for point in points[:K]],
        "perplexity_by_depth": [point.perplexity for point in points],
        "norm_by_depth": [point.norm for point in points],
        "tokens": curve["trained"].tokens,
        **records,
    }


def lost_run(model: LoopedForCausalLM, why: str) -> dict[str, Any]:
    """Return the records of a run that diverged: none, because the weights before that are of no condition."""
    failed = {topic.name: Failed(why) for topic in TOPICS if topic.measure is not None}
    return {**_figures_lost(model), "diverged": why, **failed}


def _figures_lost(model: LoopedForCausalLM) -> dict[str, Any]:
    lost = [math.nan] * model.num_loops
    figures = ("perplexity", "cross_entropy", "norm", "perplexity_by_depth", "norm_by_depth")
    return {**dict.fromkeys(figures, lost), "tokens": 0}


def main(folder: Path) -> int:
    """Train or go on, measure, write `result.json`; return the exit status."""
    config = read_run(folder)
    trained = train(config, [ReportProgress(folder)], quiet=True)
    if trained is None:
        return STOPPED
    write_json(folder / PROGRESS_FILE, {"state": "measuring", "step": trained.steps, "steps": trained.steps})
    found = _measured(trained)
    if trained.diverged is None:
        trained.model.write_card(folder, _known(folder, trained, found))
    write_json(folder / RESULT_FILE, {"seed": config.train.seed, **found, **_facts(trained)}, sealed=True)  # the mark
    return 0


def _measured(trained: Trained) -> Mapping[str, Any]:
    why = trained.diverged
    return plain(measure(trained.model, trained.data) if why is None else lost_run(trained.model, why))


def _known(folder: Path, trained: Trained, found: Mapping[str, Any]) -> Known:
    """Return what the model card tells: what the study found."""
    coordinates = (found["audit"] or {}).get("audit", {}).get("coordinates", {})
    verdicts = {name: Verdict(c["verdict"], c["seen_by"], c["removed_by"]) for name, c in coordinates.items()}
    return replace(
        known_of(read_record_of_run(folder), trained.steps),
        perplexity=tuple(math.nan if value is None else value for value in found["perplexity"]),
        measured_on=f"{found['tokens']:,} tokens of its valid split",
        verdicts=in_words(verdicts),
        audited=True,
    )


def _facts(trained: Trained) -> dict[str, Any]:
    return {
        "steps": trained.steps,
        "train_seconds": trained.seconds,
        "parameters": trained.model.num_parameters(),
        "history": [line for line in trained.history if "loss" in line],
    }


def end_with_parent() -> None:
    """Ask this process to save and stop once who started it is gone: its end of our standard input closes then."""

    def wait() -> None:
        with suppress(OSError, ValueError):
            if not stat.S_ISFIFO(os.fstat(0).st_mode):
                return  # nobody holds the other end
            while os.read(0, 1):
                pass
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=wait, daemon=True).start()


def wait_for(folder: Path, seconds: float) -> None:
    """Wait until nobody trains in a folder: one whose machine or parent is gone may still be saving there."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with suppress(InputError), only_one(folder):
            return
        time.sleep(1)


def run(folder: Path, patience: float = 0.0) -> int:
    """Return the exit status of `main`, with a failure in words in `failure.json`."""
    failure = folder / FAILURE_FILE
    try:
        wait_for(folder, patience)
        failure.unlink(missing_ok=True)
        return main(folder)
    except (InputError, OSError) as error:
        why = (
            str(error) if isinstance(error, InputError) else f"cannot read or write {error.filename}: {error.strerror}"
        )
        with suppress(InputError):
            write_json(failure, Failure(os.getpid(), why))
        print(inert(why), file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    end_with_parent()
    keep_freed_memory()
    inert_logs()
    sys.exit(run(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 0.0))
