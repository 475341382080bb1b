"""Hostile names of models, corpora, conditions, folders, prompts and options, wherever a command may show them.

A name is to be inert in the terminal, in logs, Markdown tables, figures and pages: neither an order of a terminal, nor
the direction of writing, nor an element of a page comes through.
"""

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from html.parser import HTMLParser
from io import StringIO
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.trials.subjects import CONDITIONS, MODEL, InProcess, tiny_run
from loopscale.cli.main import main as command
from loopscale.study.reproduce import reproduce

NAMES = [
    "x[/]",
    "x[bold red]y",
    "[link=file:///etc/passwd]z",
    "\x1b[31mred",
    "\x1b]0;title\x07",
    "\x9b2J",
    "a\nb",
    "a\rb",
]
NAMES += ["|x|y", "# a\n\n<script>alert(1)</script>", "<script>alert(1)</script>", "<img src=x onerror=alert(1)>"]
NAMES += [
    "$(touch pwned)",
    "`touch pwned`",
    "; touch pwned",
    "%s%n",
    "{0}{{7*7}}",
    "{% raise %}",
    "${x}$\\frac{",
    "a\tb",
]
NAMES += [
    "é€\U0001f600",
    "\u202eabc\u2066",
    "\u061cabc",
    "\u2028x\u0085",
    "-x",
    "--help",
    "..x",
    " ",
    "x" * 255,
    "é" * 127,
]
NAMES += [os.fsdecode(b"\xff\xfe"), os.fsdecode(b"a\xed\xa0\x80b"), "'\"", "\\", "a&b;c", "CON", "x\u0000y", "\ud800"]
OPTIONS = [
    "--data.corpus",
    "--data.tokenizer",
    "--data.text_field",
    "--preset",
    "--config",
    "--init_from",
    "--model.mlp",
]
ORDERS = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
SHOWN = {".md", ".html", ".svg", ".txt", ".log", ".tex"}

NOTHING: Mapping[str, list[str]] = {  # commands on what is not there, with what else they need
    **{verb: [] for verb in ("audit", "evaluate", "report", "plan", "check")},
    "generate": ["--prompt=a"],
    **{verb: ["none.gguf"] for verb in ("export", "convert", "retrofit")},
}

Act = Callable[[], int | None]


def named_inputs(place: Path) -> Iterator[tuple[str, Act]]:
    """Yield every hostile name in every place where one may stand."""
    text = place / "text.txt"
    for name in NAMES:
        yield f"name of a run {name}", partial(_trained, place, ["--out={}".format(_below(place, "run", name))])
        yield f"name of a corpus {name}", partial(_corpus, place, name)
        yield f"name in a study {name}", partial(_report, place, name)
        yield f"name of a study {name}", partial(_study, place, name)
        yield (
            f"name as a prompt {name}",
            partial(command, ["generate", str(place / "run"), f"--prompt={name}", "--max_new_tokens=2"]),
        )
        yield (
            f"name as a text {name}",
            partial(command, ["lens", str(place / "run"), f"--text={name}", f"--out={_shown(place) / 'lens.html'}"]),
        )
        for verb, words in _written(place, text).items():
            yield f"name of what is written {verb} {name}", partial(_written_as, place, name, verb, words)
        for verb, words in _of_models(place, text).items():
            yield f"name of a model {verb} {name}", partial(_model, place, name, verb, words)
        for option in OPTIONS:
            yield f"name as {option} {name}", partial(_trained, place, ["--out=new", f"{option}={name}"])
        for option in ("--conditions", "--grid"):
            yield f"name as {option} {name}", partial(command, ["reproduce", f"--out={place}/none", f"{option}={name}"])
        for verb, more in NOTHING.items():
            yield f"name of nothing {verb} {name}", partial(command, [verb, f"{place}/none/{name}", *more])
        yield f"name of a command {name}", partial(command, [name])
        yield f"name of an option {name}", partial(command, ["train", f"--{name}", "1"])


def orders_in(said: str, place: Path) -> list[str]:
    """Return what of a command's output and of what it wrote to be shown would be obeyed."""
    found = [f"{mark!r} in the terminal" for mark in set(ORDERS.findall(said))]
    for path in sorted(_shown(place).rglob("*")):
        if path.is_file() and path.suffix in SHOWN:
            text = path.read_text(encoding="utf-8", errors="surrogateescape")
            found += [f"{mark!r} in {path.name}" for mark in set(ORDERS.findall(text))]
            if path.suffix in (".html", ".svg"):
                found += [f"{element} in {path.name}" for element in _elements(text)]
            elif path.suffix == ".tex" and (re.search(r"\\frac|<script", text) or _open_braces(text)):
                found.append(f"a command in {path.name}")
            elif re.search(r"<(script|img)\b", text):
                found.append(f"an element in {path.name}")
            elif path.suffix == ".md" and len({_cells(line) for line in text.splitlines() if line.startswith("|")}) > 1:
                found.append(f"rows of other lengths in {path.name}")
    return found


