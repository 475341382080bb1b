import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.display import duration, mean_and_spread, number, percent, signed, sparkline


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.9712, "4.971"),
        (39207.4, "39,207"),
        (0.9155, "0.9155"),
        (12.0, "12.00"),
        (2.5e7, "2.50e7"),
        (-3.0, "-3.000"),
        (0.0, "0.000"),
        (math.nan, "not finite"),
        (math.inf, "not finite"),
    ],
)
def test_four_significant_digits(value, text):
    assert number(value) == text


def test_spread_is_the_sample_standard_deviation_in_the_decimals_of_the_mean():
    assert mean_and_spread([1.0, 2.0, 3.0]) == "2.000 ± 1.000"
    assert mean_and_spread([1000.0, 3000.0]) == "2,000 ± 1,414"


def test_one_seed_has_no_spread_and_none_has_no_value():
    assert mean_and_spread([2.0]) == "2.000"
    assert mean_and_spread([]) == "–"


def test_what_is_not_finite_is_counted_not_averaged():
    assert mean_and_spread([2.0, math.nan, 4.0]) == "3.000 ± 1.414 (1 of 3 not finite)"
    assert mean_and_spread([math.inf, math.nan]) == "not finite"


@given(st.floats(min_value=1e-3, max_value=1e300))
def test_a_number_reads_back_within_its_digits(value):
    assert float(number(value).replace(",", "")) == pytest.approx(value, rel=6e-3)


def test_signs_and_shares_say_what_is_not_finite():
    assert (signed(0.25, 2), signed(-3.0), signed(0.0, 2)) == ("+0.25", "-3.000", "+0.0")
    assert (percent(0.125, 1), percent(-0.5)) == ("12.5%", "-50%")
    assert {signed(math.nan), percent(None), percent(math.inf)} == {"not finite"}
    assert (number(None), number(1.234e-9, 2), number(5.0, 2)) == ("not finite", "1.2e-9", "5.0")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.2, "0 s"), (-1.0, "0 s"), (89.0, "89 s"), (100.0, "2 min"), (7500.0, "2 h 5 min"), (math.inf, "unknown")],
)
def test_a_time_in_words(seconds, words):
    assert duration(seconds) == words


def test_a_sparkline_goes_from_the_lowest_to_the_highest():
    assert sparkline([1.0, 2.0, 3.0]) == "▁▅█"
    assert sparkline([5.0, 5.0]) == "▁▁" and sparkline([]) == ""
    assert sparkline([1.0, None, math.inf, 2.0]) == "▁!!█"
    assert len(sparkline(list(map(float, range(99))))) == 16
