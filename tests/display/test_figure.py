import math
import xml.etree.ElementTree as ET

import pytest
from matplotlib.figure import Figure

from loopscale.display import draw_label, file_name, fresh_styles, readable_top, styled, write_figure


@styled
def drawn(label="a", values=(1.0, 2.0)):
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.add_subplot()
    axes.plot(values, label=draw_label(label))
    axes.legend()
    return figure


def test_files_are_whole_and_equal_from_equal_data(tmp_path):
    for name in ("one", "two.5"):
        assert ET.fromstring(write_figure(drawn(), tmp_path / "new" / name)).tag.endswith("svg")
    assert sorted(p.name for p in (tmp_path / "new").iterdir()) == ["one.png", "one.svg", "two.5.png", "two.5.svg"]
    for kind in ("png", "svg"):
        one, two = ((tmp_path / "new" / f"{name}.{kind}").read_bytes() for name in ("one", "two.5"))
        assert one == two
    assert (tmp_path / "new" / "one.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["$x", "a$b$c\\frac", "_hidden", "a\nb", "\x1b[31m", "<b>&", "模型", "%s {0}"])
def test_any_name_is_a_label(tmp_path, name):
    figure = drawn(name)
    assert len(figure.axes[0].get_legend_handles_labels()[1]) == 1
    write_figure(figure, tmp_path / "a")


@pytest.mark.parametrize("values", [(math.nan, math.nan), (math.inf, 1.0), ()])
def test_what_is_not_finite_is_drawn(tmp_path, values):
    write_figure(drawn(values=values), tmp_path / "a")


def test_roles_share_a_colour_and_every_other_one_has_its_own():
    roles = {str(i): (i // 2, i % 2) for i in range(60)}
    styles = fresh_styles(roles)
    assert len({(style.colour, str(style.dashes)) for style in styles.values()}) == 60
    assert styles["0"].colour == styles["1"].colour != styles["2"].colour
    assert styles["0"].dashes == styles["2"].dashes != styles["1"].dashes


def test_an_explosion_does_not_set_the_scale():
    assert readable_top([[3.0, 2.0], [2e26, 1e27]], 10.0) == 20
    assert readable_top([[3.0, 2.0], [80.0, 90.0]], 10.0) == 800
    assert readable_top([[math.nan], [None, math.inf], []], 10.0) == math.inf
    assert readable_top([], 10.0) == math.inf


@pytest.mark.parametrize(
    ("name", "file"), [("a/b", "a-b"), ("../x", "-x"), ("a:b\n", "a-b-"), ("..", "-"), ("", "-"), ("v1.2_x", "v1.2_x")]
)
def test_a_file_leads_nowhere_else(name, file):
    assert file_name(name) == file
