"""A model that was read, compared with its own library on the user's own rows."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from featherweight.core.arrays import Array, Scores
from featherweight.core.causes import describe_cause
from featherweight.core.doors.binding import BoundData
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.scores import ScoreForm, probabilities, raw_scores
from featherweight.core.errors import UsageError
from featherweight.core.model import Model
from featherweight.core.networks import run_network
from featherweight.core.tensors import Tensors
from featherweight.core.terminal import counted
from featherweight.core.trees.ensemble import INPUT, OUTPUT, Ensemble
from featherweight.core.trees.predict import predict

TOLERANCE = 1e-5
"""Largest difference of a probability that is rounding."""
MAX_SHARE = 1e-3
"""Of rows whose probability another precision of their values may change; more are refused."""
_BATCH = 256


def run_model(model: Model, tensors: Tensors) -> Tensors:
    """A model's outputs [N, ...] of its inputs, before any export."""
    if isinstance(model.network, Ensemble):
        return {OUTPUT: predict(model.network, tensors[INPUT]).reshape(-1, model.network.targets)}
    count = len(next(iter(tensors.values())))
    parts = []
    for start in range(0, count, _BATCH):
        inputs = tuple(torch.from_numpy(tensors[spec.name][start : start + _BATCH]) for spec in model.inputs)
        parts.append([output.numpy() for output in run_network(model.network, inputs, "the baseline")])
    return {spec.name: np.concatenate([part[place] for part in parts]) for place, spec in enumerate(model.outputs)}


def check_rows(loaded: LoadedModel, score: ScoreForm, exact: Mapping[str, Array], rounded: Tensors) -> tuple[str, ...]:
    """Notes on how the model agrees with its library. exact: the user's rows [N, ...] as they were given; rounded: as
    the program takes them.

    Raises UsageError where more than a thousandth of the rows get another probability.
    """
    if loaded.reference is None:
        return ()
    slope, intercept = loaded.calibration
    scores = raw_scores(run_model(loaded.model, rounded), score)
    found = probabilities(scores if scores.ndim > 1 else slope * scores + intercept)
    count = len(found)
    try:
        expected = np.asarray(loaded.reference(exact), np.float64)
    except Exception as error:  # the libraries' own errors have no common class
        raise UsageError(f"{loaded.library} does not score these rows ({describe_cause(error)})") from error
    if found.ndim == 1 and expected.shape == (count, 2):  # of two classes, where their model has a score for each
        expected = expected[:, 1]
    if expected.shape != found.shape:
        raise UsageError(f"{loaded.library} gives probabilities {list(expected.shape)}, expected {list(found.shape)}")
    differs = ~(np.abs(found - expected) <= _allowed(loaded)).reshape(count, -1).all(axis=1)
    wrong = int(differs.sum())
    if not wrong:
        return (
            f"The model agrees with {loaded.library} on {counted(count, 'rows')} of the data, within {TOLERANCE:g}.",
        )
    largest = float(np.nanmax(np.abs(found - expected)))
    text = (
        f"{wrong:,} of {counted(count, 'rows')} of the data have another probability than {loaded.library} gives them, "
        f"by up to {largest:.2g}"
    )
    if wrong > MAX_SHARE * count:
        raise UsageError(f"{text}; is it the library's version that fitted the model?")
    return (f"{text}.",)


def check_categories(loaded: LoadedModel, data: BoundData) -> None:
    """Raise UsageError for data with a fraction where the model takes categories: libraries read it each in their own
    way."""
    for place in loaded.categories:
        for part in data.parts.values():
            values = part.tensors[INPUT][:, place]
            wrong = int((np.isfinite(values) & (values != np.floor(values))).sum())
            if wrong:
                name = data.columns[place] if data.columns else f"column {place}"
                raise UsageError(f"{name}: holds categories for this model; found {counted(wrong, 'fractions')}")


def _allowed(loaded: LoadedModel) -> float:
    network = loaded.model.network
    # The leaves of a forest are rounded, each by half of 2^-24 at most.
    trees = len(network.roots) if isinstance(network, Ensemble) and network.output == "probability" else 0
    return TOLERANCE + trees * 2.0**-25


def baseline_scores(loaded: LoadedModel, score: ScoreForm, tensors: Tensors) -> Scores:
    """The baseline's raw scores [N] of cases, of several classes [N, K]. Raises UsageError where one is not a finite
    number."""
    scores = raw_scores(run_model(loaded.model, tensors), score)
    wrong = int((~np.isfinite(scores)).reshape(len(scores), -1).any(axis=1).sum())
    if wrong:
        raise UsageError(
            f"the model gives no finite score for {wrong:,} of {counted(len(scores), 'cases')}; do they hold missing "
            "values that it does not take?"
        )
    return scores
