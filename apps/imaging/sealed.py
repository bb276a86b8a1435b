"""The app's sealed files: `preprocess.json` (how pixels become the network's input) and `decision.json`."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from featherweight.core.platt import PlattScaling, Probability
from featherweight.core.sealed import decode_sealed
from featherweight.core.sealed import encode as encode


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How pixels become the network's input: grey levels in 0..1, stretched to side x side by area averaging."""

    version: Literal[1] = 1
    """Version of the file's form."""
    side: Annotated[int, msgspec.Meta(ge=8, le=4096)]
    """Side of the network's input in pixels."""
    resize: Literal["area"] = "area"
    """How it is resized."""
    aspect: Literal["stretch"] = "stretch"
    """What happens to images that are not square."""


class DecisionRule(PlattScaling, frozen=True, kw_only=True):
    """Positive when the probability of the logit is at or above the threshold."""

    threshold: Probability
    """Probability from which on an image is positive."""
    prevalence: Probability = 0.5
    """Share of positives for which the probability is calibrated."""


def decode_preprocess(content: bytes) -> Preprocess:
    """Raises ArtifactError for anything but a valid preprocess.json."""
    return decode_sealed(content, Preprocess, "preprocess.json")


def decode_decision(content: bytes) -> DecisionRule:
    """Raises ArtifactError for anything but a valid decision.json."""
    return decode_sealed(content, DecisionRule, "decision.json")
