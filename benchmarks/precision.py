"""Does a runaway scale cost precision? Trained models in fewer bits, exit by exit and loop by loop.

python -m benchmarks.precision RUN_DIR ... --out precision.json writes what every run's exits lose on its own valid
text, the error of the state in every loop, also past the trained depth, and precision.md beside it. Needs the extra
`quant`.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from loopscale.data import batches
from loopscale.display import Column, Table, number, to_markdown
from loopscale.evaluate import PrecisionReport, measure_precisions
from loopscale.load import load_model
from loopscale.storage import plain
from loopscale.system.environment import environment
from loopscale.train import load_run_data
from loopscale.train.run_folder import read_run

NAMES = ("bfloat16", "float16", "int8", "int4")


def measure(folder: Path, windows: int, past: int) -> tuple[PrecisionReport, ...]:
    """Return the reports of one run's model, to `past` times its trained depth."""
    run, model = read_run(folder), load_model(str(folder))
    some = list(batches(load_run_data(run, quiet=True).valid, 8, limit=-(-windows // 8)))
    return measure_precisions(model, some, NAMES, past * model.num_loops)


def table(found: dict[str, Any], past: int) -> Table:
    """Return one row for each run and precision: what the trained exits lose, and the error of the state."""
    rows = []
    for name, reports in found.items():
        for report in reports:
            K = len(report.perplexity) // past
            error = (number(report.state_error[k], 2) for k in (0, K - 1, past * K - 1))
            exits = " ".join(number(value) for value in report.perplexity[:K])
            ratio = number(report.relative_perplexity[K - 1], 5)
            rows.append((name, report.precision, exits, ratio, *error, number(report.norm[K - 1])))
    heads = ("last exit over float32's", "error, loop 1", "loop K", f"loop {past}K", "norm, loop K")
    columns = (Column("model"), Column("precision"), Column("perplexity of exits"), *(Column(h, True) for h in heads))
    caption = "Error: mean over tokens of ||z' - z|| / ||z||, z the state in float32."
    return Table("precision", "Precision over loops", caption, columns, tuple(rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of trained runs")
    parser.add_argument("--windows", type=int, default=32)
    parser.add_argument("--past", type=int, default=4, help="how many times the trained depth")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    names = ["/".join(folder.resolve().parts[-3:-1]) for folder in args.runs]
    if len(set(names)) < len(names):  # seeds of one condition, or runs side by side
        names = [str(folder) for folder in args.runs]
    found = {n: measure(folder, args.windows, args.past) for n, folder in zip(names, args.runs, strict=True)}
    document = {"environment": environment(), "windows": -(-args.windows // 8) * 8, "models": plain(found)}
    args.out.write_text(json.dumps(document, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(to_markdown(table(found, args.past)))
    print(to_markdown(table(found, args.past)))


if __name__ == "__main__":
    main()
