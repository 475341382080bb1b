"""What is wrong with words and files is told by the option, in our sentences, whatever the parser's library says."""

import jsonargparse
import pytest

from loopscale import InputError
from loopscale.cli.options import parser_of
from loopscale.cli.parser import PRIVATE

HINT = " (loopscale {} --help lists the options)"


def refusal(words):
    with pytest.raises(InputError) as refused:
        parser_of(words[0], words[1:]).read(words[1:])
    sentence = str(refused.value)
    return sentence.removesuffix(HINT.format(words[0]))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ("train --train.seed x", "--train.seed: expected a whole number, got x"),
        ("train --train.seed=[1,2]", "--train.seed: expected a whole number, got [1,2]"),
        ("train --train.learning_rate fast", "--train.learning_rate: expected a number, got fast"),
        ("train --train.compile maybe", "--train.compile: expected true or false, got maybe"),
        (
            "train --train.schedule cos",
            "--train.schedule: expected one of 'constant', 'linear', 'cosine', got cos",
        ),
        ("train --data 5", "--data: expected its fields, got 5"),
        ("train --data nowhere.yaml", "--data: expected its fields, got nowhere.yaml"),
        ("train --data {corpsu: x}", "there is no option --data.corpsu; did you mean --data.corpus?"),
        ("evaluate x --windows 1.5", "--windows: expected a whole number or 'all', got 1.5"),
        ("evaluate x --speed_batch_sizes 1 2.5 3", "--speed_batch_sizes: expected a whole number, got 2.5"),
        ("generate", "MODEL, --prompt must be given"),
        ("convert x", "DESTINATION must be given"),
        ("train --data.corpus a\0b", "--data.corpus holds a NUL character, which no name takes: leave it out."),
        (
            "train --model.injection.kind \0",
            "--model.injection holds a NUL character, which no name takes: leave it out.",
        ),
        # from here on Python's own words, pinned so that a change of them is seen
        ("lens a b", "unrecognized arguments: b"),
        ("train --train.seed", "argument --train.seed: expected one argument"),
    ],
)
def test_a_wrong_word_is_told_by_its_option(words, sentence):
    name, *rest = words.split(maxsplit=2) if "{" in words else words.split()
    assert refusal([name, *rest]) == sentence


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (b"train: {seed: x}", "--train.seed: expected a whole number, got x"),
        (b"preset: [laptop]", "--preset: expected text, got ['laptop']"),
        (b"modle: {x: 1}", "there is no option --modle.x"),
        (b"data: {corpsu: x}", "there is no option --data.corpsu; did you mean --data.corpus?"),
        (b"a: [", "run.yaml is neither YAML nor JSON"),
        (b"\xff\xfe\x00", "run.yaml is neither YAML nor JSON"),
        (b"- 1", "run.yaml holds no configuration"),
        (b"", "run.yaml holds no configuration"),
        (b"1: 2", "run.yaml holds no configuration"),
        (None, "cannot read run.yaml: No such file or directory."),
    ],
)
def test_a_wrong_file_is_told_by_the_option_or_the_file(tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    if text is not None:
        (tmp_path / "run.yaml").write_bytes(text)
    assert refusal(["train", "--config", "run.yaml"]).startswith(sentence)


def test_a_configuration_may_stand_on_the_command_line():
    words = ["--config", "{train: {seed: 7}, model: {num_loops: 2}}"]
    args = parser_of("train", words).read(words)
    assert args.train.seed == 7 and args.model.num_loops == 2


def test_the_hooks_into_the_library_are_there():
    parser = parser_of("train", [])
    for name in PRIVATE:
        assert any(hasattr(action, name) for action in parser._actions), f"not in {jsonargparse.__version__}"
