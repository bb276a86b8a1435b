"""What a row of the journal is: how predictions become columns and come back, and what a column may hold."""

from __future__ import annotations

import math
import zlib
from datetime import datetime
from typing import Any

import msgspec

from featherweight.apps.imaging.frames import FrameId, Prediction

_encode = msgspec.msgpack.Encoder().encode


def checksum(row: tuple[Any, ...]) -> int:
    """What the last column of every row is: it finds damage, not forgery."""
    return zlib.crc32(_encode(row))


def is_time(value: object) -> bool:
    """Whether it is the text of a time in ISO 8601."""
    try:
        return isinstance(value, str) and bool(datetime.fromisoformat(value))
    except ValueError:
        return False


def is_amount(value: object) -> bool:
    """Whether it is a finite number and not below 0."""
    return isinstance(value, float | int) and math.isfinite(value) and value >= 0


def frame_key(frame: FrameId) -> tuple[str, int, str, str, str]:
    """The columns that every row begins with."""
    return (
        frame.source,
        frame.frame,
        frame.study_instance_uid,
        frame.series_instance_uid,
        frame.sop_instance_uid,
    )


def encode_prediction(prediction: Prediction) -> tuple[Any, ...]:
    """A row without its checksum."""
    # Plain floats, and no -0.0: they must have the same checksum when SQLite gives them back.
    probability, *times_ms = (
        float(value) + 0.0 for value in (prediction.probability, prediction.decode_ms, prediction.inference_ms)
    )
    return (*frame_key(prediction.id), probability, prediction.decision, *times_ms, prediction.notes)


def decode_prediction(row: tuple[Any, ...]) -> Prediction:
    """What `encode_prediction` was given."""
    return Prediction(FrameId(*row[:5]), *row[5:])
