import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loopscale.study.summary import mean_and_spread, number


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
