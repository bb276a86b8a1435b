"""What comes in and goes out over REST."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, UnsetType

from featherweight.apps.fraud.decoding import Decoder
from featherweight.apps.fraud.transactions import Decision, Label, Transaction

BATCH_ROWS = 1000
Value = Annotated[float, msgspec.Meta(ge=-1e30, le=1e30)]
"""What float32 holds with room for sums."""


class ScoreRequest(Transaction, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """A transaction, with or without its features."""

    features: dict[str, Value | None] | UnsetType = UNSET
    """Absent: the service computes the features from the histories that it keeps, and counts the transaction. Given
    (every column of the model by name, null where unknown): nothing is kept."""


class BatchRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Decided in order, as if each came alone. One that is not valid turns the whole batch away."""

    transactions: Annotated[list[ScoreRequest], msgspec.Meta(min_length=1, max_length=BATCH_ROWS)]
    """From 1 to 1000 transactions."""


class BatchAnswer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One decision a transaction, in the same order."""

    decisions: list[Decision]
    """The decisions, in the order of the transactions."""


class LabelRequest(Label, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What became known of a transaction."""


class LabelsRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """They count from now on, in their order: of several labels of a transaction the last one."""

    labels: Annotated[list[LabelRequest], msgspec.Meta(min_length=1, max_length=BATCH_ROWS)]
    """From 1 to 1000 labels."""


class LabelsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How many labels had an effect."""

    learned: int
    """Labels whose transaction is in the histories."""
    unknown: int
    """The others, which had no effect."""
    conflicts: int = 0
    """Labels that took effect though they have another customer, terminal or time than their transaction, or of one
    that only the customer's or only the terminal's history still has."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `/healthz` and `/readyz` answer."""

    status: Literal["ok", "ready", "unready"]
    """`ok`: the process lives. `ready`: send it work. `unready`: do not, for now."""
    model: str
    """Name and digest of the artifact that decides."""
    reason: str = ""
    """Why it is not ready."""


decode_score = Decoder(ScoreRequest).decode
decode_batch = Decoder(BatchRequest, rows=("transactions", ScoreRequest)).decode
decode_labels = Decoder(LabelsRequest, rows=("labels", LabelRequest)).decode
encode = msgspec.json.Encoder().encode
