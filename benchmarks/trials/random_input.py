"""Random input of every kind: configurations, words, texts, tokens, checkpoints, models, records, YAML, results.

Each is read, or refused in a sentence, in time. What is drawn is a valid document with values of it changed, a file
with bytes of it changed, or noise.
"""

import json
import os
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import final

import torch

from benchmarks.trials.damage import StopAt
from benchmarks.trials.drawn import changed, dumped, spoilt, text, value
from benchmarks.trials.forks import forked
from benchmarks.trials.names import prepare
from benchmarks.trials.runner import Case, Record
from benchmarks.trials.subjects import tiny_run
from loopscale.audit import audit
from loopscale.cli.main import main as command
from loopscale.cli.options import parser_of
from loopscale.data import load_data
from loopscale.decode import full_depth_generate
from loopscale.evaluate import CalibratedRule, depth_curve
from loopscale.load import load_model, load_tokenizer_of
from loopscale.model import LoopedConfig, LoopedForCausalLM
from loopscale.model.size import require_room
from loopscale.study import load
from loopscale.train import RunConfig, read_run, train

SECONDS = 300  # of a case, on a busy machine
ENDINGS = (".txt", ".jsonl", ".json", ".csv", ".parquet", ".gz", ".arrow", ".bz2", ".xz", ".zst", "")
SHORT = {  # what makes a command short, after the random words
    "train": ["--train.max_steps=1"],
    "evaluate": ["--windows=2", "--repeats=1", "--speed_batch_sizes=1", "--halting=entropy"],
    "audit": ["--windows=2"],
    "generate": ["--prompt=a", "--max_new_tokens=2"],
    "report": [],
    "convert": [],
    "reproduce": ["--conditions=none"],
    "check": ["--steps=1", "--widths=16", "--loops=1"],
}


@final
@dataclass(frozen=True)
class Base:
    """What is there to be changed: a finished run, a stopped one, and the results of a study."""

    place: Path
    run: RunConfig

    def copy(self, what: str) -> Path:
        """Return a copy of one of them."""
        folder = self.place / "copy"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.place / what, folder)
        return folder


Read = Callable[[random.Random, Base], object]


def _configuration_of_a_run(draw: random.Random, base: Base) -> None:
    require_room(RunConfig.from_dict(changed(draw, base.run.to_dict())).model_config(None), "it", 1024)


def _configuration_of_a_model(draw: random.Random, base: Base) -> None:
    folder = base.copy("finished")
    path, document = folder / "config.json", changed(draw, json.loads((folder / "config.json").read_text()))
    (folder / "manifest.json").unlink()
    require_room(LoopedConfig.from_dict(document), "it")
    path.write_bytes(dumped(document))
    load_model(str(folder))


def _settings_beside_a_model(draw: random.Random, base: Base) -> int:
    """Change any JSON file of a model's folder, then write a token with what is read of it."""
    folder = base.copy("finished")
    path = draw.choice(sorted(folder.glob("*.json")))
    path.write_bytes(dumped(changed(draw, json.loads(path.read_text()))))
    (folder / "manifest.json").unlink(missing_ok=True)
    return command(["generate", str(folder), *SHORT["generate"]])


def _words(draw: random.Random, base: Base) -> int:
    """Give a command options that it has, with any values; what is not refused is to be over soon."""
    verb = draw.choice(tuple(SHORT))
    options = [name for action in parser_of(verb, [])._actions for name in action.option_strings if name != "--help"]
    given = [f"{draw.choice(options)}={value(draw)}" for _ in range(draw.randint(1, 3))]
    harmless = [word.replace("\0", "").replace("/", "_").replace("..", "_") for word in given]  # nothing outside here
    place = str(base.place / draw.choice(("finished", "stopped", "nowhere")))
    named = {"train": [f"--out={place}"], "check": ["laptop"], "reproduce": [], "convert": [place, "converted"]}.get(
        verb, [place]
    )
    return command([verb, *named, *harmless, *SHORT[verb]])


def _text(draw: random.Random, base: Base) -> None:
    path = base.place / f"any{draw.choice(ENDINGS)}"
    content = draw.choice((draw.randbytes(draw.randrange(400)) * 9, text(draw, 200).encode() * 9))
    path.write_bytes(draw.choice((content, spoilt(draw, dumped([{"text": text(draw, 80)}] * 40)))))
    load_data(str(path), "bytes", sequence_length=4, cache_dir=base.place / "any-cache", quiet=True)


def _tokens(draw: random.Random, base: Base) -> None:
    """Damage the cache of tokens, which is then made anew or told; give a model ids of any kind."""
    cache = base.place / "tokens"
    shutil.rmtree(cache, ignore_errors=True)
    read = partial(load_data, base.run.data.corpus, "bytes", sequence_length=16, cache_dir=cache, quiet=True)
    whole = [read().train[i] for i in (0, 1)]
    path = draw.choice([path for path in sorted(cache.rglob("*")) if path.is_file()])
    path.write_bytes(spoilt(draw, path.read_bytes()))
    again = read().train
    assert all(str(again[i]) == str(entry) for i, entry in enumerate(whole)), f"other tokens, {path.name} damaged"


