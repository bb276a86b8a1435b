"""What an app does with a case, by thresholds on the score that its model gives it."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from featherweight.core.errors import DataError


@dataclass(frozen=True)
class Outcomes:
    """What an app does with a case, by thresholds on the raw score.

    names: of all outcomes, that of the lowest scores first; thresholds: raw scores, one fewer, rising: from each one on
    the next outcome holds. Two that are equal leave the outcome between them without cases. Raises DataError for
    thresholds that do not rise or do not fit the names.

    >>> Outcomes(("approve", "review", "decline"), (0.5, 2.0)).names
    ('approve', 'review', 'decline')
    """

    names: tuple[str, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        fits = len(self.thresholds) >= 1 and len(self.names) == len(self.thresholds) + 1
        if not fits or len(set(self.names)) < len(self.names):
            raise DataError(
                f"outcomes: found the names {', '.join(self.names)} and {len(self.thresholds)} thresholds, expected "
                "different names, one more than there are thresholds, of which there is at least one"
            )
        if any(not low <= high for low, high in itertools.pairwise(self.thresholds)) or any(
            map(math.isnan, self.thresholds)
        ):
            raise DataError(f"outcomes: found the thresholds {list(self.thresholds)}, expected rising ones")
