import json
import math

import pytest
import torch

from loopscale.cli.main import main
from loopscale.errors import InputError
from loopscale.evaluate import available, depth_curve, in_precision, measure_precisions
from loopscale.evaluate import fewer_bits as module
from tests.helpers import tiny_model

WHOLE = ("int8", "int4")


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return tiny_model(hidden_size=32, intermediate_size=64)


@pytest.fixture(scope="module")
def windows():
    return [torch.randint(31, (3, 17), generator=torch.Generator().manual_seed(0))]


def needs_torchao():
    pytest.importorskip("torchao", reason="weights in 8 and 4 bits need torchao: pip install 'loopscale[quant]'")


def test_halves_round_and_the_model_stays(model, windows):
    before = [weight.clone() for weight in model.parameters()]
    full, bf16, fp16 = measure_precisions(model, windows, ["bf16", "float32", "fp16"])
    assert [full.precision, bf16.precision, fp16.precision] == ["float32", "bfloat16", "float16"]
    assert full.state_error == (0.0,) * 3 and full.relative_perplexity == (1.0,) * 3 and full.tokens == 48
    assert full.perplexity == tuple(point.perplexity for point in depth_curve(model, windows, 3))
    # rounding steps of the two: 2^-8 and 2^-11
    assert all(8e-4 < error < 2e-2 for error in bf16.state_error)
    assert all(a / 16 < b < a / 4 for a, b in zip(bf16.state_error, fp16.state_error, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert model.dtype == torch.float32


def test_a_state_that_overflows_is_counted_and_left_out(windows):
    loud = tiny_model()
    with torch.no_grad():
        loud.model.layers[1].mlp.down_proj.weight.mul_(1e8)
    _, fp16 = measure_precisions(loud, windows, ["float16"])
    assert fp16.not_finite[-1] > 0 and all(error != math.inf for error in fp16.state_error)


def test_the_state_of_every_loop_is_held_against_the_same_loop(model, windows):
    _, bf16 = measure_precisions(model, windows, ["bf16"], max_loops=5)
    changed = in_precision(model, "bf16")
    ids = windows[0][:, :-1]
    with torch.no_grad():
        pairs = zip(*(one(ids, num_loops=5, output_states=True).states for one in (model, changed)), strict=True)
        errors = [((b.float() - a).norm(dim=-1) / a.norm(dim=-1)).mean().item() for a, b in pairs]
    torch.testing.assert_close(torch.tensor(bf16.state_error), torch.tensor(errors), rtol=1e-4, atol=1e-6)


def test_whole_numbers_round_weights_as_their_names_say(model, windows):
    needs_torchao()
    _, eight, four = measure_precisions(model, windows, WHOLE)
    assert all(1e-4 < a < b / 4 < 0.2 for a, b in zip(eight.state_error, four.state_error, strict=True))
    weight = model.model.layers[0].mlp.down_proj.weight  # (32, 64)
    for name, columns, levels in (("int8", 64, 127), ("int4", 32, 7)):
        rounded = in_precision(model, name).model.layers[0].mlp.down_proj.weight.dequantize()
        step = weight.reshape(32, -1, columns).abs().amax(-1, keepdim=True) / (levels + (name == "int4") * 0.5)
        assert ((rounded - weight).reshape(32, -1, columns).abs() <= 0.501 * step * 1.01).all()
        assert len(rounded[0, :columns].unique()) <= 2 * levels + 2
    assert in_precision(model, "int4").model.embed_tokens.weight.equal(model.model.embed_tokens.weight)
    with pytest.raises(InputError, match=r"groups of 32, and .* has 16 columns"):
        in_precision(tiny_model(), "int4")


def test_what_cannot_be_had_is_told(model, monkeypatch):
    with pytest.raises(InputError, match="unknown precision 'int9'"):
        in_precision(model, "int9")
    monkeypatch.setattr(module, "find_spec", lambda name: None)
    assert available(["float16", *WHOLE]) == ("float16",)
    with pytest.raises(InputError, match=r"int8 needs torchao: pip install 'loopscale\[quant\]'"):
        in_precision(model, "int8")


def test_the_command_adds_a_table(tmp_path, capsys, unchecked_shapes):
    tiny = ["--corpus", str(tmp_path / "text.txt"), "--tokenizer", "bytes", "--sequence_length", "8"]
    (tmp_path / "text.txt").write_text("the loops of the loops\n" * 40)
    tiny_model(vocab_size=256).save_pretrained(tmp_path / "m")
    options = [
        "--windows",
        "2",
        "--repeats",
        "1",
        "--speed_batch_sizes",
        "1",
        "--max_loops",
        "1",
        "--precision",
        "bf16",
        "--json",
        str(tmp_path / "out.json"),
    ]
    assert main(["evaluate", str(tmp_path / "m"), *tiny, *options]) == 0
    assert "in other precisions" in capsys.readouterr().out
    (found,) = json.loads((tmp_path / "out.json").read_text())["models"].values()
    assert [entry["precision"] for entry in found["precision"]] == ["float32", "bfloat16"]
    assert main(["evaluate", str(tmp_path / "m"), *tiny, "--precision", "bf61"]) == 2