def _ids(draw: random.Random, base: Base) -> None:
    model = load_model(str(base.place / "finished"))
    assert isinstance(model, LoopedForCausalLM)
    rows, width = draw.choice([(1, 0), (0, 3), (1, 47), (2, 3), (1, 60)])
    ids = torch.tensor([draw.choice((0, 1, 255, 256, -1, -100)) for _ in range(rows * width)]).reshape(rows, width)
    measure = draw.choice((lambda: depth_curve(model, [ids.long()], 3), lambda: audit(model, [ids.long()])))
    draw.choice((measure, lambda: full_depth_generate(model, ids.long(), draw.choice((0, 1, 2)))))()


def _checkpoint(draw: random.Random, base: Base) -> int:
    folder = base.copy("stopped")
    for path in draw.sample(sorted(p for p in folder.rglob("*") if p.is_file()), draw.randint(1, 3)):
        path.write_bytes(spoilt(draw, path.read_bytes()))
    shutil.rmtree(base.run.folder, ignore_errors=True)
    folder.rename(base.run.folder)
    return int(train(base.run, quiet=True) is None)


def _model(draw: random.Random, base: Base) -> None:
    folder = base.copy("finished")
    path = draw.choice([path for path in sorted(folder.iterdir()) if path.is_file()])
    path.write_bytes(spoilt(draw, path.read_bytes()))
    if draw.random() < 0.5:
        (folder / "manifest.json").unlink(missing_ok=True)
    load_model(str(folder))
    load_tokenizer_of(str(folder))


def _record(draw: random.Random, base: Base) -> None:
    folder = base.copy("finished")
    path = folder / "run.json"
    path.write_bytes(dumped(changed(draw, json.loads(path.read_text()))))
    read_run(folder)


def _yaml(draw: random.Random, base: Base) -> int:
    document = changed(draw, base.run.to_dict())
    written = draw.choice((dumped(document), text(draw, 60).encode(), spoilt(draw, dumped(document))))
    path = base.place / "any.yaml"
    path.write_bytes(written)
    return command(["audit", f"--config={path}"])


def _rule(draw: random.Random, base: Base) -> None:
    document = {"rule": "max_probability", "threshold": 0.5, "level": "token", "num_loops": 3}
    path = base.place / "rule.json"
    path.write_bytes(draw.choice((dumped(changed(draw, document)), spoilt(draw, dumped(document)))))
    CalibratedRule.load(path)


def _results(draw: random.Random, base: Base) -> None:
    content = (base.place / "results.json").read_bytes()
    path = base.place / "any-results.json"
    path.write_bytes(draw.choice((dumped(changed(draw, json.loads(content))), spoilt(draw, content))))
    load(path)


def _report(draw: random.Random, base: Base) -> int:
    out = base.place / "reported"
    out.mkdir(exist_ok=True)
    (out / "results.json").write_bytes(dumped(changed(draw, json.loads((base.place / "results.json").read_text()))))
    return command(["report", str(out)])


READS: Mapping[str, Read] = {
    "configuration of a run": _configuration_of_a_run,
    "configuration of a model": _configuration_of_a_model,
    "settings beside a model": _settings_beside_a_model,
    "words": _words,
    "text": _text,
    "tokens": _tokens,
    "ids": _ids,
    "checkpoint": _checkpoint,
    "model": _model,
    "record": _record,
    "YAML": _yaml,
    "rule": _rule,
    "results": _results,
    "report": _report,
}


def cases(number: int, seed: int, place: Path) -> Sequence[Case]:
    """Return so many random inputs, each kind as often as any other."""
    os.environ["LOOPSCALE_CACHE"] = str(place / "cache")
    run, log = tiny_run(place), place / "said.txt"
    forked(lambda: int(train(run, [StopAt()], quiet=True) is not None), log)
    shutil.copytree(run.folder, place / "stopped")
    assert forked(lambda: int(train(run, quiet=True) is None), log).status == 0, log.read_text()
    shutil.copytree(run.folder, place / "finished")
    assert (made := forked(lambda: prepare(place), log)).status == 0, made.said
    names = list(READS)
    base = Base(place, run)
    return [
        Case(f"{name} {i}", partial(_tried, READS[name], random.Random(f"{seed} {i}"), base, log))
        for i, name in enumerate(names[i % len(names)] for i in range(number or 1000))
    ]


def _tried(read: Read, draw: random.Random, base: Base, log: Path) -> Record:
    ended = forked(lambda: _status(read(draw, base)), log, limit=SECONDS)
    refused = ended.is_refused and ended.is_told
    kind = "success" if ended.status in (0, 1, 3) and ended.is_told else "one sentence" if refused else "TRACEBACK"
    kind = "HANG" if ended.status == -9 else kind
    told = {"said": ended.said.strip()[-1500:]} if kind.isupper() else {"said": ended.said.strip()[-160:]}
    return {"kind": kind, "bad": kind.isupper(), "status": ended.status, **told}


def _status(returned: object) -> int:
    return returned if isinstance(returned, int) else 0
