"""One run of a study in a process of its own: `python -m loopscale.study.worker FOLDER` trains, measures, writes."""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from loopscale.allocator import keep_freed_memory
from loopscale.errors import InputError
from loopscale.storage import write_json
from loopscale.study.measure import measure
from loopscale.train import read_run, train

RESULT_FILE = "result.json"
PROGRESS_FILE = "progress.json"
STOPPED = 75  # the process was asked to stop and saved (EX_TEMPFAIL)


class ReportProgress(TrainerCallback):
    """Writes the last log line where the study's table reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: dict[str, Any], **_: Any
    ) -> None:
        """Write step, last step and the line."""
        report(self.folder, {"state": "training", "step": state.global_step, "steps": state.max_steps, **logs})


def report(folder: Path, progress: dict[str, Any]) -> None:
    """Write the progress of a run, whole."""
    write_json(folder / PROGRESS_FILE, progress)


def read_report(path: Path) -> dict[str, Any] | None:
    """Return what a run wrote of its progress or result, None where it has not yet. Raises `InputError` if damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InputError(f"{path} is damaged: remove it, and the same command makes it again.") from error


def main(folder: Path) -> int:
    """Train or go on, measure, write `result.json`; return the exit status."""
    config = read_run(folder)
    trained = train(config, [ReportProgress(folder)], quiet=True)
    if trained is None:
        return STOPPED
    report(folder, {"state": "measuring", "step": trained.steps, "steps": trained.steps})
    result = {
        "seed": config.train.seed,
        **measure(trained.model, trained.data),
        "steps": trained.steps,
        "train_seconds": trained.seconds,
        "parameters": trained.model.num_parameters(),
        "history": [line for line in trained.history if "loss" in line],
    }
    if trained.diverged is not None:
        result["diverged"] = trained.diverged
    write_json(folder / RESULT_FILE, result)
    return 0


if __name__ == "__main__":
    keep_freed_memory()
    try:
        sys.exit(main(Path(sys.argv[1])))
    except InputError as error:
        sys.exit(f"{error}")
