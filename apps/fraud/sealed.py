"""The app's sealed files: `features.json` (the program's columns) and `decision.json` (from score to outcome)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from featherweight.apps.fraud.transactions import Outcome
from featherweight.core.errors import ArtifactError
from featherweight.core.platt import PlattScaling, Probability
from featherweight.core.sealed import decode_sealed
from featherweight.core.sealed import encode as encode

_LARGEST_FLOAT32 = 3.4028234663852886e38
"""The program's columns are float32: what is larger would be infinite there."""


class FeatureSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """names: the program's columns, in order. source: `histories` when this app computes them from a stream of
    transactions (then every name stands in `features.CATALOGUE`), `given` when the caller brings them. typical: the
    median of each among legitimate training transactions, None where most have none: what a reason compares with.
    delay_days: a transaction counts for the shares of frauds only when it is this old, because its label comes so
    late."""

    version: Literal[1] = 1
    source: Literal["histories", "given"] = "histories"
    names: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...], msgspec.Meta(min_length=1)]
    typical: tuple[Annotated[float, msgspec.Meta(ge=-_LARGEST_FLOAT32, le=_LARGEST_FLOAT32)] | None, ...]
    delay_days: Annotated[float, msgspec.Meta(ge=0, le=60)] = 7.0


class DecisionRule(PlattScaling, frozen=True, kw_only=True):
    """From `review_threshold` on a transaction is an alert; from `decline_threshold` on it is declined. chosen_for: in
    words, the capacity or cost behind the thresholds. fallback: the outcome when no score can be had in time, for
    amounts up to `fallback_amount`; above it: review."""

    review_threshold: Probability
    decline_threshold: Probability
    chosen_for: str
    fallback: Outcome = "approve"
    fallback_amount: Annotated[float, msgspec.Meta(ge=0)] = 100.0


def decode_features(content: bytes) -> FeatureSchema:
    """Raises ArtifactError for anything but a valid features.json."""
    schema = decode_sealed(content, FeatureSchema, "features.json")
    if len(schema.typical) != len(schema.names) or len(set(schema.names)) != len(schema.names):
        raise ArtifactError(
            f"features.json: {len(schema.names)} names ({len(set(schema.names))} different) and {len(schema.typical)} "
            "typical values; expected one value for each of different names"
        )
    return schema


def decode_rule(content: bytes) -> DecisionRule:
    """Raises ArtifactError for anything but a valid decision.json."""
    rule = decode_sealed(content, DecisionRule, "decision.json")
    if rule.decline_threshold < rule.review_threshold:
        raise ArtifactError("decision.json: decline_threshold is below review_threshold; expected it at or above")
    return rule
