"""Numbers as text: significant digits, thousands separators, mean and spread, and what is not finite said.

One format, so that a figure reads the same in a table, a page and a terminal.
"""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

DIGITS = 4
TINY = 1e-4  # below, zeros would hide the digits
NOTHING = "–"
LEVELS = "▁▂▃▄▅▆▇█"
SMALL = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")
NOT_FINITE = "not finite"


def number(value: float | None, digits: int = DIGITS) -> str:
    """Return `value` with that many significant digits and thousands separators, or that it is not finite.

    None is what JSON holds for a number that is not finite.
    """
    return _significant(value, value, digits) if value is not None and math.isfinite(value) else NOT_FINITE


def signed(value: float | None, digits: int = DIGITS) -> str:
    """Return `number` with its sign, a plus too."""
    return f"{'+' if value is not None and math.isfinite(value) and value >= 0 else ''}{number(value, digits)}"


def fixed(value: float | None, decimals: int) -> str:
    """Return `value` with that many decimals, or that it is not finite."""
    return f"{value:,.{decimals}f}" if value is not None and math.isfinite(value) else NOT_FINITE


def percent(share: float | None, decimals: int = 0) -> str:
    """Return a share in percent, or that it is not finite."""
    return f"{share:.{decimals}%}" if share is not None and math.isfinite(share) else NOT_FINITE


def mean_and_spread(values: Sequence[float | None]) -> str:
    """Return 'mean ± sample standard deviation' of one value per seed, or the value itself of a single seed.

    Values that are not finite stay out of the mean and are counted beside it. A dash where there are none.
    """
    finite = [value for value in values if value is not None and math.isfinite(value)]
    if not values:
        return NOTHING
    if not finite:
        return NOT_FINITE
    mean = fmean(finite)
    text = _significant(mean, mean)
    if len(finite) > 1:
        text += f" ± {_significant(stdev(finite), mean)}"
    lost = len(values) - len(finite)
    return f"{text} ({lost} of {len(values)} {NOT_FINITE})" if lost else text


def sparkline(values: Sequence[float | None], longest: int = 16) -> str:
    """Return the latest values as one character each, from the lowest to the highest; what is not finite is a `!`."""
    latest = values[-longest:]
    finite = [value for value in latest if value is not None and math.isfinite(value)]
    low, high = (min(finite), max(finite)) if finite else (0.0, 0.0)
    span = (high - low) or 1.0
    return "".join(
        LEVELS[round((value - low) / span * (len(LEVELS) - 1))] if value is not None and math.isfinite(value) else "!"
        for value in latest
    )


def subscript(whole: int) -> str:
    """Return a whole number in small digits below the line."""
    return str(whole).translate(SMALL)


def duration(seconds: float) -> str:
    """Return a time in words of at most two units: 45 s, 3 min, 2 h 5 min."""
    if not math.isfinite(seconds):
        return "unknown"
    if seconds < 90:
        return f"{max(seconds, 0):.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _significant(value: float, reference: float, digits: int = DIGITS) -> str:
    """Format `value` with the decimals that give `reference` its significant digits."""
    if abs(reference) >= 1e6 or 0 < abs(reference) < TINY:
        return f"{value:.{min(digits - 1, 2)}e}".replace("e+0", "e").replace("e+", "e").replace("e-0", "e-")
    magnitude = math.floor(math.log10(abs(reference))) if reference else 0
    return f"{value:,.{min(max(digits - 1 - magnitude, 0), 6)}f}"
