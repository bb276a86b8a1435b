"""The app's sealed files: `features.json` (the program's columns) and `decision.json` (from score to outcome)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from featherweight.apps.fraud.transactions import Outcome
from featherweight.core.errors import ArtifactError
from featherweight.core.platt import PlattScaling, Probability
from featherweight.core.sealed import decode_sealed
from featherweight.core.sealed import encode as encode
from featherweight.core.thresholds import Outcomes

_LARGEST_FLOAT32 = 3.4028234663852886e38
"""The program's columns are float32: what is larger would be infinite there."""


class FeatureSchema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The columns that the program takes."""

    version: Literal[1] = 1
    """Version of the file's form."""
    source: Literal["histories", "given"] = "histories"
    """`histories` when this app computes the columns from a stream of transactions (then every name stands in
    `features.CATALOGUE`), `given` when the caller brings them."""
    names: Annotated[tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=100)], ...], msgspec.Meta(min_length=1)]
    """The program's columns, in order."""
    reference_values: tuple[Annotated[float, msgspec.Meta(ge=-_LARGEST_FLOAT32, le=_LARGEST_FLOAT32)] | None, ...] = (
        msgspec.field(name="typical")
    )
    """Reference value of each column, with which a reason compares: the median among legitimate training transactions,
    null where most have none."""
    delay_days: Annotated[float, msgspec.Meta(ge=0, le=60)] = 7.0
    """A transaction counts for the shares of frauds only when it is this old, because its label comes so late."""


class DecisionRule(PlattScaling, frozen=True, kw_only=True):
    """From score to outcome."""

    review_threshold: Probability
    """Probability from which on a transaction is an alert."""
    decline_threshold: Probability
    """Probability from which on it is declined."""
    chosen_for: str
    """In words, the capacity or cost behind the thresholds."""
    fallback: Outcome = "approve"
    """The outcome when no score can be had in time, for amounts up to `fallback_amount`; above it: review."""
    fallback_amount: Annotated[float, msgspec.Meta(ge=0)] = 100.0
    """The amount up to which `fallback` holds."""


def decode_features(content: bytes) -> FeatureSchema:
    """Raises ArtifactError for anything but a valid features.json."""
    schema = decode_sealed(content, FeatureSchema, "features.json")
    if len(schema.reference_values) != len(schema.names) or len(set(schema.names)) != len(schema.names):
        raise ArtifactError(
            f"features.json: {len(schema.names)} names ({len(set(schema.names))} different) and "
            f"{len(schema.reference_values)} reference values (typical); expected one value for each of different names"
        )
    return schema


def decode_rule(content: bytes) -> DecisionRule:
    """Raises ArtifactError for anything but a valid decision.json."""
    rule = decode_sealed(content, DecisionRule, "decision.json")
    if rule.decline_threshold < rule.review_threshold:
        raise ArtifactError("decision.json: decline_threshold is below review_threshold; expected it at or above")
    return rule


def rule_outcomes(rule: DecisionRule) -> Outcomes:
    """All that `decision.policy.choose_outcome` does, by thresholds on the margin, the score that the model gives."""
    thresholds = rule.score_at(rule.review_threshold), rule.score_at(rule.decline_threshold)
    return Outcomes(("approve", "review", "decline"), thresholds)
