"""A folder in which the commands and the code of the documentation run as they are written, at tiny sizes."""

import contextlib
import shlex
import shutil
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from loopscale.cli.main import main as command_line
from loopscale.cli.options import parser_of
from loopscale.convert.checkpoint import TARGETS
from loopscale.data import Corpus, batches, load_data, load_tokenizer
from loopscale.halting import RULES, CalibratedRule
from loopscale.load import load_model
from loopscale.study import Results, judged, save, worker
from loopscale.study.reproduce import reproduce
from loopscale.study.results import RESULTS_FILE
from loopscale.train import RunConfig, preset_run
from tests.convert.test_huginn import NATIVE as HUGINN
from tests.convert.test_paper_checkpoint import checkpoint
from tests.convert.test_parcae import NATIVE as PARCAE
from tests.golden import Golden
from tests.helpers import tiny_model

ROOT = Path(__file__).parents[1]
STUDY = Path("runs/laptop")
CONDITIONS = ["per_loop-rmsnorm", "per_loop-raw"]
TEXT = "".join(f"def main(x{i}):\n    return {i} * x{i} + {i * i}\n\n" for i in range(200))
SIZES = {"hidden_size": 16, "num_stack_layers": 1, "num_attention_heads": 2, "max_position_embeddings": 128}
OURO = {
    "recurrence": "rmsnorm",
    "readout": "rmsnorm",
    "share_loop_norm": True,
    "norm_placement": "sandwich",
    "supervision": "exit_gate",
    "position_embedding": "rope",
}
# other people's checkpoints, by their hub id: in what form, and what they are in ours
FOREIGN = {
    "ByteDance/Ouro-1.4B": ("ouro", OURO),
    "tomg-group-umd/huginn-0125": ("huginn", HUGINN),
    "SandyResearch/parcae-140m": ("parcae", PARCAE),
}
# what is added to a command, so that it takes a moment
TINY = {
    "train": [
        *("--train.max_steps=2", "--train.batch_size=2", "--train.log_every=1", "--train.save_every=1"),
        *("--train.precision=float32", "--data.sequence_length=16"),
        *(f"--model.{name}={size}" for name, size in SIZES.items()),
    ],
    "audit": ["--windows=2"],
    "evaluate": ["--limit=4", "--repeats=1", "--speed_batch_sizes=1"],
    "generate": ["--max_new_tokens=4"],
    "retrofit": ["--windows=2"],
}
NOT_DOWNLOADED = {
    **{"wikitext-2": "my_notes/", "wikitext-103": "my_notes/"},
    **{"HuggingFaceTB/SmolLM2-135M-Instruct": "pretrained", "10:20": "1:2"},
}
PRETRAINED = {
    **{"vocab_size": 256, "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 64},
    **{"num_hidden_layers": 3, "max_position_embeddings": 128},
}
HOURS = {"reproduce", "plan"}  # only parsed: a study has tests of its own, and so has a plan
BLIND_SPOT = UNSTEADY = 3
ELSEWHERE = {
    "curl",
    "transformers",
    "ollama",
    "llama-cli",
    "llama-server",
    "docker",
    "torchrun",
    "ray",
    "accelerate",
    "sbatch",
}  # programs that are not ours to run


class InProcess:
    """Executes the jobs of a study here."""

    def execute(self, jobs: Any, tick: Any) -> None:
        """Run one after the other."""
        for job in jobs:
            assert worker.main(job.folder) == 0


def build(folder: Path) -> None:
    """Make what the documentation takes for granted: notes, a study, other people's checkpoints, a halting rule."""
    (folder / "my_notes").mkdir()
    (folder / "my_notes" / "notes.txt").write_text(TEXT, encoding="utf-8")
    shutil.copytree(ROOT / "configs", folder / "configs")
    (folder / "my-run.yaml").write_text("model: {readout: raw}\n", encoding="utf-8")
    quiet = Console(file=StringIO())
    with patch("loopscale.study.reproduce.write_report", undrawn):
        reproduce(tiny_run(folder), folder / STUDY, CONDITIONS, executor=InProcess(), console=quiet)
    shutil.copytree(folder / STUDY / CONDITIONS[0] / "seed-42", folder / "runs" / "train")
    for name, (form, fields) in FOREIGN.items():
        (folder / name).mkdir(parents=True)
        TARGETS[form](tiny_model(**fields), folder / name)
    with contextlib.chdir(folder):
        run_block("loopscale train --preset laptop-rope --out runs/rope")
    LlamaForCausalLM(LlamaConfig(**PRETRAINED)).save_pretrained(folder / "pretrained")
    load_tokenizer("bytes", Corpus.of("text", ["a"], ["a"])).save_pretrained(folder / "pretrained")
    (folder / "outputs" / "perstep_norm").mkdir(parents=True)
    torch.save(checkpoint(Golden(), "rmsnorm"), folder / "outputs" / "perstep_norm" / "last.pt")
    model = load_model(str(folder / STUDY / CONDITIONS[0] / "seed-42"))
    CalibratedRule(RULES["max_probability"], 0.5, "token", model.num_loops).save(folder / "rule.json")


def undrawn(results: Results, out: Path) -> Results:
    """Write what a report is drawn from, and leave the drawing to the page that speaks of it."""
    results = judged(results)
    save(results, out / RESULTS_FILE)
    return results


def tiny_run(folder: Path) -> RunConfig:
    """Return a run of two steps on the notes."""
    run = preset_run("laptop")
    return replace(
        run,
        model=SIZES,
        data=replace(run.data, corpus=str(folder / "my_notes"), sequence_length=16),
        train=replace(run.train, max_steps=2, batch_size=2, log_every=1, save_every=1, precision="float32"),
    )


def names(folder: Path) -> dict[str, Any]:
    """Return what fragments speak of without making it."""
    model = load_model(str(folder / STUDY / CONDITIONS[0] / "seed-42"))
    windows = load_data(str(folder / "my_notes"), "bytes", sequence_length=16).valid
    several = list(batches(windows, 4, limit=4))
    return {
        "model": model,
        "input_ids": torch.tensor([list(b"def main(")]),
        "batches": several,
        "calibration_batches": several[::2],
        "test_batches": several[1::2],
        "config": replace(tiny_run(folder), out=str(folder / "runs" / "watched")),
    }


def run_block(block: str) -> None:
    """Run every command of a shell block."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and "=" in words[0] and not words[0].startswith("-"):  # NAME=value before a command
            words = words[1:]
        if words:
            run_command(words)


def run_command(words: list[str]) -> None:
    """Run one command as it is written, but small, and without a network."""
    program, *rest = words
    if program.endswith("loopscale"):
        _run_ours(rest[0], [NOT_DOWNLOADED.get(word, word) for word in rest[1:]])
    elif program == "make":
        targets = {line.split(":")[0] for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()}
        assert targets.issuperset(word for word in rest if "=" not in word), words
    elif program.endswith("python"):
        path = Path(rest[1].replace(".", "/") if rest[0] == "-m" else rest[0])
        places = [base / path for base in (ROOT, ROOT / "src")]
        assert any(place.exists() or place.with_suffix(".py").exists() for place in places), words
    elif program.endswith("pip"):
        extras = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
        named = [extra for extra in rest[-1].partition("[")[2].rstrip("]").split(",") if extra]
        assert all(f"\n{extra} = [" in extras for extra in named), words
    else:
        assert program in ELSEWHERE, f"{program} is no command that the documentation may give: {words}"


def _run_ours(name: str, options: list[str]) -> None:
    if name in HOURS:
        parser_of(name, options).parse_args(options)
        return
    measures = not (name == "audit" and "--config" in options)  # a configuration is judged without windows
    reads = name == "train" and "--data.corpus" not in options
    local = ["--data.corpus=my_notes/"] if reads else []  # the standard library takes seconds to tokenize
    status = command_line([name, *options, *(TINY.get(name, []) if measures else []), *local])
    assert status == 0 or (name, status) in {("audit", BLIND_SPOT), ("check", UNSTEADY)}, (name, options, status)
