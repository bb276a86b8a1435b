"""The app's sealed files: `schema.json` (what the program takes and gives) and `decision.json` (what follows)."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from featherweight.core.doors.scores import ScoreForm
from featherweight.core.errors import ArtifactError
from featherweight.core.platt import PlattScaling, Probability
from featherweight.core.sealed import decode_sealed
from featherweight.core.sealed import encode as encode
from featherweight.core.softmax import TemperatureScaling


class Schema(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the program takes and what it gives."""

    version: Literal[1] = 1
    """Version of the file's form."""
    columns: tuple[Annotated[str, msgspec.Meta(min_length=1, max_length=500)], ...] = ()
    """Names of the program's columns, in order; empty where it takes arrays that have no names."""
    categories: tuple[Annotated[int, msgspec.Meta(ge=0)], ...] = ()
    """Places of the columns that hold categories: whole numbers, for which the model knows no order."""
    missing: bool = False
    """Whether a value may be missing (NaN, or null in a table)."""
    missing_value: float | None = None
    """A number that stands for a missing value too, as the model's own library was told; null where there is none."""
    score: ScoreForm
    """Where the answer is."""


class DecisionRule(PlattScaling, frozen=True, kw_only=True):
    """Positive when the probability of the score is at or above the threshold."""

    threshold: Probability
    """Probability from which on a case is positive."""
    chosen_for: str
    """In words, how the threshold was chosen."""


class ClassRule(TemperatureScaling, frozen=True, kw_only=True):
    """Of several classes: the largest score decides."""

    chosen_for: str
    """In words, how the temperature was found."""


def decode_schema(content: bytes) -> Schema:
    """Raises ArtifactError for anything but a valid schema.json."""
    schema = decode_sealed(content, Schema, "schema.json")
    if len(set(schema.columns)) < len(schema.columns):
        raise ArtifactError("schema.json: names a column twice; make the artifact again")
    return schema


def decode_rule(content: bytes, labels: int) -> DecisionRule | ClassRule:
    """Of so many labels. Raises ArtifactError for anything but a valid decision.json."""
    if labels == 2:
        return decode_sealed(content, DecisionRule, "decision.json")
    return decode_sealed(content, ClassRule, "decision.json")
