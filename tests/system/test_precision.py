import math

from loopscale.system.precision import perplexity


def test_a_perplexity_overflows_to_infinity_and_keeps_what_is_no_number():
    assert (perplexity(0.0), perplexity(1e4), perplexity(math.inf)) == (1.0, math.inf, math.inf)
    assert math.isnan(perplexity(math.nan))
