"""Looped models that are transformers' own classes: HRM-Text and Inkling-2."""

import json
from typing import Any

import pytest
import torch

from loopscale import InputError, run_loops
from loopscale.adapters import HrmText, Inkling, LiveLoop, stream_plainly
from loopscale.audit import audit, search, within
from loopscale.audit import scale as scale_of_state
from loopscale.evaluate import depth_curve
from loopscale.load import load_model, require_native
from loopscale.monitor import watch
from loopscale.objective import Terminal
from tests.adapters.tiny import INKLING_BLOCKS, VOCAB, tiny_hrm, tiny_inkling

KINDS: dict[str, tuple[Any, type[LiveLoop], str]] = {
    "hrm": (tiny_hrm, HrmText, "H_cycles"),
    "inkling": (tiny_inkling, Inkling, "loop_num_passes"),
}
IDS = torch.randint(0, VOCAB, (2, 11), generator=torch.Generator().manual_seed(1))
BATCHES = [torch.randint(0, VOCAB, (2, 10), generator=torch.Generator().manual_seed(2))]


@pytest.fixture(scope="module", params=KINDS)
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def whole(kind):
    return KINDS[kind][0]()


@pytest.fixture(scope="module")
def adapter(kind, whole):
    return KINDS[kind][1](whole)


@pytest.fixture(scope="module")
def report(adapter):
    return audit(adapter, BATCHES)


def test_every_exit_is_the_whole_model_of_that_depth(kind, whole, adapter):
    make, _, field = KINDS[kind]
    context = adapter.context(IDS)
    with torch.no_grad():
        for k, z in enumerate(run_loops(adapter, IDS, 4)):  # one more than trained
            other = make(**{field: k + 1})
            other.load_state_dict(whole.state_dict())
            torch.testing.assert_close(adapter.readout(z, k, context), other(IDS).logits)


def test_blocks_of_several_layers_are_followed():
    whole = tiny_inkling(**INKLING_BLOCKS)
    adapter = Inkling(whole)
    with torch.no_grad():
        *_, z = run_loops(adapter, IDS)
        torch.testing.assert_close(adapter.readout(z, 2, adapter.context(IDS)), whole(IDS).logits)


def test_padding_on_either_side_is_honoured(kind, whole, adapter):
    mask = torch.ones_like(IDS)
    mask[0, :4] = mask[1, -2:] = 0
    options = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if kind == "hrm" else {}
    context = adapter.context(IDS, mask)
    with torch.no_grad():
        h = adapter.embed(IDS, context)
        for k in range(adapter.num_loops):
            z = adapter.step(h, k, context)
            h = adapter.carry(z, k, context)
        logits = adapter.readout(z, k, context)
        expected = whole(IDS, attention_mask=mask, **options).logits
        torch.testing.assert_close(logits[mask.bool()], expected[mask.bool()], atol=1e-5, rtol=1e-4)
        one = context.rows(torch.tensor([0]))
        torch.testing.assert_close(adapter.readout(z[:1], k, one), logits[:1])


def test_padded_prompts_are_written_on_as_bare_ones(adapter):
    prompts = IDS[:, :6].clone()
    mask = torch.ones_like(prompts)
    mask[0, :3] = 0
    both = torch.stack(list(stream_plainly(adapter, prompts, 4, attention_mask=mask)), 1)
    bare = torch.cat(list(stream_plainly(adapter, prompts[:1, 3:], 4)))
    assert torch.equal(both[0], bare)


def test_masks_that_cannot_be_honoured_are_told(adapter):
    holed = torch.ones_like(IDS)
    holed[0, 4] = 0
    with pytest.raises(InputError, match="the attention_mask has holes"):
        adapter.context(IDS, holed)
    with pytest.raises(InputError, match="is not one of tokens"):
        adapter.context(IDS, holed[:, 1:])
    with pytest.raises(InputError, match="padded on their right"):
        next(stream_plainly(adapter, IDS, 1, attention_mask=torch.ones_like(IDS).index_fill(1, torch.tensor(10), 0)))


def test_scale_of_every_part_is_removed_by_architecture(adapter, report):
    assert adapter.supervision == Terminal() and report.supervised_loops == (3,)
    for part in adapter.parts:
        found = report.coordinates[f"scale[{part}]"]
        assert found.verdict == "removed" and max(found.visibility) < 1e-5
    assert report.coordinates["scale"].verdict == "removed"


def test_a_part_that_no_exit_reads_is_named(kind, report):
    said = [note for note in report.notes if "no exit reads" in note]
    assert said == (
        ["no exit reads the part 'low': what it holds is felt in the next loop alone"] if kind == "hrm" else []
    )
    assert all(x == 0 for x in report.coordinates["mean[low]"].visibility) if kind == "hrm" else True


def test_the_monitor_reads_the_states_that_an_audit_does(kind, whole, adapter):
    name, part = {"hrm": ("H_module.layers.0", "high"), "inkling": ("model.layers.2", "block 2")}[kind]
    with torch.no_grad():
        scales = [scale_of_state.value(z[..., adapter.parts[part]]).mean() for z in run_loops(adapter, IDS)]
    told: dict[str, float] = {}
    watching = watch(whole.train(), state=name, every=1, log=lambda scalars, step: told.update(scalars))
    whole(IDS, labels=IDS).loss.backward()
    watching.step()
    watching.close()
    whole.zero_grad()
    whole.eval()
    torch.testing.assert_close([told[f"loop/scale/{k}"] for k in (1, 2, 3)], [float(s) for s in scales])


def test_the_other_measurements_run(adapter):
    assert len(depth_curve(adapter, BATCHES, 4)) == 4
    assert search(adapter, BATCHES * 2).directions


def test_a_saved_folder_loads_by_its_type(kind, whole, adapter, tmp_path):
    whole.save_pretrained(tmp_path)
    loaded: Any = load_model(str(tmp_path), num_loops=2)
    assert type(loaded) is type(adapter) and (loaded.num_loops, loaded.trained_loops) == (2, 3)
    context = adapter.context(IDS)
    with torch.no_grad():
        *_, z = run_loops(adapter, IDS, 2)
        *_, again = run_loops(loaded, IDS)
    torch.testing.assert_close(again, z)
    assert context.tokens is IDS
    with pytest.raises(InputError, match=f"speculation needs a native model, and {adapter.family}"):
        require_native(loaded, "speculation")


def test_a_folder_that_is_not_whole_is_told(whole, kind, tmp_path):
    whole.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    field = "intermediate_size" if kind == "hrm" else "moe_intermediate_size"
    (tmp_path / "config.json").write_text(json.dumps({**config, field: 8}))
    with pytest.raises(InputError, match=r"is not whole: weight .* has shape"):
        load_model(str(tmp_path))
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(InputError, match="cannot be read"):
        load_model(str(tmp_path))


def test_verbs_without_their_context_are_told(adapter):
    with pytest.raises(InputError, match=rf"{adapter.family} {adapter.reads}: make context"):
        adapter.step(torch.zeros(1, 2, 32), 0)


def test_a_part_moves_alone():
    z = torch.randn(2, 3, 8)
    part = within(scale_of_state, "second", slice(4, 8))
    assert (part.name, part.unit, part.positive) == ("scale[second]", "e-fold", True)
    torch.testing.assert_close(part.value(z), scale_of_state.value(z[..., 4:]))
    assert torch.equal(part.tangent(z)[..., 4:], z[..., 4:]) and not part.tangent(z)[..., :4].any()
    with pytest.raises(InputError, match="needs a coordinate and a slice"):
        within(scale_of_state, "second", 4)
