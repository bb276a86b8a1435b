"""Platt scaling, as it is sealed and applied: once, for all apps. `core.calibration` fits it."""

from __future__ import annotations

import math
from typing import Annotated, Final, Literal

import msgspec
import numpy as np

from featherweight.core.arrays import Probabilities, Scores
from featherweight.core.errors import DataError

LARGEST_LOGIT: Final = 36.0
"""Log-odds are clipped to this: float64 tells the probability of 36 from one, and that of 37 no longer. So every
probability lies between 0 and 1, has its score, and is ordered as the scores are."""
LARGEST: Final = 1e9
"""No calibration of scores that mean anything is steeper, flatter or further away."""

Probability = Annotated[
    float, msgspec.Meta(gt=1 / (1 + math.exp(LARGEST_LOGIT)), lt=1 / (1 + math.exp(-LARGEST_LOGIT)))
]
"""A threshold: beyond these ends every score, or none, would reach it."""


class PlattScaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """probability = sigmoid(slope * score + intercept) (Platt, 1999). The apps' sealed `decision.json` adds to it what
    follows from a probability. The bounds are checked where a file is decoded."""

    version: Literal[1] = 1
    """Version of the file's form."""
    slope: Annotated[float, msgspec.Meta(ge=1 / LARGEST, le=LARGEST)]
    """Slope of the calibration."""
    intercept: Annotated[float, msgspec.Meta(ge=-LARGEST, le=LARGEST)]
    """Intercept of the calibration."""

    def probability(self, score: float) -> float:
        """Strictly between 0 and 1; NaN for a score that is not a number."""
        logit = max(min(self.slope * score + self.intercept, LARGEST_LOGIT), -LARGEST_LOGIT)
        return 1 / (1 + math.exp(-logit))

    def probabilities(self, scores: Scores) -> Probabilities:
        """`probability` of every score [N], to the last bit: numpy's own exponential rounds differently, and the
        evidence would disagree with the app."""
        return np.array([self.probability(score) for score in scores.tolist()], dtype=np.float64)

    def score_at(self, probability: float) -> float:
        """The lowest score whose probability is at least this one, to the last bit: a score reaches it if and only if
        its probability reaches `probability`, so that evidence, which compares scores, and apps, which compare
        probabilities, decide the same. Infinite where every score's does (minus), or none's. Raises DataError for what
        is not a probability."""
        if not 0 <= probability <= 1:
            raise DataError(f"a threshold of {probability} is not a probability; give a number from 0 to 1")
        if self.probability(-math.inf) >= probability:
            return -math.inf
        if self.probability(math.inf) < probability:
            return math.inf
        logit = math.log(probability / (1 - probability)) if probability < 1 else LARGEST_LOGIT
        low = high = (logit - self.intercept) / self.slope
        step = max(1 / self.slope, abs(low)) * 1e-15
        while self.probability(low) >= probability:
            low, step = low - step, 2 * step
        while self.probability(high) < probability:
            high, step = high + step, 2 * step
        while low < (middle := low + (high - low) / 2) < high:
            low, high = (low, middle) if self.probability(middle) >= probability else (middle, high)
        return high
