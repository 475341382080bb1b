from loopscale.study import TOPICS, judged
from loopscale.study.results import Failed


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
