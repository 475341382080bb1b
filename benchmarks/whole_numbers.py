"""Fills what a study of ways to control the scale lacks where torchao was not installed: perplexity with int8 weights.

python -m benchmarks.whole_numbers STUDY ... measures it of every finished run whose model is still there, by the
function that `loopscale reproduce` calls where it can, and writes it into the run's result.json; a figure that is there
already is measured again. On the kind of device that the study ran on: a run that has another perplexity in float32 is
refused. Needs the extra `quant`; `loopscale reproduce` draws the report anew.
"""

import argparse
import math
from pathlib import Path

from loopscale.model import LoopedForCausalLM
from loopscale.storage import write_json
from loopscale.study.topic import valid_batches
from loopscale.study.topics.ways import control
from loopscale.study.worker import RESULT_FILE, read_report
from loopscale.train import load_run_data
from loopscale.train.run_folder import only_one, read_run

FULL, NAME = "float32", "int8"
WEIGHTS = "model.safetensors"
SAME = 1e-6  # relative: what was measured then and is measured now in full precision


def fill(folder: Path) -> str:
    """Measure one run, and say what was found. Raises `ValueError` where it is not the run that was measured then."""
    document = read_report(folder / RESULT_FILE) or {}
    record = document.get(control.TOPIC.name) or {}
    if "precisions" not in record or not all(record["precisions"][FULL]):
        return "left out: no figures of it"
    if not (folder / WEIGHTS).exists():
        return "left out: its model is not there"
    model = LoopedForCausalLM.from_pretrained(str(folder))
    data = load_run_data(read_run(folder), quiet=True)
    windows = list(valid_batches(model, data, control.BATCH_SIZE, control.BATCHES))
    full = control.exits_in(model, FULL, windows)
    before = record["precisions"][FULL]
    if not all(math.isclose(ours, theirs, rel_tol=SAME) for ours, theirs in zip(full, before, strict=True)):
        raise ValueError(f"{folder} has {full} now and had {before}: another text, model or kind of device")
    record["precisions"][NAME] = control.exits_in(model, NAME, windows)
    write_json(folder / RESULT_FILE, document, sealed=True)
    return f"{record['precisions'][NAME][-1] / full[-1]:.6f} times the last exit's perplexity"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("studies", type=Path, nargs="+", help="folders that `loopscale reproduce` wrote")
    for study in parser.parse_args().studies:
        for path in sorted(study.glob(f"*/seed-*/{RESULT_FILE}")):
            with only_one(path.parent):
                print(f"{path.parent.relative_to(study)}: {fill(path.parent)}", flush=True)


if __name__ == "__main__":
    main()
