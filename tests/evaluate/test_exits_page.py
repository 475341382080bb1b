import pytest
import torch

from loopscale.display.page import PagePart
from loopscale.evaluate import DepthCurve, TokenFlops
from loopscale.evaluate.exits_page import exits_page, first_good, headline
from loopscale.evaluate.pareto import Measured


def measured(*losses, trained=2):
    tokens = torch.tensor([4.0, 4.0], dtype=torch.float64)
    sums = torch.tensor(losses, dtype=torch.float64)[:, None] * tokens
    curve = DepthCurve("trained", trained, sums, torch.ones_like(sums), tokens)
    return Measured(curve, TokenFlops(**dict.fromkeys(TokenFlops.__dataclass_fields__, 1.0)), ())


def test_the_first_exit_within_one_percent_is_named():
    one = measured(2.0, 1.005, 1.0)
    assert first_good(one) == 2
    found = headline({"m": one})
    assert found.answer == "Run m to exit 2."
    assert found.points == (("m", "exit 2 of 2 trained ones is the first within 1% of its best: 2.732."),)


def test_the_best_model_is_named_where_they_compare():
    models = {"a": measured(2.0, 1.5), "b": measured(1.2, 1.0)}
    assert headline(models).answer == "b is best: a perplexity of 2.718 at exit 2."
    apart = headline(models, comparable=False)
    assert apart.answer == "Run a to exit 2; run b to exit 2." and "do not compare" in apart.notes[0]


@pytest.mark.parametrize("lost", [float("nan"), float("inf")])
def test_a_model_without_a_finite_exit_is_told(lost):
    assert headline({"m": measured(lost, lost)}).answer == "No exit of any model has a finite perplexity."
    assert headline({"m": measured(lost, 1.0)}).answer == "Run m to exit 2."


def test_the_page_holds_its_parts_and_no_markup_of_names():
    name = "<b>m</b>"
    page = exits_page({name: measured(2.0, 1.0)}, [], [PagePart(name)], {"cpu": name}, {name: {"corpus": name}})
    assert "<b>m" not in page and page.count("&lt;b&gt;m") > 5 and page.count("<figure ") == 2


def test_the_perplexity_named_is_that_of_the_exit_named():
    models = {"a": measured(3.0, 2.305, 2.30, trained=3), "b": measured(5.0, 4.0, 4.0)}
    assert headline(models).answer == "a is best: a perplexity of 10.02 at exit 2."
    assert headline({"m": measured(3.0, 2.0, 1.0)}).points == (
        (
            "m",
            "exit 3 past the 2 trained ones is the first within 1% of its best: 2.718, for 140% of the operations "
            "of the trained depth.",
        ),
    )
