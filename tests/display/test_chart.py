import math

import pytest

from loopscale.display import Axis, Chart, Panel, Rule, Series, Style, Zone, plot, remarks
from loopscale.display.scale import scale_of, tick_words

INK = Style("#000000")


def chart(*series, **facts):
    return Chart((Panel(**{"x": Axis("x"), "y": Axis("y"), **facts}, series=tuple(series)),))


def test_a_point_is_drawn_beyond_or_lost():
    panel = Panel(Axis("x"), Axis("y", log=True, end=10.0), ())
    series = Series("a", (1, 2, 3, 4, 5), (1.0, 11.0, 0.0, math.nan, math.inf), INK)
    assert [state for _, _, state in panel.points(series)] == ["drawn", "beyond", "lost", "lost", "lost"]


@pytest.mark.parametrize("log", [True, False])
@pytest.mark.parametrize("falling", [True, False])
def test_a_scale_holds_what_can_be_drawn(log, falling):
    series = Series("a", (1, 2, 3), (1.0, 500.0, 1e30), INK)
    (panel,) = chart(series, y=Axis("y", log=log, falling=falling, end=1e3)).panels
    scale = scale_of(panel, "y")
    places = [scale.at(value) for value in (1.0, 500.0)]
    assert all(0 < place < 1 for place in places) and (places[0] > places[1]) == falling
    assert scale.ticks and all(0 <= scale.at(value) <= 1 for value, _ in scale.ticks)
    assert not 0 <= scale.at(1e30) <= 1


def test_rows_and_counts_have_their_own_ticks():
    rows = Axis("", names=("one", "two"))
    (panel,) = chart(Series("a", (1, 2), (0, 1), INK), x=Axis("exit", whole=True), y=rows).panels
    assert scale_of(panel, "y").ticks == ((0, "one"), (1, "two"))
    assert [words for _, words in scale_of(panel, "x").ticks] == ["1", "2"]


@pytest.mark.parametrize(
    ("value", "words"), [(0, "0"), (0.5, "0.5"), (1000, "1,000"), (2e6, "2e6"), (1e-5, "1e-5"), (-3, "-3")]
)
def test_ticks_read_as_numbers_do(value, words):
    assert tick_words(value) == words


def test_what_is_left_out_is_told_by_name_while_few():
    far = [Series(f"s{i}", (1, 2), (1.0, 20.0 + i), INK) for i in range(5)]
    assert remarks(chart(*far[:1], y=Axis("y", end=10))) == "Arrows: beyond the axis, s0 at 1 point, up to 20.00."
    assert (
        remarks(chart(*far, y=Axis("y", end=10))) == "Arrows: beyond the axis, 5 of 5 lines at 5 points, up to 24.00."
    )
    assert remarks(chart(*far)) == ""
    lost = Series("s", (1, 2, 3), (1.0, 0.0, math.nan), INK)
    assert remarks(chart(lost, y=Axis("y", log=True))) == (
        "Crosses: not finite beside them, s at 1 point. "
        "Crosses: not above 0, where the axis is logarithmic, beside them, s at 1 point."
    )


def test_a_plot_shows_what_the_chart_says():
    series = Series("a", (1, 2, 3), (1.0, 2.0, 99.0), INK, "o", hollow=frozenset({1}), words=("x", "y", "z"))
    marks = Series("b", (1,), (2.0,), INK, "s", marks_only=True, reach_x=((0.5, 1.5),), reach_y=((1.5, 2.5),))
    shown = chart(
        series, marks, y=Axis("y", end=10.0), rules=(Rule("x", 2, "here"), Rule("y", 1.5)), zones=(Zone(words="all"),)
    )
    figure = plot(shown)
    (axes,) = figure.axes
    assert axes.get_ylim()[1] < 10 and [text.get_text() for text in axes.texts] == ["x", "y", " all", "here", ""]
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["a", "b"]
    arrows = [line for line in axes.get_lines() if line.get_marker() == "^"]
    assert len(arrows) == 1 and "beyond the axis" in figure.get_supxlabel()
