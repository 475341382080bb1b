"""`loopscale generate`: the text on standard output, what it took on standard error."""

import json

import pytest

from loopscale.cli.main import main
from loopscale.data import load_data
from tests.helpers import tiny_model


def saved(tmp_path, **overrides):
    """The folder of a tiny model of bytes."""
    (tmp_path / "text.txt").write_text("loops " * 200)
    data = load_data(str(tmp_path / "text.txt"), "bytes", vocab_size=256, sequence_length=8, cache_dir=tmp_path)
    data.tokenizer.save_pretrained(tmp_path / "model")
    tiny_model(vocab_size=256, **overrides).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def folder(tmp_path):
    return saved(tmp_path)


@pytest.fixture
def rule(tmp_path):
    path = tmp_path / "rule.json"
    path.write_text(json.dumps({"rule": "max_probability", "threshold": 0.5, "level": "token", "num_loops": 3}))
    return path


def generate(capsys, *words):
    status = main(["generate", *map(str, words), "--max_new_tokens", "12"])
    return status, *capsys.readouterr()


def test_speculation_prints_the_text_of_full_depth_and_what_it_took(folder, capsys):
    status, plain, _ = generate(capsys, folder, "--prompt", "loop ")
    assert status == 0
    assert plain.startswith("loop ")
    status, speculated, stats = generate(capsys, folder, "--prompt", "loop ", "--speculate", "--stats")
    assert (status, speculated) == (0, plain)
    assert "12 tokens in" in stats
    assert "executed loops per token" in stats
    assert "drafted tokens" in stats


def test_a_terminal_obeys_nothing_of_the_text(folder, capsys):
    status, text, _ = generate(capsys, folder, "--prompt", "a\x1b[31m\nb\u202e")
    assert status == 0 and text.startswith("a\\x1b[31m\nb\\u202e")
    assert not {"\x1b", "\u202e"} & set(text)


def test_exits_are_contrasted_by_option(folder, capsys):
    texts = {
        generate(capsys, folder, "--prompt", "loop ", *words)[1]
        for words in ([], ["--contrast", "0.9"], ["--contrast", "0.9", "--contrast_loop", "2"])
    }
    assert len(texts) == 3


@pytest.mark.parametrize("other", [["--speculate"], ["--early_exit", "RULE"]])
def test_a_contrast_goes_with_full_depth_alone(folder, rule, capsys, other):
    words = [str(rule) if word == "RULE" else word for word in other]
    status, _, error = generate(capsys, folder, "--prompt", "loop ", "--contrast", "0.5", *words)
    assert status == 2 and f"and {other[0]} wh" in error


def test_depth_and_sampling_are_chosen_by_option(folder, capsys):
    texts = {
        generate(capsys, folder, "--prompt", "loop ", *words)[1]
        for words in ([], ["--loops", "5"], ["--temperature", "2.0"], ["--temperature", "2.0", "--seed", "1"])
    }
    assert len(texts) >= 3
    _, _, stats = generate(capsys, folder, "--prompt", "loop ", "--loops", "5", "--stats")
    assert "per token 5.00" in stats


def test_early_exit_runs_a_calibrated_rule(folder, rule, capsys):
    for slots in ("recompute", "share_last"):
        words = ["--prompt", "loop ", "--early_exit", rule, "--exit_slots", slots, "--stats"]
        status, text, stats = generate(capsys, folder, *words)
        assert status == 0
        assert text.startswith("loop ")
        assert "executed loops per token" in stats


def test_a_rule_of_another_model_is_noted(folder, rule, capsys):
    rule.write_text(json.dumps({**json.loads(rule.read_text()), "model": "another"}))
    status, _, notes = generate(capsys, folder, "--prompt", "loop ", "--early_exit", rule)
    assert status == 0
    assert "note: the halting rule was calibrated on another model" in notes


def test_an_untrained_drafting_exit_is_noted(tmp_path, capsys):
    folder = saved(tmp_path, supervision="terminal")
    status, _, notes = generate(capsys, folder, "--prompt", "loop ", "--speculate")
    assert status == 0
    assert "note: exit 1 was not trained" in notes


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--prompt", ""], "the prompt is empty"),
        (["--prompt", "x", "--loops", "0"], "num_loops is 0"),
        (["--prompt", "x" * 40], "need 51 positions, but this model has 48"),
        (["--prompt", "x", "--speculate", "--draft_loops", "3"], "fewer than the 3 that verify"),
        (["--prompt", "x", "--speculate", "--early_exit", "rule.json"], "choose one"),
        (["--prompt", "x", "--early_exit", "nowhere.json"], "nowhere.json does not exist: write a halting rule"),
        (["--prompt", "x", "--top_k", "3"], "give a temperature"),
        (["--prompt", "x", "--temperature", "1e-50"], "sample from 1e-06 on"),
        (["--prompt", "x", "--seed", str(2**70)], "--seed is"),
        (["--prompt", "\udcff bad"], "not UTF-8"),
        (["--prompt", "x", "--draft_loops", "2"], "does nothing without --speculate"),
        (["--prompt", "x", "--exit_slots", "share_last"], "does nothing without --early_exit"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(folder, words, sentence, capsys):
    status, out, err = generate(capsys, folder, *words)
    assert status == 2
    assert sentence in err
    assert "Traceback" not in err + out


@pytest.mark.parametrize(
    ("change", "sentence"),
    [({"level": "sequence"}, "stops whole sequences"), ({"num_loops": 4}, "for 4 loops, not for 3")],
)
def test_a_rule_that_does_not_fit_is_refused(folder, rule, change, sentence, capsys):
    rule.write_text(json.dumps({**json.loads(rule.read_text()), **change}))
    status, _, err = generate(capsys, folder, "--prompt", "x", "--early_exit", rule)
    assert status == 2
    assert sentence in err
