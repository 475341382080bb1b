import json
from pathlib import Path

import pytest
import torch

from loopscale.cli.main import main
from loopscale.cli.subject import labels
from loopscale.data import load_tokenizer
from loopscale.data.corpora import Corpus
from loopscale.errors import InputError
from loopscale.evaluate import CalibratedRule
from tests.helpers import tiny_model

LENGTH = 16


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("work")
    words = " ".join(f"word{i % 17} of {i % 5}" for i in range(200))
    (folder / "train.txt").write_text(words)
    (folder / "valid.txt").write_text(words[:1200])
    tokenizer = load_tokenizer("bytes", Corpus.of("words", [words], [words]))
    for name, readout in (("a", "rmsnorm"), ("b", "final_rmsnorm")):
        torch.manual_seed(0)
        model = tiny_model(vocab_size=257, max_position_embeddings=LENGTH, readout=readout, exit_gate=name == "a")
        model.save_pretrained(folder / "runs" / name / "seed-1")
        tokenizer.save_pretrained(folder / "runs" / name / "seed-1")
    return folder


@pytest.fixture
def evaluate(work, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(work)
    quick = ["--corpus", str(work), "--repeats", "1", "--speed_batch_sizes", "4"]
    return lambda *words: main(["evaluate", *words, *quick])


def test_tables_figures_rules_and_json(evaluate, tmp_path, capsys):
    out = tmp_path / "out"
    words = [
        "--limit",
        "24",
        "--max_loops",
        "9",
        "--halting",
        "all",
        "--relative_perplexity",
        "1.5",
        "--reference",
        "true",
    ]
    files = ["--json", str(tmp_path / "found.json"), "--figures", str(out), "--save_rules", str(tmp_path / "rules")]
    files += ["--report", str(tmp_path / "deep" / "page.html")]
    assert evaluate("runs/a/seed-1", "runs/b/seed-1", *words, *files) == 0
    printed = capsys.readouterr().out
    for sentence in ("a, 24 of", "b (final)", "frontier", "at equal cost", "oracle", "exit_gate", "* trained depth"):
        assert sentence in printed
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["models"]) == {"a", "b"}
    assert set(found["models"]["b"]["depth"]) == {"trained", "final"}
    assert len(found["models"]["a"]["depth"]["trained"]["exits"]) == 9
    assert found["models"]["a"]["halting"]["calibration_windows"] == 12
    assert {p["group"] for p in found["frontier"]["points"]} == {"measured", "WikiText-103"}
    equal = {d["at_equal"] for d in found["frontier"]["differences"]}
    assert "flops" in equal and equal <= {"flops", "seconds"}  # speeds of a busy machine need not overlap
    assert {path.name for path in out.glob("*.png")} == {
        "depth.png",
        "frontier.png",
        "halting-a.png",
        "halting-b.png",
    }
    page = (tmp_path / "deep" / "page.html").read_text(encoding="utf-8")
    assert page.count("<figure ") == 4 and "is best: a perplexity of" in page and "Halting of b" in page
    assert page.count("trained ones is the first within 1%") == 3 and "measured on: a" in page
    rules = [CalibratedRule.load(path) for path in (tmp_path / "rules").iterdir()]
    assert len(rules) == 2 * 6 + 2 * 5 + 2  # only one has a gate; a fixed exit has no level


def test_sliding_windows_score_the_whole_text(evaluate, tmp_path):
    words = ["--stride", "4", "--limit", "0", "--max_loops", "1", "--json", str(tmp_path / "found.json")]
    assert evaluate("runs/a/seed-1", *words) == 0
    depth = json.loads((tmp_path / "found.json").read_text())["models"]["a/seed-1"]["depth"]["trained"]
    assert depth["tokens"] == 1200
    assert [e["exit"] for e in depth["exits"]] == [1]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nowhere"], "nowhere"),
        (["runs/a/seed-1", "runs/a/seed-1"], "given twice"),
        (["runs/a/seed-1", "--halting", "entrpy"], "did you mean 'entropy'"),
        (["runs/b/seed-1", "--halting", "exit_gate", "--limit", "8"], "no exit gate"),
        (["runs/a/seed-1", "--halting", "kl", "--level", "word"], "unknown halting level 'word'"),
        (["runs/a/seed-1", "--max_loops", "0"], "at least 1 loop"),
        (["runs/a/seed-1", "--stride", "99"], "stride 99"),
        (["runs/a/seed-1", "--limit", "-1"], "--limit -1"),
        (["runs/a/seed-1", "--halting", "kl", "--limit", "2", "--max_loops", "1"], "at least 4 windows"),
        (["runs/a/seed-1", "--halting", "kl", "--limit", "8", "--relative_perplexity", "0.5"], "at least 1"),
        (
            ["runs/a/seed-1", "--limit", "2", "--max_loops", "1", "--json", f"{__file__}/x.json"],
            "is a file, choose another",
        ),
        (["runs/a/seed-1", "--figures", __file__], "is a file, choose another"),
        (["runs/a/seed-1", "--halting", "kl", "kl"], "given twice"),
        (["runs/a/seed-1", "--halting", "all", "kl"], "name none beside it"),
        (["runs/a/seed-1", "--save_rules", "rules"], "does nothing without --halting"),
        (["runs/a/seed-1", "--mean_loops", "2"], "does nothing without --halting"),
        (["runs/a/seed-1", "--sequence_length", "0"], "sequence_length"),
        (["runs/a/seed-1", "runs/../runs/a/seed-1"], "given twice"),
    ],
)
def test_bad_input_is_one_sentence(evaluate, words, sentence, capsys):
    assert evaluate(*words) == 2
    printed = capsys.readouterr().err
    assert sentence in printed.strip().splitlines()[-1]
    assert "Traceback" not in printed


def test_labels_are_what_tells_the_models_apart():
    assert labels(["runs/laptop/per_loop-raw/seed-1", "runs/laptop/terminal-raw/seed-1"]) == [
        "per_loop-raw",
        "terminal-raw",
    ]
    assert labels(["runs/a/seed-1", "runs/a/seed-2"]) == ["seed-1", "seed-2"]
    assert labels(["a", "b/a"]) == ["a", "b/a"]
    assert labels(["x/a/seed-1"]) == ["a/seed-1"]
    with pytest.raises(InputError, match="twice"):
        labels(["a", "a"])
