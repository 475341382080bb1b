"""The report: its figures, its form, and what it is measured on."""

import json
from dataclasses import dataclass

import pytest
import torch

from loopscale import InputError, run_loops
from loopscale.audit import Coordinate, Thresholds, audit, direction, scale, unembedding_null
from loopscale.audit.measurement.streams import Sample
from tests.helpers import tiny_model


def batches(count=2, rows=2, seq=17, vocab=31):
    return [torch.randint(0, vocab, (rows, seq)) for _ in range(count)]


def test_the_report_has_one_value_per_loop_and_is_json():
    report = audit(tiny_model(), batches())
    assert set(report.coordinates) == {"scale", "mean", "unembedding_null"}
    for coordinate in report.coordinates.values():
        for values in (coordinate.visibility, coordinate.retention, coordinate.value, coordinate.drift):
            assert len(values) == 3
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert document["coordinates"]["scale"]["verdict"] == "blind_spot"
    assert document["blind_spots"] == ["scale"]
    assert document["tokens"] == 2 * 2 * 16
    assert document["thresholds"] == {"visible": 1e-3, "retained": 0.1}


def test_scale_statistics_and_losses_are_those_of_the_model():
    model, data = tiny_model(), batches()
    report = audit(model, iter(data))
    norms, losses = [], []
    with torch.no_grad():
        for ids in data:
            norms.append(torch.stack([z.norm(dim=-1) for z in run_loops(model, ids[:, :-1])]))
            losses.append(model(ids[:, :-1], shift_labels=ids[:, 1:]).loop_losses.mean(0))
    norms = torch.cat(norms, dim=1).flatten(1)
    assert report.cross_entropy == pytest.approx(torch.stack(losses).mean(0).tolist(), rel=1e-5)
    for stats, values in zip(report.scale, norms, strict=True):
        assert stats.norm == pytest.approx(float(values.mean()), rel=1e-5)
        assert stats.scale == pytest.approx(float(values.mean()) / 16**0.5, rel=1e-5)
        expected = [float(values.quantile(q)) for q in (0.5, 0.99, 1.0)]
        assert [stats.norm_median, stats.norm_p99, stats.norm_max] == pytest.approx(expected, rel=1e-5)
    drift = (norms[1:] / norms[:-1]).log().mean(1).tolist()
    assert report.coordinates["scale"].drift[:2] == pytest.approx(drift, rel=1e-4)


def test_ignored_labels_do_not_count():
    data = batches(1)[0]
    data[0, 5:] = -100
    inputs = data.clamp_min(0)

    class Masked:
        """A model that reads a token where the batch has an ignored label."""

        model = tiny_model()
        num_loops, step, carry, readout = model.num_loops, model.step, model.carry, model.readout

        def embed(self, input_ids):
            return self.model.embed(input_ids.clamp_min(0))

    report = audit(Masked(), [data])
    assert report.tokens == 4 + 16
    alone = audit(tiny_model(), [inputs[:, :]])
    assert alone.tokens == 32


def test_the_batch_size_does_not_matter():
    model, rows = tiny_model().double(), torch.randint(0, 31, (4, 17))
    whole, parts = audit(model, [rows]), audit(model, rows.split(1))
    for name, coordinate in whole.coordinates.items():
        other = parts.coordinates[name]
        assert other.visibility == pytest.approx(coordinate.visibility, rel=1e-5, abs=1e-9)
        assert other.retention == pytest.approx(coordinate.retention, rel=1e-9)


def test_the_model_is_left_as_it_was():
    model = tiny_model(dropout=0.5).train()
    audit(model, batches(1))
    assert model.training and all(p.grad is None for p in model.parameters())


def test_an_own_coordinate_takes_a_few_lines():
    @dataclass(frozen=True)
    class FirstChannel(Coordinate):
        name: str = "first channel"

        def value(self, z):
            return z[..., 0]

        def tangent(self, z):
            return torch.nn.functional.one_hot(torch.tensor(0), z.shape[-1]).to(z).expand_as(z)

    axis = direction(torch.eye(16)[0], "the same")
    found = audit(tiny_model(), batches(1), coordinates=[FirstChannel(), axis]).coordinates
    assert found["first channel"].retention == pytest.approx(found["the same"].retention)
    assert found["first channel"].visibility == pytest.approx(found["the same"].visibility)


