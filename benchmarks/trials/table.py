"""Table of docs/reliability.md, from the records that are kept: `python -m benchmarks.trials.table [FOLDER]`.

With a folder, its records are first taken into results/, thinned: what a case said is kept where the case was bad.
"""

import json
import sys
from pathlib import Path
from typing import Any

from loopscale.display import Column, Table, to_markdown

ROOT = Path(__file__).parents[2]
KEPT, PAGE = ROOT / "results" / "reliability-cpu", ROOT / "docs" / "reliability.md"
BEGIN, END = "<!-- trials: written by python -m benchmarks.trials.table -->\n", "<!-- end of trials -->\n"
SAID, LONGEST = ("said", "then"), 200  # characters of what a bad case said last


def main() -> None:
    for folder in sys.argv[1:]:
        keep(Path(folder))
    before, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}{table()}{END}{rest.partition(END)[2]}", encoding="utf-8")


def keep(folder: Path) -> None:
    """Take the records of a folder into results/."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for path in sorted(folder.glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        found["records"] = [_thinned(record) for record in found["records"]]
        lines = ",\n".join(json.dumps(record) for record in found.pop("records"))
        text = f'{json.dumps(found, indent=1)[:-2]},\n "records": [\n{lines}\n ]\n}}\n'
        (KEPT / path.name).write_text(text, encoding="utf-8")


def table() -> str:
    """Return every trial that is kept, in Markdown."""
    trials = [
        (path, json.loads(path.read_text(encoding="utf-8")))
        for path in sorted(KEPT.glob("*.json"), key=lambda path: path.stem)
    ]
    return to_markdown(
        Table(
            name="trials",
            title="",
            caption="",
            columns=(
                Column("records"),
                Column("seed", numeric=True),
                Column("cases", numeric=True),
                Column("bad", numeric=True),
                Column("what came out"),
                Column("on"),
            ),
            rows=tuple(
                (
                    path.name,
                    str(found["seed"]),
                    str(found["tried"]),
                    str(found["bad"]),
                    "; ".join(f"{count} {kind}" for kind, count in found["kinds"].items()) + _kills(found),
                    "{cores} cores, Python {python}, torch {torch}".format(**found["environment"]),
                )
                for path, found in trials
            ),
        )
    )


def _kills(found: dict[str, Any]) -> str:
    kills = sum(len(record.get("kills", ())) for record in found["records"])
    return f" ({kills} kills)" if kills else ""


def _thinned(record: dict[str, Any]) -> dict[str, Any]:
    """Return a record with the last line of what was said, where it is bad, and else without."""
    short = {key: value for key, value in record.items() if key not in SAID}
    for key in SAID:
        if record["bad"] and record.get(key):
            short[key] = record[key].splitlines()[-1][-LONGEST:]
    return short


if __name__ == "__main__":
    main()
