"""Hostile names, files and sizes given to the commands: done or refused in a sentence, soon, with nothing executed."""

import json
import os
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.trials.foreign_code import inputs_with_code, unlisted
from benchmarks.trials.forks import REFUSED, forked
from benchmarks.trials.names import Act, named_inputs, orders_in, prepare
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import tiny_run
from loopscale import LoopedConfig
from loopscale.cli.main import main as command
from loopscale.train import train

SECONDS, SOON = 300, 60  # of a case on a busy machine, and of one that is refused
HUGE = 10**9
BOMB = "a: &a [1,1,1,1,1,1,1,1,1,1]\n" + "".join(
    f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)
OF_MODELS = [f.name for f in fields(LoopedConfig) if f.type in (int, int | None) and "token" not in f.name]
SIZES = [
    *((f"model.{name}", HUGE) for name in OF_MODELS if name != "trained_loops"),  # which training sets itself
    ("model.num_loops", 10_000),
    ("train.workers", 100_000),
    ("train.batch_size", HUGE),
    ("train.max_steps", 10**30),
    ("train.seed", 10**30),
    ("data.sequence_length", HUGE),
    ("data.stride", HUGE),
]


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return so many hostile inputs (0: all)."""
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    log = place / "said.txt"
    ended = forked(lambda: int(train(tiny_run(place, max_steps=1), quiet=True) is None), log)
    assert ended.status == 0, ended.said
    assert (made := forked(lambda: prepare(place), log)).status == 0, made.said
    found = [
        *named_inputs(place),
        *_sizes(place),
        *_configs(place),
        *_files(place),
        *inputs_with_code(place, partial(_words, place)),
    ]
    found = random.Random(seed).sample(found, number) if 0 < number < len(found) else found
    return [Case(name, partial(_tried, name, act, place, log)) for name, act in found]


def _tried(name: str, act: Act, place: Path, log: Path) -> Record:
    """Give one input; it is to be done or told, soon, with nothing executed and no name obeyed."""
    shutil.rmtree(place / "shown", ignore_errors=True)
    (place / "shown").mkdir()
    ended = forked(act, log, limit=SECONDS)
    ran = [path for path in (place / "pwned", Path("pwned")) if path.exists()]
    for path in ran:
        path.rmdir() if path.is_dir() else path.unlink()
    orders = orders_in(ended.said, place)
    told = ended.is_told and (ended.status == REFUSED or not name.startswith(("size", "code", "file")))
    kind = "done" if told and ended.status != REFUSED else "one sentence" if told else "NOT TOLD"
    kind = "TOO LATE" if kind == "one sentence" and ended.seconds > SOON else kind
    kind = "RAN CODE" if ran else "OBEYED" if orders else kind
    found = {"orders": orders} if orders else {}
    return {"kind": kind, "bad": kind.isupper(), "status": ended.status, "said": ended.said.strip()[-600:], **found}


def _command(words: list[str]) -> int:
    return command(words)


def _words(place: Path, *more: str, out: str = "new", steps: int = 1) -> list[str]:
    run = tiny_run(place)
    model = [f"--model.{key}={value}" for key, value in run.model.items()]
    train = f"--train.max_steps={steps} --train.batch_size=4 --train.log_every=1 --train.save_every=1".split()
    data = [f"--data.corpus={run.data.corpus}", "--data.sequence_length=16"]
    return ["train", f"--out={out}", *model, *data, *train, *more]


def _sizes(place: Path) -> Iterator[tuple[str, Act]]:
    for name, size in SIZES:
        yield f"size {name} {size}", partial(_command, _words(place, f"--{name}={size}", out="big"))
    for name in OF_MODELS:
        for verb in ("evaluate", "generate", "audit", "lens", "export", "convert", "plan"):

            def loaded(name: str = name, verb: str = verb) -> int:
                return command(_on(verb, _changed(place, {name: HUGE})))

            # a plan is there to say what it would take
            yield f"{'large' if verb == 'plan' else 'size'} {verb} config.json {name}", loaded
    yield "size evaluate --max_loops", lambda: command([*_on("evaluate", place / "run"), f"--max_loops={HUGE}"])
    yield "size generate --loops", lambda: command([*_on("generate", place / "run"), f"--loops={HUGE}"])
    yield "size generate --loops 10,000", lambda: command([*_on("generate", place / "run"), "--loops=10000"])


def _on(verb: str, folder: Path) -> list[str]:
    made = f"{folder.parent}/made-of-{verb}"
    more = {
        "generate": ["--prompt=a", "--max_new_tokens=2"],
        "evaluate": ["--repeats=1", "--windows=2"],
        "audit": ["--windows=2"],
        "lens": ["--text=abc", f"--out={made}.html"],
        "plan": [],
    }
    return [verb, str(folder), *more.get(verb, [made, "--overwrite"])]


def _changed(place: Path, changes: dict[str, Any]) -> Path:
    """Return a copy of the run with another config.json, which no list of sizes vouches for."""
    folder = unlisted(place, "changed")
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    return folder


def _configs(place: Path) -> Iterator[tuple[str, Act]]:
    texts: dict[str, str | bytes] = {
        "alias bomb": BOMB,
        "alias bomb in a field": BOMB + "model: {num_loops: *h}\n",
        "alias of itself": "a: &a [*a]\nmodel: *a\n",
        "huge integer": "train: {max_steps: " + "9" * 5000 + "}\n",
        "huge exponent": "train: {learning_rate: 1e999999}\n",
        "half surrogate": 'data: {corpus: "\\ud800"}\n',
        "python object": "!!python/object/apply:os.mkdir [pwned]\n",
        "not UTF-8": b"data: {corpus: \xff\xfe}\n",
        "NUL": 'data: {corpus: "a\\0b"}\n',
        "deep": "[" * 3000 + "]" * 3000,
        "key twice": "train: {seed: 1}\ntrain: {seed: 2}\n",
        "list": "- 1\n- 2\n",
        "dates": "train: {seed: 2001-01-01}\n",
    }
    for name, text in texts.items():

        def config(text: str | bytes = text) -> int:
            path = place / "hostile.yaml"
            path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
            return command(_words(place, f"--config={path}", out="of-config"))

        yield f"file YAML {name}", config
    jsons = {"huge integer": '{"vocab_size": ' + "9" * 5000 + "}", "deep": "[" * 5000, "surrogate": '"\\ud800"'}
    jsons |= {"NaN": '{"vocab_size": NaN}', "nothing": "", "null": "null"}
    for name, text in jsons.items():
        for verb in ("generate", "audit"):

            def document(text: str = text, verb: str = verb) -> int:
                folder = _changed(place, {})
                (folder / "config.json").write_text(text)
                return command(_on(verb, folder))

            yield f"file {verb} config.json {name}", document

        def record(text: str = text) -> int:
            folder = _changed(place, {})
            (folder / "run.json").write_text(text)
            return command(["train", f"--out={folder}", *_words(place)[2:]])

        yield f"file run.json {name}", record


def _files(place: Path) -> Iterator[tuple[str, Act]]:
    for name in ("model.safetensors", "tokenizer.json"):

        def damaged(name: str = name) -> int:
            folder = place / "flipped"
            shutil.rmtree(folder, ignore_errors=True)
            shutil.copytree(place / "run", folder)
            content = bytearray((folder / name).read_bytes())
            content[-9] ^= 4
            (folder / name).write_bytes(content)
            return command(_on("evaluate", folder))

        yield f"file flipped byte in {name}", damaged
