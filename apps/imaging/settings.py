"""The app's sealed files: `preprocess.json` (how pixels become the network's input) and `decision.json`."""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from core.errors import ArtifactError, DataError
from core.platt import PlattScaling, Probability

Sealed = TypeVar("Sealed")


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """version 1: grey levels in 0..1, stretched to side x side by area averaging."""

    version: Literal[1] = 1
    side: Annotated[int, msgspec.Meta(ge=8, le=4096)]
    resize: Literal["area"] = "area"
    aspect: Literal["stretch"] = "stretch"


class Decision(PlattScaling, frozen=True, kw_only=True):
    """Positive when the probability of the logit is at or above the threshold. prevalence: the share of positives for
    which the probability is calibrated."""

    threshold: Probability
    prevalence: Probability = 0.5


def decode_preprocess(content: bytes) -> Preprocess:
    """Raises ArtifactError for anything but a valid preprocess.json."""
    return _decode(content, Preprocess, "preprocess.json")


def decode_decision(content: bytes) -> Decision:
    """Raises ArtifactError for anything but a valid decision.json."""
    return _decode(content, Decision, "decision.json")


def encode(settings: Preprocess | Decision) -> bytes:
    """Raises DataError for what could not be read again: a calibration of useless scores, say."""
    content = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
    try:
        msgspec.json.decode(content, type=type(settings))
    except msgspec.ValidationError as error:
        raise DataError(f"the model cannot be sealed with these settings: {error}; train it on other data") from error
    return content


def _decode(content: bytes, kind: type[Sealed], name: str) -> Sealed:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{name}: {error}; this artifact was not made by a compatible version of featherweight"
        ) from error
