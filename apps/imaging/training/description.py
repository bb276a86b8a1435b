"""What the folder of a trained network says of it; reading it loads no framework, so a wrong one is reported at
once."""

from __future__ import annotations

import shlex
from pathlib import Path

import msgspec
from safetensors import SafetensorError, safe_open

from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, decode_decision, decode_preprocess
from featherweight.core.digests import check_digests
from featherweight.core.errors import ArtifactError, DataError
from featherweight.core.files import is_file, read_errors
from featherweight.core.keys import decode_unambiguous

WEIGHTS = "weights.safetensors"
FILES = (WEIGHTS, "preprocess.json", "decision.json")
NETWORKS = ("resnet18", "resnet18-small-images", "compact")
"""The names of those that apps.imaging.training.network builds."""
SMALL_SIDE = 96
"""Images of fewer pixels a side have no detail to spare: not for blur, not for training at a smaller side first."""

_UNREADABLE = (SafetensorError, msgspec.DecodeError, RuntimeError, ValueError, ArtifactError, DataError)


class Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What the weights are: enough to build the network again and to say where it came from."""

    network: str
    side: int
    mean: float
    std: float
    labels: tuple[str, str]
    source: str
    """Training data, its digest, seed: the `weights_source` of the artifact's manifest."""


def read_description(
    directory: Path, *, data: str = "DATA", reader: str = "READER"
) -> tuple[Description, Preprocess, DecisionRule]:
    """data, reader: what such a network would be trained on, for the advice where there is none. Raises DataError when
    the folder does not hold a network that `imaging train` wrote, whole."""
    weights = directory / WEIGHTS
    if not is_file(weights):
        asked = shlex.join(["--data", data, "--format", reader, "--out", str(directory)])
        raise DataError(f"{directory}: no {WEIGHTS}; make it with: featherweight imaging train {asked}")
    with read_errors(directory, "not a trained network", "train it again", also=_UNREADABLE):
        check_digests(directory, FILES)
        with safe_open(weights, framework="np") as archive:
            description = decode_unambiguous((archive.metadata() or {}).get("description", ""), Description)
        preprocess = decode_preprocess((directory / "preprocess.json").read_bytes())
        decision = decode_decision((directory / "decision.json").read_bytes())
        if description.network not in NETWORKS:
            raise DataError(f"network {description.network!r} is not one of {', '.join(NETWORKS)}")
        if preprocess.side != description.side:
            raise DataError(f"the network takes {description.side} pixels a side, preprocess.json {preprocess.side}")
    return description, preprocess, decision
