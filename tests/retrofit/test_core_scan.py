import json

import pytest
import torch

from loopscale import InputError
from loopscale.cli.main import main
from loopscale.data import Corpus, load_tokenizer
from loopscale.display import to_markdown
from loopscale.evaluate import depth_curve
from loopscale.retrofit import Scan, default_cores, retrofit, scan_cores, scan_table
from loopscale.storage import read_json
from tests.retrofit.originals import LAYERS, original, prompts

BATCHES = [prompts(4, 20), prompts(3, 20)]


@pytest.fixture(scope="module")
def model():
    return original("qwen3")


def test_its_points_are_the_exits_of_retrofits(model):
    found = scan_cores(model, BATCHES, [(1, 3), (2, LAYERS)], loops=(3, 2))
    curve = depth_curve(retrofit(model, (2, LAYERS), 3), BATCHES, 3)
    plain = {point.loops: point for point in found.of_core((2, LAYERS)) if not point.damped}
    assert found.original == pytest.approx(curve[0].cross_entropy, abs=1e-6)
    for loops in (2, 3):
        assert plain[loops].cross_entropy == pytest.approx(curve[loops - 1].cross_entropy, abs=1e-6)
        above = curve[loops - 1].cross_entropy - curve[0].cross_entropy
        assert plain[loops].above_original == pytest.approx(above, abs=1e-6)
    assert found.tokens == sum(batch[:, 1:].numel() for batch in BATCHES)


@torch.no_grad()
def test_damped_loops_go_a_part_of_their_way(model):
    ids = BATCHES[0]
    by_hand = retrofit(model, (0, LAYERS), 1)
    context = by_hand.context(ids[:, :-1])
    h = by_hand.embed(ids[:, :-1], context)
    for _ in range(2):
        h = h + (by_hand.model.layers[0](h, 0, context)[0] - h) / 2
    for i in range(1, LAYERS):
        h = by_hand.model.layers[i](h, i, context)[0]
    logits = by_hand.readout(h, 0, context)
    expected = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
    only_first = scan_cores(model, BATCHES[:1], [(0, 1)], loops=(2,))
    assert only_first.points[1].cross_entropy == pytest.approx(float(expected), abs=1e-6)


def test_an_interrupted_scan_goes_on(model, tmp_path):
    file, cores = tmp_path / "scan.json", [(0, 2), (1, 3)]
    whole = scan_cores(model, BATCHES, cores, loops=(2,))

    def interrupted(sequence, description):
        yield sequence[0]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        scan_cores(model, BATCHES, cores, loops=(2,), file=file, track=interrupted)
    assert {point.first for point in read_json(file, Scan).points} == {0}
    left = []

    def counted(sequence, description):
        left.extend(sequence)
        return sequence

    again = scan_cores(model, BATCHES, cores, loops=(2,), file=file, track=counted)
    assert left == cores[1:]
    assert again.points == whole.points
    more = scan_cores(model, BATCHES, cores[:1], loops=(2, 3), file=file)
    assert {point.loops for point in more.of_core(cores[0])} == {2, 3}
    assert more.of_core(cores[1]) == whole.of_core(cores[1])
    with pytest.raises(InputError, match="another model or of other windows"):
        scan_cores(model, BATCHES[:1], cores, file=file)


def test_its_table_holds_every_core_and_marks_the_lowest(model):
    found = scan_cores(model, BATCHES, [(0, 2), (1, 3)], loops=(2,))
    text = to_markdown(scan_table(found))
    assert "| 0:2 | 2 |" in text
    assert "| 1:3 | 2 |" in text
    assert text.count("*") >= 2
    assert "2 damped" in text


def test_default_cores_lie_in_the_model():
    for layers in (1, 2, 5, 12, 30, 80):
        cores = default_cores(layers)
        assert cores
        assert all(0 <= first < last <= layers for first, last in cores)
        assert {first for first, _ in cores} >= {0}


@pytest.mark.parametrize(
    ("options", "told"), [({"cores": [(0, 99)]}, "range of the model's"), ({"loops": (1,)}, "2 on")]
)
def test_bad_input_is_a_sentence(model, options, told):
    with pytest.raises(InputError, match=told):
        scan_cores(model, BATCHES, **options)


def test_the_command_writes_figures_and_table(tmp_path, capsys):
    (tmp_path / "text.txt").write_text("a b c d " * 400)
    original().save_pretrained(tmp_path / "model")
    load_tokenizer("words", Corpus.of("text", ["a b c d"], ["a b"]), vocab_size=64).save_pretrained(tmp_path / "model")
    out, words = tmp_path / "scan", ["--corpus", str(tmp_path / "text.txt"), "--sequence_length", "8", "--windows", "4"]
    command = ["retrofit", str(tmp_path / "model"), str(out), "--scan", "--cores", "1:3", "--loops", "2", *words]
    assert main(command) == 0
    assert "Looping without training" in capsys.readouterr().out
    document = json.loads((out / "scan.json").read_text())
    assert document["measured_on"]["windows"] == 4
    assert document["measured_on"]["environment"]
    assert len(document["points"]) == 2
    assert "1:3" in (out / "scan.md").read_text()
    assert main([*command[:4], "--cores", "1-3", *words]) == 2
    assert main(["retrofit", str(tmp_path / "model"), str(out)]) == 2
    assert "--scan to find out" in capsys.readouterr().err
