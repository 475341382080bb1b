import pytest
import torch

from loopscale.study import TOPICS, judged
from loopscale.study.results import Failed
from loopscale.study.topics.audit import record_of
from tests.helpers import tiny_model


def test_every_name_stands_once():
    for names in (
        [topic.name for topic in TOPICS],
        [claim.id for topic in TOPICS for claim in topic.claims],
        [drawing.name for topic in TOPICS for drawing in topic.figures],
        [topic.place for topic in TOPICS],
    ):
        assert len(set(names)) == len(names)


def test_what_is_measured_is_what_is_read(records):
    for name, measured in records.items():
        for topic in TOPICS:
            assert (topic.record is None) == (topic.measure is None)
            assert (topic.name in measured) == (topic.record is not None), name
            assert not isinstance(measured.get(topic.name), Failed)


def test_a_topic_without_its_record_shows_nothing_and_claims_nothing(study):
    results = judged(study(conditions=()))
    assert {claim.verdict for claim in results.claims} == {"not tested here"}
    for topic in TOPICS:
        assert all(drawing.draw(results) is None for drawing in topic.figures)
        assert topic.sentence is None or topic.sentence(results) is None


def test_an_audit_is_recorded_whole():
    windows = [torch.randint(31, (4, 17), generator=torch.Generator().manual_seed(i)) for i in range(2)]
    record = record_of(tiny_model(), windows, curve_loops=12)
    assert record.verdicts["scale"] == "blind_spot"
    assert max(record.radial_gradient) < 1e-3 and len(record.retention) == 3
    assert record.lemma2.loops == 12 and record.lemma2.slope < 0
    assert record.remove_radial.cost[0] == pytest.approx(0, abs=1e-6)
    assert abs(record.remove_radial.cost[2]) > 0
    assert record.norms[0].norm_max >= record.norms[0].norm_p99
