"""The JSON files that an app seals into an artifact: written so that they can be read again, read strictly."""

from __future__ import annotations

from typing import TypeVar

import msgspec

from core.errors import ArtifactError, DataError
from core.keys import decode_unambiguous

Sealed = TypeVar("Sealed", bound=msgspec.Struct)


def encode(settings: msgspec.Struct) -> bytes:
    """Raises DataError for what could not be read again: a calibration of useless scores, say."""
    content = msgspec.json.format(msgspec.json.encode(settings), indent=2) + b"\n"
    try:
        msgspec.json.decode(content, type=type(settings))
    except msgspec.ValidationError as error:
        raise DataError(f"the model cannot be sealed with these settings: {error}; train it on other data") from error
    return content


def decode_sealed(content: bytes, kind: type[Sealed], name: str) -> Sealed:
    """name: of the file. Raises ArtifactError."""
    try:
        return decode_unambiguous(content, kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ArtifactError(
            f"{name}: {error}; this artifact was not made by a compatible version of featherweight"
        ) from error
