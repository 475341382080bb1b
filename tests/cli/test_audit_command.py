"""`loopscale audit`: exit statuses, output, files."""

import json
import shutil

import pytest
import torch

from loopscale.cli.main import main
from loopscale.data import load_corpus, load_tokenizer
from loopscale.model import LoopedForCausalLM
from loopscale.train import preset_run
from tests.helpers import tiny_config

TEXT = "a loop carries what no loss can see; the readout hides it.\n" * 600


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where text, tokenizer and models of two kinds lie."""
    root = tmp_path_factory.mktemp("audit")
    (root / "text.txt").write_text(TEXT, encoding="utf-8")
    torch.manual_seed(0)
    for readout in ("rmsnorm", "raw"):
        model = LoopedForCausalLM(tiny_config(readout=readout, vocab_size=256, num_stack_layers=1, num_loops=2))
        model.save_pretrained(root / readout)
        tokenizer = load_tokenizer("bytes", load_corpus(str(root / "text.txt")))
        tokenizer.save_pretrained(root / readout)
    return root


def audit(folder, model, *more):
    words = ["audit", str(folder / model), "--corpus", str(folder / "text.txt"), "--windows", "4", *more]
    return main(words)


def test_a_blind_spot_is_status_3_and_everything_is_written(folder, tmp_path, capsys):
    status = audit(
        folder, "rmsnorm", "--search", "--json", str(tmp_path / "a.json"), "--figures", str(tmp_path / "figures")
    )
    out = capsys.readouterr().out
    assert status == 3
    assert "blind_spot" in out and "norm_penalty_coef" in out and "lemma 2" in out and "remove_radial" in out
    found = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))
    assert found["coordinates"]["scale"]["verdict"] == "blind_spot" and found["tokens"] == 4 * 48
    assert len(found["curves"]["scale"]) == 30 and found["search"]["directions"]
    names = sorted(path.name for path in (tmp_path / "figures").iterdir())
    assert "lemma2.png" in names and "scale.svg" in names and len(names) == 12


def test_a_device_that_is_not_there_is_status_2(folder, capsys):
    assert audit(folder, "raw", "--device", "toaster") == 2
    assert "--device toaster cannot be used here" in capsys.readouterr().err


def test_weights_of_another_shape_are_status_2_and_named(folder, tmp_path, capsys):
    shutil.copytree(folder / "raw", tmp_path / "raw")
    config = json.loads((tmp_path / "raw" / "config.json").read_text())
    (tmp_path / "raw" / "config.json").write_text(json.dumps({**config, "hidden_size": 32, "intermediate_size": None}))
    assert main(["audit", str(tmp_path / "raw"), "--corpus", str(folder / "text.txt")]) == 2
    assert "embed_positions.weight has shape (48, 16) where its config asks for (48, 32)" in capsys.readouterr().err


def test_no_blind_spot_is_status_0(folder, capsys):
    assert audit(folder, "raw") == 0
    assert "blind_spot" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "text, status",
    [
        ("readout: rmsnorm", 3),
        ("preset: laptop\nmodel: {readout: raw}", 0),
        ("model: {norm_penalty_coef: 1e-2}", 0),
        (json.dumps({"config": preset_run("44m").with_model(recurrence="damped").to_dict()}), 3),
        ("model: {norm_penalty_coef: 1, loop_weights: [0, 0, 0, 1]}", 0),
        ("train: {scale_target: 4, monitor_every: 10}", 0),
    ],
)
def test_a_configuration_is_judged_without_weights(tmp_path, capsys, text, status):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["audit", "--config", str(path), "--json", str(tmp_path / "a.json")]) == status
    verdict = json.loads((tmp_path / "a.json").read_text(encoding="utf-8"))["coordinates"]["scale"]["verdict"]
    assert (verdict == "blind_spot") == (status == 3)
    assert "scale" in capsys.readouterr().out


def test_a_saved_models_configuration_is_judged(folder):
    assert main(["audit", "--config", str(folder / "rmsnorm")]) == 3
    assert main(["audit", "--config", str(folder / "raw" / "config.json")]) == 0


@pytest.mark.parametrize(
    "text, sentence",
    [
        ("model: {redout: raw}", "did you mean --model.readout"),
        ("modle: {readout: raw}\npreset: laptop", "did you mean --model.readout"),
        ("train: {lerning_rate: 1}", "did you mean --train.learning_rate"),
        ("model: {readout: rwa}", "unknown readout 'rwa': did you mean 'raw'"),
        ("readout: rwa", "unknown readout 'rwa': did you mean 'raw'"),
        ("model: raw", "give its fields"),
        ("config: 5", "unknown field"),
        ("preset: [laptop]", "--preset: expected text"),
        ("1: 2", "holds no configuration"),
        ("num_attention_heads: 0", "give at least 1"),
        ("trained_loops: -3", "give at least 1"),
        ("preset: laptopp", "did you mean 'laptop'"),
        ("model_type: llama", "llama model"),
        ("- 1", "holds no configuration"),
        ("a: [", "neither YAML nor JSON"),
        ("model: {hidden_size: 30}", "not a multiple"),
    ],
)
def test_a_bad_configuration_is_status_2_and_a_sentence(tmp_path, capsys, text, sentence):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    assert main(["audit", "--config", str(path)]) == 2
    assert sentence in capsys.readouterr().err


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "either a MODEL"),
        (["--config", "nowhere.json"], "cannot read nowhere.json"),
        (["nowhere-at-all"], "nowhere-at-all"),
        (["somewhere", "--config", "x.json"], "either a MODEL"),
        (["x", "--windws", "3"], "did you mean --windows"),
        (["x", "--windows", "1.5"], "--windows: expected a whole number or 'all', got 1.5"),
        (["x", "--json", "."], "is a folder"),
        (["x", "--figures", __file__], "is a file, choose another"),
        (["--config", "x.yaml", "--search"], "--search goes with a MODEL"),
    ],
)
def test_bad_words_are_status_2_and_a_sentence(capsys, words, sentence):
    assert main(["audit", *words]) == 2
    assert sentence in capsys.readouterr().err


def test_bad_thresholds_and_windows_are_status_2(folder, capsys):
    assert audit(folder, "raw", "--thresholds.visible", "7") == 2
    assert "between 0 and 1" in capsys.readouterr().err
    assert audit(folder, "raw", "--batch_size", "0") == 2
    assert audit(folder, "raw", "--windows", "0") == 2
