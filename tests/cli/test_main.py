import os

import pytest
import torch

from loopscale.cli.main import COMMANDS, main


def test_usage_names_every_command(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert all(f"  {name} " in printed for name in COMMANDS)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trian"], "unknown command 'trian': did you mean 'train'?"),
        (["train", "--prest", "laptop"], "did you mean --preset?"),
        (["train", "--preset", "labtop"], "unknown preset 'labtop': did you mean 'laptop'?"),
        (["train", "--model.num_loop", "5"], "did you mean --model.num_loops?"),
        (["train", "--model.num_loops", "0", "--train.max_steps", "1"], "at least 1 loop"),
        (["train", "--model.readout", "rw"], "unknown readout 'rw': did you mean 'raw'"),
        (["train", "--data.corpus", "wikitxt-2"], "did you mean 'wikitext-2'"),
        (["train", "--data.sequence_length", "500"], "128 positions"),
        (["train", "--train.micro_batches", "0"], "train.micro_batches is 0: give 1 or more"),
        (["train", "--train.learning_rate", "-1"], "train.learning_rate is -1.0: give a number above 0"),
        (["train", "--train.max_steps", "0"], "train.max_steps is 0"),
        (["train", "--train.report_to", "[nonsense]"], "train.report_to names nonsense"),
        (["train", "--model.dropout", "1.5"], "dropout is 1.5"),
        (["train", "--out", __file__], "is a file, choose another folder"),
        (["train", "--config", torch.__file__], "__init__.py is neither YAML nor JSON"),
        (["reproduce", "--processes", "0"], "--processes is 0"),
        (["reproduce", "--model.readout", "raw"], "model.readout is what the conditions differ in"),
        (["reproduce", "--conditions", "per_loop-rawr"], "did you mean 'per_loop-raw'?"),
        (["report", "nowhere"], "no results"),
        (["audit", "a\0b"], "NUL or half of a character"),
        (["generate", "x", "--prompt=\ud800"], "NUL or half of a character"),
        (["evaluate", "x", f"--max_loops={10**400}"], "stay below 10,000 layers"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(words, sentence, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert len(printed.err.strip().splitlines()) == 1
    assert "Traceback" not in printed.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help(command, capsys):
    with pytest.raises(SystemExit) as exit_:
        main([command, "--help"])
    assert exit_.value.code == 0
    assert command in capsys.readouterr().out


def test_help_says_what_a_field_is_and_what_the_preset_makes_it(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--preset", "44m", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    assert "channels of the state. (type: int, default: 512)" in printed
    assert "default: wikitext-103" in printed


def test_a_preset_sets_defaults_and_words_beat_it(capsys):
    with pytest.raises(SystemExit):
        main(["train", "--preset", "44m", "--model.num_loops", "6", "--train.batch_size=32", "--print_config"])
    printed = capsys.readouterr().out
    for line in ("preset: 44m", "num_loops: 6", "hidden_size: 512", "batch_size: 32", "learning_rate: 0.0003"):
        assert line in printed


def test_a_config_file_beats_the_preset_it_names(tmp_path, capsys):
    path = tmp_path / "run.yaml"
    path.write_text("preset: small\nmodel:\n  readout: raw\n")
    with pytest.raises(SystemExit):
        main(["train", "--config", str(path), "--print_config"])
    printed = capsys.readouterr().out
    assert "readout: raw" in printed
    assert "corpus: wikitext-2" in printed


def test_a_folder_that_is_gone_is_a_sentence(tmp_path, monkeypatch, capsys):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert main(["audit", "anything"]) == 2
    assert "the folder you are in cannot be used" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [["audit"], ["evaluate"], ["generate", "--prompt=a"], ["convert", "out"], ["plan"], ["report"]]
)
def test_a_path_that_leads_to_itself_is_a_sentence(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    assert main([words[0], "loop", *words[1:]]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


@pytest.mark.parametrize("words", [["train", "--config"], ["lens", "x", "--file"], ["reproduce", "--grid"]])
def test_a_pipe_or_a_device_is_not_waited_for(words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.yaml")
    for name in ("pipe.yaml", "/dev/zero"):
        assert main([*words, name]) == 2
        said = capsys.readouterr().err
        assert "write it to a file" in said or "unknown grid '/dev/zero'" in said
