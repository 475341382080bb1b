"""Several seeds in one cell: four significant digits, mean and sample standard deviation, what is not finite
said.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

DIGITS = 4
TINY = 1e-4  # below, zeros would hide the digits


def number(value: float | None) -> str:
    """Return `value` with four significant digits and thousands separators, or that it is not finite (None in JSON)."""
    return _fixed(value, value) if value is not None and math.isfinite(value) else "not finite"


def mean_and_spread(values: Sequence[float]) -> str:
    """Return 'mean ± sample standard deviation' of one value per seed, or the value itself of a single seed.

    Values that are not finite stay out of the mean and are counted beside it.
    """
    finite = [value for value in values if math.isfinite(value)]
    if not values:
        return "–"
    if not finite:
        return number(values[0])
    mean = fmean(finite)
    text = _fixed(mean, mean)
    if len(finite) > 1:
        text += f" ± {_fixed(stdev(finite), mean)}"
    lost = len(values) - len(finite)
    return f"{text} ({lost} of {len(values)} not finite)" if lost else text


def _fixed(value: float, reference: float) -> str:
    """Format `value` with the decimals that give `reference` its significant digits."""
    if abs(reference) >= 1e6 or 0 < abs(reference) < TINY:
        return f"{value:.2e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    magnitude = math.floor(math.log10(abs(reference))) if reference else 0
    return f"{value:,.{min(max(DIGITS - 1 - magnitude, 0), 6)}f}"
