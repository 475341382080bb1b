"""Topics of the report, in the order of their claims. A further subject is one module and its line here."""

from ..topic import Topic
from . import audit, depth, exits, growth, halting, looping, norms, rates, training, worth
from .ways import control, disputed, ranking

TOPICS: tuple[Topic, ...] = (
    norms.TOPIC,
    training.TOPIC,
    exits.TOPIC,
    rates.TOPIC,
    depth.TOPIC,
    looping.TOPIC,
    worth.TOPIC,
    audit.TOPIC,
    growth.TOPIC,
    halting.TOPIC,
    control.TOPIC,
    ranking.TOPIC,
    disputed.TOPIC,
)
