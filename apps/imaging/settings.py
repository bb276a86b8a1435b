"""The app's sealed files: `preprocess.json` (how pixels become the network's input) and `decision.json`."""

from __future__ import annotations

import math
from typing import Annotated, Literal, TypeVar

import msgspec
import numpy as np
import numpy.typing as npt

from core.errors import ArtifactError

Sealed = TypeVar("Sealed")


class Preprocess(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """version 1: grey levels in 0..1, stretched to side x side by area averaging."""

    version: Literal[1] = 1
    side: Annotated[int, msgspec.Meta(ge=8, le=4096)]
    resize: Literal["area"] = "area"
    aspect: Literal["stretch"] = "stretch"


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """probability = sigmoid(slope * logit + intercept) (Platt, 1999); positive when probability >= threshold."""

    version: Literal[1] = 1
    slope: float
    intercept: float
    threshold: Annotated[float, msgspec.Meta(gt=0, lt=1)]
    prevalence: Annotated[float, msgspec.Meta(gt=0, lt=1)] = 0.5
    """The share of positives for which the probability is calibrated."""

    def probability(self, logit: float) -> float:
        return 1 / (1 + math.exp(-max(-60.0, min(60.0, self.slope * logit + self.intercept))))

    def probabilities(self, logits: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """`probability` of every logit [N]."""
        return np.array([self.probability(float(logit)) for logit in logits])


def decode_preprocess(content: bytes) -> Preprocess:
    """Raises ArtifactError for anything but a valid preprocess.json."""
    return _decode(content, Preprocess, "preprocess.json")


def decode_decision(content: bytes) -> Decision:
    """Raises ArtifactError for anything but a valid decision.json."""
    return _decode(content, Decision, "decision.json")


def encode(settings: Preprocess | Decision) -> bytes:
    return msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"


def _decode(content: bytes, kind: type[Sealed], name: str) -> Sealed:
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{name}: {error}; this artifact was not made by a compatible version of featherweight"
        ) from error
