"""Scale controller: holds the scale of the last loop at a target, by the coefficient of a penalty."""

import math
from dataclasses import dataclass
from typing import final


@final
@dataclass
class ScaleController:
    """Holds the scale of the last loop at `target` by the coefficient of one penalty, by its kind (`norm`, `anchor`).

    A proportional-integral rule in logarithms. At every reading a scale that is too large by a factor f multiplies the
    coefficient by f to the power `rate`, and one that has grown by a factor f since the last by f to the power `gain`.
    One reading changes it by a factor of `step` at most: early in training the scale swings by itself, and falls later
    under any penalty. The first reading, of weights that have not been trained yet, changes nothing.
    """

    target: float
    initial: float = 0.01
    gain: float = 0.5
    rate: float = 1.0
    step: float = 2.0
    smallest: float = 1e-6
    largest: float = 10.0
    penalty: str = "norm"
    _coefficient: float | None = None
    _error: float = 0.0

    @property
    def figure(self) -> str:
        """The name under which the coefficient is logged."""
        return f"{self.penalty}_penalty_coef"

    def start(self) -> float:
        """Forget earlier readings and return the coefficient to begin with."""
        self._coefficient, self._error = None, 0.0
        return self.initial

    def update(self, measured: float) -> float:
        """Return the coefficient to train with from now on; a reading that is no length changes nothing."""
        if not 0 < measured < math.inf:
            return self.initial if self._coefficient is None else self._coefficient
        error = math.log(measured / self.target)
        if self._coefficient is None:
            self._coefficient = self.initial
        else:
            change = self.gain * (error - self._error) + self.rate * error
            limit = math.log(self.step)
            proposed = self._coefficient * math.exp(min(max(change, -limit), limit))
            self._coefficient = min(max(proposed, self.smallest), self.largest)
        self._error = error
        return self._coefficient
