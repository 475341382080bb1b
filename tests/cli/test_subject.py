"""A run is measured as it was trained, unless an option says otherwise, and the title says how."""

import json
import math
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from loopscale.cli.main import main
from loopscale.errors import InputError
from loopscale.system.provenance import provenance
from tests.cli.runs import TEXT, saved_run


@pytest.fixture
def measured(tmp_path, monkeypatch, capsys):
    """Evaluate a folder; return what was measured, the last exit's cross-entropy and the first line."""
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))

    def evaluate(folder, *words):
        quick = ["--repeats", "1", "--speed_batch_sizes", "1", "--json", str(tmp_path / "found.json")]
        capsys.readouterr()
        status = main(["evaluate", str(folder), *map(str, words), *quick])
        printed = capsys.readouterr()
        assert status == 0, printed.err
        (model,) = json.loads((tmp_path / "found.json").read_text())["models"].values()
        exits = model["depth"]["trained"]["exits"]
        return model["measured_on"], exits[2]["cross_entropy"], printed.out.splitlines()[0]

    return evaluate


def refusal(capsys, *words):
    capsys.readouterr()
    assert main([*map(str, words)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    return error


def test_text_and_windows_are_the_runs_own(tmp_path, measured):
    run = saved_run(tmp_path)
    facts, own, title = measured(run, "--windows", 5)
    assert (facts["corpus"], facts["sequence_length"], facts["split"], facts["windows"]) == ("text.txt", 24, "valid", 5)
    assert facts["tokens"] == 5 * 24 and facts["settings_of_run"]
    for word in ("text.txt", "valid split", "sequence_length 24", "stride 24", "120 tokens", "5 of"):
        assert word in title
    _, same, _ = measured(run, "--windows", 5, "--sequence_length", 24, "--corpus", tmp_path / "text.txt")
    facts, other, title = measured(run, "--windows", 5, "--sequence_length", 48)
    assert own == same != other
    assert "sequence_length 48 where the run had 24" in title


def test_the_audit_measures_the_same_windows(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    run = saved_run(tmp_path)
    assert main(["audit", str(run), "--windows", "6", "--json", str(tmp_path / "a.json")]) == 3
    found = json.loads((tmp_path / "a.json").read_text())
    assert found["measured_on"]["sequence_length"] == 24 and found["tokens"] == found["measured_on"]["tokens"] == 144
    assert "6 of" in capsys.readouterr().out.splitlines()[0]


def test_a_checkpoint_of_a_run_is_measured_as_the_run(tmp_path, measured):
    run = saved_run(tmp_path)
    checkpoint = run / "checkpoints" / "checkpoint-10"
    checkpoint.mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(run / name, checkpoint / name)
    assert measured(checkpoint, "--windows", 4)[:2] == measured(run, "--windows", 4)[:2]
    for path in run.glob("tokenizer*"):
        path.unlink()  # as before the run has ended
    assert measured(checkpoint, "--windows", 4)[:2][1] > 0


def test_a_column_of_the_runs_own(tmp_path, measured):
    rows = [{"content": f"row {i} of a table. " * 4, "text": "another"} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = saved_run(tmp_path, corpus=str(tmp_path / "rows.jsonl"), text_field="content")
    facts, own, _ = measured(run, "--windows", 4)
    assert facts["text_field"] == "content"
    _, other, title = measured(run, "--windows", 4, "--text_field", "text")
    assert other != own and "text_field text where the run had content" in title


def test_a_column_that_the_run_found_is_found_again(tmp_path, measured):
    rows = [{"body": f"row {i} of a table. " * 4, "id": i} for i in range(60)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = saved_run(tmp_path, corpus=str(tmp_path / "rows.jsonl"))
    assert provenance(str(run)).text_field is None
    assert "settings of its run" in measured(run, "--windows", 4)[2]


def test_a_tokenizer_that_does_not_fit_the_text_is_said(tmp_path, measured):
    words = models.WordLevel({"[UNK]": 0, "story": 1, "cat": 2}, unk_token="[UNK]")
    backend = Tokenizer(words)
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    special = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="[UNK]", eos_token="cat")
    run = saved_run(tmp_path)
    special.save_pretrained(run)
    title = measured(run, "--windows", 4)[2]
    assert "of its tokens are [UNK]" in title


def test_what_is_said_of_a_text_is_said_once_for_several_models(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    runs = [str(saved_run(tmp_path, name)) for name in ("one", "two")]
    caplog.clear()
    assert main(["evaluate", *runs, "--limit", "4", "--repeats", "1", "--speed_batch_sizes", "1"]) == 0
    assert [record.message for record in caplog.records if "held out" in record.message] == [
        "corpus 'text.txt': no file is of a valid split, so its last 602 of 12,790 characters are held out."
    ]


def test_a_run_that_diverged_is_no_model_and_says_where(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    record = {"steps": 6, "seconds": 1.0, "history": [], "diverged": {"step": 7, "what": "the loss"}}
    (tmp_path / "run" / "training.json").write_text(json.dumps(record))
    for command in (["evaluate"], ["audit"], ["generate", "--prompt", "a"]):
        assert "diverged at step 7 (the loss is not finite)" in refusal(capsys, *command, tmp_path / "run")


def test_a_folder_without_a_run_is_measured_by_default_and_says_so(tmp_path, measured):
    run = saved_run(tmp_path)
    (run / "run.json").unlink()
    facts, _, title = measured(run, "--corpus", tmp_path / "text.txt", "--windows", 4)
    assert facts["sequence_length"] == 48 and not facts["settings_of_run"]
    assert "no run.json beside the model" in title


def test_a_text_that_moved_or_changed_is_said(tmp_path, measured, capsys):
    run = saved_run(tmp_path)
    assert "another one than at training" not in measured(run, "--windows", 4)[2]
    (tmp_path / "text.txt").write_text(TEXT.upper(), encoding="utf-8")
    assert "another one than at training" in measured(run, "--windows", 4)[2]
    (tmp_path / "text.txt").unlink()
    assert "that is the text of the run" in refusal(capsys, "audit", run)
    assert "--corpus" in refusal(capsys, "evaluate", run)


def test_the_whole_text_is_scored_every_token_once(tmp_path, measured):
    run = saved_run(tmp_path)
    for words in (["--windows", "all"], ["--limit", 0], ["--windows", "all", "--stride", 8]):
        facts, _, _ = measured(run, "--split", "all", *words, "--max_loops", 3)
        assert facts["tokens"] == len(TEXT.encode()) - 1


def test_a_text_shorter_than_a_window_is_scored(tmp_path, measured):
    from loopscale.model import LoopedForCausalLM

    run = saved_run(tmp_path)
    (tmp_path / "short").mkdir()
    (tmp_path / "short" / "train.txt").write_text(TEXT)
    (tmp_path / "short" / "valid.txt").write_text("a short text")
    facts, found, _ = measured(run, "--corpus", tmp_path / "short")
    ids = torch.tensor([list(b"a short text\n")])
    losses = LoopedForCausalLM.from_pretrained(run)(ids[:, :-1]).logits[0].log_softmax(-1)
    wanted = -losses.gather(1, ids[0, 1:, None]).mean().item()
    assert facts["tokens"] == facts["sequence_length"] == 12 and math.isclose(found, wanted, abs_tol=1e-5)


def test_bad_settings_are_one_sentence(tmp_path, capsys):
    run = saved_run(tmp_path)
    assert "did you mean 'valid'" in refusal(capsys, "evaluate", run, "--split", "vald")
    assert "--sequence_length is 0" in refusal(capsys, "audit", run, "--sequence_length", 0)
    assert "--windows is 0" in refusal(capsys, "evaluate", run, "--windows", 0)
    (run / "run.json").write_text('{"config": {"data": {"corpus": "x"}}}')
    assert "does not say how this model was trained" in refusal(capsys, "evaluate", run)


def test_provenance_of_other_folders_is_none(tmp_path):
    assert provenance(str(tmp_path)) is None and provenance("hub/name") is None
    for other in ('{"id": 3}', "[]"):
        (tmp_path / "run.json").write_text(other)
        assert provenance(str(tmp_path)) is None
    (tmp_path / "run.json").write_text("{")
    with pytest.raises(InputError, match="mend it"):
        provenance(str(tmp_path))


def test_models_of_different_texts_are_told_apart(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("LOOPSCALE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "other.txt").write_text(TEXT.upper(), encoding="utf-8")
    runs = [saved_run(tmp_path, "a"), saved_run(tmp_path, "b", corpus=str(tmp_path / "other.txt"))]
    quick = ["--windows", "4", "--repeats", "1", "--speed_batch_sizes", "1", "--max_loops", "1"]
    assert main(["evaluate", *map(str, runs), *quick]) == 0
    assert "measured on different texts" in " ".join(capsys.readouterr().out.split())


def test_a_text_named_from_another_folder_is_found_around_the_run(tmp_path, measured, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = saved_run(tmp_path)
    found = json.loads((run / "run.json").read_text())
    found["config"]["data"]["corpus"] = "text.txt"
    (run / "run.json").write_text(json.dumps(found))
    here = measured(run, "--windows", 4)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert measured(run, "--windows", 4) == here


@pytest.mark.parametrize("words", [["evaluate", "--figures=f"], ["audit", "--figures=f"], ["generate", "--prompt=a"]])
def test_weights_that_are_not_finite_are_told_by_every_command(tmp_path, capsys, words):
    folder = saved_run(tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights["model.layers.1.mlp.up_proj.weight"][0, 0] = math.nan
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    assert main([words[0], str(folder), *words[1:]]) == 2
    assert "not finite in weight model.layers.1.mlp.up_proj.weight" in capsys.readouterr().err
