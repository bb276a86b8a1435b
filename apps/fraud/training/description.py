"""What the folder of a trained model says of it; reading it loads no framework, so a wrong one is reported at once."""

from __future__ import annotations

import shlex
from datetime import date
from pathlib import Path

import msgspec

from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, decode_features, decode_rule
from featherweight.apps.fraud.training.models import Logistic, ModelSettings, Network
from featherweight.core.digests import check_digests
from featherweight.core.errors import ArtifactError, DataError, UsageError
from featherweight.core.files import is_file, read_errors
from featherweight.core.keys import decode_unambiguous

TREES, NETWORK, TRAINING = "trees.safetensors", "network.safetensors", "training.json"
SETTINGS = ("features.json", "decision.json", TRAINING)


class SplitDays(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which days are for what: training, `delay_days`, validation, `delay_days`, test; the last test day is `until`
    (YYYY-MM-DD; empty: the data's last whole day)."""

    train_days: int = 7
    delay_days: int = 7
    validation_days: int = 7
    test_days: int = 7
    until: str = ""

    def last_day(self) -> date | None:
        """`until` as a day. Raises UsageError for a text that is not a day."""
        try:
            return date.fromisoformat(self.until) if self.until else None
        except ValueError as error:
            raise UsageError(f"--until {self.until!r} is not a day; write it as 2018-08-14") from error


class Training(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, rename={"alerts_per_day": "alerts_a_day"}
):
    """What the model is, and from what: enough to read the same split again. source: the `weights_source` of the
    artifact's manifest."""

    settings: ModelSettings
    layout: SplitDays
    alerts_per_day: float
    seed: int
    source: str


def read_training(
    directory: Path, *, data: str = "DATA", reader: str = "READER"
) -> tuple[Training, FeatureSchema, DecisionRule]:
    """data, reader: what such a model would be trained on, for the advice where there is none. Raises DataError when
    the folder does not hold a model that `fraud train` wrote."""
    if not is_file(directory / TRAINING):
        asked = shlex.join(["--data", data, "--format", reader, "--out", str(directory)])
        raise DataError(f"{directory}: no {TRAINING}; make it with: featherweight fraud train {asked}")
    unreadable = (msgspec.DecodeError, ValueError, ArtifactError, DataError)
    with read_errors(directory, "not a trained model", "train it again", also=unreadable):
        check_digests(directory, SETTINGS)
        training = decode_unambiguous((directory / TRAINING).read_bytes(), Training)
        schema = decode_features((directory / "features.json").read_bytes())
        rule = decode_rule((directory / "decision.json").read_bytes())
    model = NETWORK if isinstance(training.settings, Network | Logistic) else TREES
    if not is_file(directory / model):
        raise DataError(f"{directory}: not a trained model (no {model}); train it again")
    return training, schema, rule
