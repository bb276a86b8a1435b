"""The columns of the result tables, in one place for every table format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

from featherweight.apps.imaging.frames import Prediction, RejectedFrame
from featherweight.apps.imaging.journal import Repeated
from featherweight.core.terminal import printable

Row = TypeVar("Row")
Cell = str | int | float


@dataclass(frozen=True)
class Column(Generic[Row]):
    """How a row's cell is made, and what kind it is."""

    kind: Literal["text", "word", "integer", "real"]
    """`word` is a text of few values."""
    value: Callable[[Row], Cell]


Columns = Mapping[str, Column[Row]]


def own_notes(prediction: Prediction) -> str:
    """What was found when the image was read."""
    return printable(prediction.notes)


def noting_repeated(repeated: Mapping[str, Repeated]) -> Callable[[Prediction], str]:
    """What is to be said of a row: its own notes, and that its SOP Instance UID is in another file too, so that one
    image may stand twice in the results, or two images may be mistaken for one."""

    def note_of(prediction: Prediction) -> str:
        found = repeated.get(prediction.id.sop_instance_uid)
        if found is None:
            return own_notes(prediction)
        other = found.last if found.first == prediction.id.source else found.first
        others = other if found.files == 2 else f"{found.files - 1:,} other files, {other} for one"
        mark = f"the same SOP Instance UID as {others}"
        return f"{own_notes(prediction)}; {mark}" if prediction.notes else mark

    return note_of


def result_columns(model_sha256: str, note_of: Callable[[Prediction], str] = own_notes) -> Columns[Prediction]:
    """Probability in full precision; times in milliseconds, rounded to the microsecond. Sources are shown already
    (`apps.imaging.sources.files`), UIDs are digits; a decision is whatever the model's maker called it."""
    return {
        "source": Column("text", lambda p: p.id.source),
        "frame": Column("integer", lambda p: p.id.frame),
        "study_instance_uid": Column("text", lambda p: p.id.study_instance_uid),
        "series_instance_uid": Column("text", lambda p: p.id.series_instance_uid),
        "sop_instance_uid": Column("text", lambda p: p.id.sop_instance_uid),
        "probability": Column("real", lambda p: p.probability),
        "decision": Column("word", lambda p: printable(p.decision)),
        "decode_ms": Column("real", lambda p: round(p.decode_ms, 3)),
        "inference_ms": Column("real", lambda p: round(p.inference_ms, 3)),
        "model_sha256": Column("word", lambda _: model_sha256),
        "notes": Column("text", note_of),
    }


def rejected_columns() -> Columns[RejectedFrame]:
    """The columns of `rejected.csv`."""
    return {
        "source": Column("text", lambda r: r.id.source),
        "frame": Column("integer", lambda r: r.id.frame),
        "reason": Column("word", lambda r: r.reason),
        "message": Column("text", lambda r: r.message),
    }
