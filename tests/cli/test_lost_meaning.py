"""Weights whose numbers are finite and say nothing all the same: each command has a sentence for them."""

import shutil

import pytest
import torch

from loopscale.adapters import stream_plainly
from loopscale.cli.main import main
from loopscale.decode import full_depth_generate
from loopscale.errors import InputError
from loopscale.evaluate import depth_curve
from loopscale.evaluate.display import safe_sentence
from loopscale.load import load_model
from loopscale.model import LoopedForCausalLM
from tests.cli.test_generate_cli import saved
from tests.helpers import tiny_model

FACTORS = {"nothing": 0.0, "huge": 1e25, "too large for a step": 1e15}


pytestmark = pytest.mark.usefixtures("unchecked_shapes")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    place = tmp_path_factory.mktemp("lost")
    folder = saved(place)
    for name, factor in FACTORS.items():
        shutil.copytree(folder, place / name)
        model = load_model(str(folder))
        assert isinstance(model, LoopedForCausalLM)
        with torch.no_grad():
            for weight in model.parameters():
                weight.mul_(factor)
        model.save_pretrained(place / name)
    return place


def said(capsys, *words):
    status = main([str(word) for word in words])
    told = capsys.readouterr()
    return status, " ".join((told.out + told.err).split())


@pytest.mark.parametrize("way", [[], ["--speculate"], ["--temperature", "1"]], ids=str)
@pytest.mark.parametrize("name", ["nothing", "huge"])
def test_a_text_that_says_nothing_is_noted(folders, name, way, capsys):
    status, text = said(capsys, "generate", folders / name, "--prompt", "loop", "--max_new_tokens", "3", *way)
    assert status == 0 and text.count("note: the logits are all alike") == 1


def test_an_error_stands_below_the_prompt(folders, capsys):
    words = ["generate", str(folders / "too large for a step"), "--prompt", "loop", "--max_new_tokens", "3"]
    assert main(words) == 2
    assert capsys.readouterr().out == "loop\n"


@pytest.mark.parametrize("name", FACTORS)
def test_exits_that_say_nothing_are_told(folders, name, capsys):
    words = [folders / name, f"--corpus={folders / 'text.txt'}", "--sequence_length=8", "--windows=3", "--repeats=1"]
    status, text = said(capsys, "evaluate", *words, "--max_loops=3")
    assert status == 0
    assert ("every window costs the same" in text) == (name != "too large for a step")
    assert ("the norm of the state is not finite" in text) == (name != "nothing")
    assert ("nothing can be compared with it" in text) == (name == "too large for a step")
    assert "stay within" not in text


@pytest.mark.parametrize("name", FACTORS)
def test_a_lens_and_an_audit_of_nothing_say_so(folders, name, capsys):
    status, text = said(capsys, "lens", folders / name, "--text=loops", f"--out={folders / 'lens.html'}")
    if name == "nothing":
        assert status == 0 and "at exit 1, 2, 3 all tokens are equally likely" in text
    else:
        assert status == 2 and "state after loop 1, or the sum of its squares, is not finite" in text
    words = [folders / name, f"--corpus={folders / 'text.txt'}", "--sequence_length=8", "--windows=1"]
    status, text = said(capsys, "audit", *words)
    assert status == 2 and text.endswith(".")


def test_a_model_without_a_cache_says_it_too():
    model, ids = tiny_model(), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        model.get_input_embeddings().weight.zero_()
    with pytest.warns(UserWarning, match="all alike"):
        list(stream_plainly(model, ids, 2))
    with torch.no_grad():
        model.get_input_embeddings().weight.fill_(torch.nan)
    with pytest.raises(InputError, match="not finite"):
        list(stream_plainly(model, ids, 2))


def test_a_model_that_speaks_is_not_warned_of(recwarn):
    full_depth_generate(tiny_model(), torch.tensor([[1, 2, 3]]), 2)
    list(stream_plainly(tiny_model(), torch.tensor([[1, 2, 3]]), 2))
    assert not recwarn.list


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_a_state_that_nears_the_end_of_its_numbers_is_told(dtype):
    model = tiny_model(tie_word_embeddings=False).to(dtype)
    batches = [torch.randint(31, (2, 9))]
    usual = depth_curve(model, batches, 3)
    assert float(usual.fill.max()) < 0.01 and "room" not in safe_sentence(usual)
    with torch.no_grad():
        model.get_input_embeddings().weight.mul_(0.5 / float(usual.fill[0]))
    told = safe_sentence(depth_curve(model, batches, 3))
    assert "From exit 1 on the largest number of the state takes" in told
    assert "not finite" not in told
