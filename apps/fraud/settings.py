"""The app's sealed files: `features.json` (the program's columns) and `decision.json` (from score to outcome)."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from apps.fraud.transactions import Outcome
from core.errors import ArtifactError

Sealed = TypeVar("Sealed")
Probability = Annotated[float, msgspec.Meta(gt=0, lt=1)]


class FeatureSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """names: the program's columns, in order. source: `histories` when this app computes them from a stream of
    transactions (then every name stands in `features.CATALOGUE`), `given` when the caller brings them. typical: the
    median of each among legitimate training transactions, None where most have none: what a reason compares with.
    delay_days: a transaction counts for the shares of frauds only when it is this old, because its label comes so
    late."""

    version: Literal[1] = 1
    source: Literal["histories", "given"] = "histories"
    names: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...], msgspec.Meta(min_length=1)]
    typical: tuple[float | None, ...]
    delay_days: Annotated[float, msgspec.Meta(ge=0, le=60)] = 7.0


class DecisionRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """probability = sigmoid(slope * score + intercept) (Platt, 1999). From `review_threshold` on a transaction is an
    alert; from `decline_threshold` on it is declined. chosen_for: in words, the capacity or cost behind the thresholds.
    fallback: the outcome when no score can be had in time, for amounts up to `fallback_amount`; above it: review."""

    version: Literal[1] = 1
    slope: Annotated[float, msgspec.Meta(gt=0)]
    intercept: float
    review_threshold: Probability
    decline_threshold: Probability
    chosen_for: str
    fallback: Outcome = "approve"
    fallback_amount: Annotated[float, msgspec.Meta(ge=0)] = 100.0

    def probability(self, score: float) -> float:
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, self.slope * score + self.intercept))))

    def probabilities(self, scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`probability` of every score [N]."""
        return 1 / (1 + np.exp(-np.clip(self.slope * scores + self.intercept, -60.0, 60.0)))

    def score_at(self, probability: float) -> float:
        """The score whose probability this is."""
        return (math.log(probability / (1 - probability)) - self.intercept) / self.slope


def decode_features(content: bytes) -> FeatureSchema:
    """Raises ArtifactError for anything but a valid features.json."""
    schema = _decode(content, FeatureSchema, "features.json")
    if len(schema.typical) != len(schema.names) or len(set(schema.names)) != len(schema.names):
        raise ArtifactError(
            f"features.json: {len(schema.names)} names ({len(set(schema.names))} different) and {len(schema.typical)} "
            "typical values; expected one value for each of different names"
        )
    return schema


def decode_rule(content: bytes) -> DecisionRule:
    """Raises ArtifactError for anything but a valid decision.json."""
    rule = _decode(content, DecisionRule, "decision.json")
    if rule.decline_threshold < rule.review_threshold:
        raise ArtifactError("decision.json: decline_threshold is below review_threshold; expected it at or above")
    return rule


def encode(settings: FeatureSchema | DecisionRule) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"


def _decode(content: bytes, kind: type[Sealed], name: str) -> Sealed:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{name}: {error}; this artifact was not made by a compatible version of featherweight"
        ) from error
