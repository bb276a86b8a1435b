"""Which of the candidates that keep all limits is wanted."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Objective:
    """The weighted geometric mean of how many times as fast and how many times as small as the baseline a candidate is,
    with these weights. The largest mean wins; among those that the noise of the times does not tell apart, the smallest
    file."""

    speed: float = 1.0
    size: float = 0.0

    def cost(self, p50_ms: float, size_bytes: float) -> float:
        """Minus the logarithm of that mean, but for a constant: the baseline is the same for all. Infinite where what
        counts was not measured."""
        terms = ((self.speed, p50_ms), (self.size, size_bytes))
        return sum(weight * math.log(value) for weight, value in terms if weight) / (self.speed + self.size)

    @property
    def name(self) -> str:
        """As a recipe has it, where it is one of the named ones; otherwise empty."""
        return next((name for name, one in NAMED.items() if one == self), "")

    @property
    def setting(self) -> str | dict[str, float]:
        """The value of the recipe's key `objective`."""
        return self.name or {"speed": self.speed, "size": self.size}

    def describe(self) -> str:
        """In words, for a report."""
        if self.name:
            return f"the {self.name}"
        return (
            f"the one with the best weighted geometric mean of speed (weight {self.speed:g}) and size (weight "
            f"{self.size:g})"
        )


FASTEST, SMALLEST = Objective(1.0, 0.0), Objective(0.0, 1.0)
NAMED = {"fastest": FASTEST, "smallest": SMALLEST}
"""Names of `objective` in a recipe."""
EXPECTED = '"fastest", "smallest" or weights such as {speed = 0.7, size = 0.3}'