def test_directions_that_the_head_ignores_are_found_and_the_penalty_sees_them():
    model = tiny_model(readout="raw")
    model.lm_head.weight = torch.nn.Parameter(model.lm_head.weight.detach().clone())
    with torch.no_grad():
        model.lm_head.weight[:, :3] = 0.7  # the same for every logit: nothing to a softmax
    null = unembedding_null(model.lm_head.weight)
    assert null.basis.shape == (16, 3)
    assert float(null.basis[3:].abs().max()) < 1e-6
    blind = audit(model, batches()).coordinates["unembedding_null"]
    assert blind.verdict == "blind_spot" and max(blind.visibility) < 1e-6
    model.config.norm_penalty_coef = 0.01
    seen = audit(model, batches()).coordinates["unembedding_null"]
    assert seen.seen_by == {"norm penalty": (1, 2, 3)}


def test_thresholds_decide():
    model, data = tiny_model(readout="raw"), batches(1)
    assert audit(model, data).coordinates["scale"].verdict == "visible"
    blind = audit(model, data, thresholds=Thresholds(visible=0.99)).coordinates["scale"]
    assert blind.verdict == "blind_spot"
    gone = audit(model, data, thresholds=Thresholds(visible=0.99, retained=0.999)).coordinates["scale"]
    assert gone.verdict == "removed"
    with pytest.raises(InputError, match="between 0 and 1"):
        Thresholds(visible=0.0)


@pytest.mark.parametrize(
    "bad, sentence",
    [
        ([], "no batches"),
        ([torch.rand(2, 9)], "LongTensor"),
        ([torch.zeros(2, 1, dtype=torch.long)], "at least 2 tokens"),
        ([torch.zeros(9, dtype=torch.long)], "LongTensor"),
        ([[1, 2, 3]], "got list"),
        ([torch.full((1, 9), 31)], "ids from 31 to 31, and the model knows those from 0 to 30"),
        ([torch.cat([torch.zeros(1, 8, dtype=torch.long), torch.full((1, 1), 40)], 1)], "ids from 0 to 40"),
        ([torch.zeros(1, 60, dtype=torch.long)], "48 positions"),
    ],
)
def test_bad_batches_are_named(bad, sentence):
    with pytest.raises(InputError, match=sentence):
        audit(tiny_model(), bad)


def test_bad_arguments_are_named():
    with pytest.raises(InputError, match="did you mean 'per_loop'"):
        audit(tiny_model(), batches(1), supervision="per_lop")
    with pytest.raises(InputError, match="at least one"):
        audit(tiny_model(), batches(1), coordinates=[])
    with pytest.raises(InputError, match="2 entries for 3 loops"):
        audit(tiny_model(), batches(1), loop_weights=[1.0, 1.0])
    with pytest.raises(InputError, match="non-zero vector"):
        direction(torch.zeros(4))


class Shapeless(Coordinate):
    name = "shapeless"

    def value(self, z):
        return z.mean()

    def tangent(self, z):
        return z


@pytest.mark.parametrize(
    "coordinates, sentence",
    [
        ([direction(torch.ones(16)), direction(torch.eye(16)[0])], "two coordinates are called 'direction'"),
        ([direction(torch.ones(8), "short")], "'short' failed on a state"),
        ([Shapeless()], r"'shapeless' gave a value \(\)"),
        (["scale"], "'scale' is no coordinate"),
    ],
)
def test_bad_coordinates_are_named(coordinates, sentence):
    with pytest.raises(InputError, match=sentence):
        audit(tiny_model(), batches(1), coordinates=coordinates)


def test_a_state_that_overflows_is_named():
    model = tiny_model()
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(3e38)
    with pytest.raises(InputError, match="not finite"):
        audit(model, batches(1))


def test_a_sample_is_the_whole_stream_while_it_fits_and_fair_beyond():
    whole, part = Sample(), Sample(capacity=2000)
    for start in range(0, 20_000, 1000):
        values = torch.arange(start, start + 1000).double()
        whole.add(values)
        part.add(values)
    assert whole.quantile(0.5) == 9999.5 and whole.quantile(1.0) == 19_999
    assert part.quantile(0.5) == pytest.approx(10_000, rel=0.1)


def test_scale_moves_by_its_tangent():
    z = torch.randn(2, 3, 16)
    torch.testing.assert_close(scale.value(z + 0.1 * scale.tangent(z)), 1.1 * scale.value(z))
