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
    """A transaction. features: absent, the service computes them from the histories that it keeps, and counts the
    transaction; given (every column of the model by name, null where unknown), nothing is kept."""

    features: dict[str, Value | None] | UnsetType = UNSET


class BatchRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """Decided in order, as if each came alone. One that is not valid turns the whole batch away."""

    transactions: Annotated[list[ScoreRequest], msgspec.Meta(min_length=1, max_length=BATCH_ROWS)]


class BatchAnswer(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One decision a transaction, in the same order."""

    decisions: list[Decision]


class LabelRequest(Label, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """What became known of a transaction."""


class LabelsRequest(msgspec.Struct, frozen=True, gc=False, kw_only=True, forbid_unknown_fields=True):
    """They count from now on, in their order: of several labels of a transaction the last one."""

    labels: Annotated[list[LabelRequest], msgspec.Meta(min_length=1, max_length=BATCH_ROWS)]


class LabelsAnswer(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """learned: labels whose transaction is in the histories; unknown: the others, which had no effect; conflicts: of
    those learned, the ones with another customer, terminal or time than their transaction, or of one that only the
    customer's or only the terminal's history still has."""

    learned: int
    unknown: int
    conflicts: int = 0


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """What `/healthz` and `/readyz` answer."""

    status: Literal["ok", "ready", "unready"]
    model: str
    reason: str = ""


decode_score = Decoder(ScoreRequest).decode
decode_batch = Decoder(BatchRequest, rows=("transactions", ScoreRequest)).decode
decode_labels = Decoder(LabelsRequest, rows=("labels", LabelRequest)).decode
encode = msgspec.json.Encoder().encode
