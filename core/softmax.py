"""Probabilities of classes that exclude each other, as they are sealed and applied: temperature scaling (Guo et al.,
ICML 2017). `core.calibration` fits it."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
import numpy as np

from featherweight.core.arrays import Probabilities, Scores

LOWEST, HIGHEST = 1e-6, 1e6
"""No temperature of scores that mean anything lies beyond."""


def softmax(scores: Scores) -> Probabilities:
    """float64 [N, K] of scores [N, K]; each row adds up to 1."""
    grown = np.exp(scores - scores.max(axis=1, keepdims=True))
    return np.asarray(grown / grown.sum(axis=1, keepdims=True))


class TemperatureScaling(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """probabilities = softmax(scores / temperature): the largest score stays the largest probability."""

    version: Literal[1] = 1
    """Version of the file's form."""
    temperature: Annotated[float, msgspec.Meta(ge=LOWEST, le=HIGHEST)]
    """What the scores are divided by; above 1 makes the probabilities less sure."""

    def probabilities(self, scores: Scores) -> Probabilities:
        """float64 [N, K] of raw scores [N, K]."""
        return softmax(scores / self.temperature)