def _open_braces(text: str) -> int:
    plain = re.sub(r"\\[{}\\]", "", text)
    return plain.count("{") - plain.count("}")


def _cells(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line))


def _elements(page: str) -> list[str]:
    """Return elements of a page that a name made."""
    found: list[str] = []

    class Reader(HTMLParser):
        script = False

        def handle_starttag(self, tag: str, attrs: Any) -> None:
            self.script = tag == "script"
            if any("alert(1)" in (value or "") for key, value in attrs if key.startswith("on")):
                found.append(f"<{tag}> with an event")

        def handle_data(self, data: str) -> None:
            if self.script and re.match(r"\s*alert\(1\)", data):
                found.append("<script>")

    Reader().feed(page)
    return found


def _shown(place: Path) -> Path:
    """Return the folder of what a case writes to be shown."""
    folder = place / "shown"
    folder.mkdir(exist_ok=True)
    return folder


def _below(place: Path, kind: str, name: str) -> str:
    return f"{place}/shown/{kind}/{name}"


def _trained(place: Path, more: list[str]) -> int:
    run = tiny_run(place)
    model = [f"--model.{key}={value}" for key, value in run.model.items()]
    words = ["--train.max_steps=1", "--train.batch_size=4", "--train.log_every=1", "--train.save_every=1"]
    data = [f"--data.corpus={run.data.corpus}", "--data.sequence_length=16"]
    return command(["train", *model, *data, *words, *more])


def _corpus(place: Path, name: str) -> int:
    """Train on a file of this name, whose lines hold it too."""
    kept = os.fsencode(name) if "\0" not in name and name != "\ud800" else b"x"
    text = place / "corpora" / os.fsdecode(kept[:251] + b".txt")
    text.parent.mkdir(exist_ok=True, parents=True)
    text.write_text("\n".join(f"[red]{i}[/] \x1b[31m <b>|{i}|" for i in range(900)))
    return _trained(place, [f"--data.corpus={text}", f"--out={place}/shown/of-corpus"])


def _of_models(place: Path, text: Path) -> dict[str, list[str]]:
    figures = [
        f"--json={_shown(place)}/j.json",
        f"--figures={_shown(place)}/figures",
        f"--corpus={text}",
        "--windows=4",
    ]
    return {
        "evaluate": [*figures, "--repeats=1", "--speed_batch_sizes=1", "--max_loops=4", "--halting=entropy"],
        "audit": figures,
        "generate": ["--prompt=a", "--max_new_tokens=2", "--stats"],
    }


def _written(place: Path, text: Path) -> dict[str, list[str]]:
    return {
        "lens": ["--text=abc", "--out"],
        "evaluate": [f"--corpus={text}", "--windows=2", "--repeats=1", "--speed_batch_sizes=1", "--report"],
        "plan": ["--json"],
        "convert": ["--to=nanbeige"],
    }


def _written_as(place: Path, name: str, verb: str, words: list[str]) -> int:
    *more, last = words
    out = f"{_shown(place)}/{name}.html"
    model = [] if verb == "plan" else [str(place / "run")]
    return command([verb, *model, *more, *([last, out] if verb == "convert" else [f"{last}={out}"])])


def _model(place: Path, name: str, verb: str, words: list[str]) -> int:
    folder = f"{place}/models/{name}"
    if "\0" not in name and name != "\ud800":
        shutil.copytree(place / "run", folder, dirs_exist_ok=True)
    return command([verb, folder, *words])


def _study(place: Path, name: str) -> int:
    """Train and report a study in a folder of this name, from here to its page."""
    base = replace(tiny_run(place, max_steps=1), model=MODEL)
    out = Path(_below(place, "study", name))
    reproduce(base, out, CONDITIONS[:1], (1,), executor=InProcess(), console=Console(file=StringIO()))
    return command(["report", str(out)])


def _report(place: Path, name: str) -> int:
    """Report a study whose every name is this one."""
    found = json.loads((place / "results.json").read_text())
    found["preset"] = name
    found["corpus"] |= {"name": name, "tokenizer": name, "sha256": name}
    found["environment"] = dict.fromkeys(found["environment"], name) | {name: name}
    found["config"] = {name: name}
    found["conditions"] = {f"{name}{i}": entry for i, entry in enumerate(found["conditions"].values())}
    for condition in found["conditions"].values():
        condition[name] = name
        for run in condition["runs"]:
            run |= {"checkpoint": name, "halting": {"failed": name}}
    out = _shown(place) / "named"
    out.mkdir()
    (out / "results.json").write_text(json.dumps(found))
    return command(["report", str(out), "--latex"])


def prepare(place: Path) -> None:
    """Make the study that `_report` names anew."""
    base = replace(tiny_run(place, max_steps=1), model=MODEL)
    out = place / "of-names"
    reproduce(base, out, CONDITIONS, (1,), executor=InProcess(), console=Console(file=StringIO()))
    shutil.move(out / "results.json", place / "results.json")
