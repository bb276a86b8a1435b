"""Cases of several classes, made up, with a classifier of them and a compressed form of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from featherweight.core.evidence.class_predictions import ClassPredictions
from featherweight.core.evidence.predictions import Measured
from featherweight.core.softmax import softmax

NAMES = ("cat", "dog", "horse", "owl")


def predictions(
    count: int = 800, *, seed: int = 0, names: tuple[str, ...] = NAMES, weights: tuple[float, ...] = (), **more: Any
) -> ClassPredictions:
    """Logits that know the class with noise; the classes are equally frequent, or as `weights` say."""
    draw = np.random.default_rng(seed)
    share = np.array(weights or (1,) * len(names)) / sum(weights or (1,) * len(names))
    labels = draw.permutation(np.repeat(np.arange(len(names)), np.round(share * count).astype(int)))
    scores = 2.5 * np.eye(len(names))[labels] + draw.normal(size=(len(labels), len(names)))
    ids = tuple(f"case {place}" for place in range(len(labels)))
    return ClassPredictions(ids, labels, scores, 0.0, softmax(scores), names=names, **more)


def rescored(of: ClassPredictions, scores: npt.NDArray[np.float64]) -> ClassPredictions:
    return replace(of, scores=scores, probabilities=softmax(scores))


def noised(of: ClassPredictions, noise: float, seed: int = 1) -> ClassPredictions:
    return rescored(of, of.scores + noise * np.random.default_rng(seed).normal(size=of.scores.shape))


def measured(of: ClassPredictions, name: str = "a program") -> Measured:
    return Measured(name, of)
