"""What a DICOM element says as numbers, or a refusal that names the element and tells what was found in it.

Numbers are read from the bytes as they stand in the file: pydicom decides by elements that may be missing whether a
word is signed, and raises an error without the element's name for a text that is not a number.
"""

from __future__ import annotations

import math
import re
import struct
import zlib
from functools import lru_cache
from typing import Any

import numpy as np
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement, RawDataElement
from pydicom.dataset import Dataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.tag import BaseTag, Tag

from featherweight.apps.imaging.readers.base import RefusedError
from featherweight.core.arrays import UInt16s

# What pydicom and the codecs are known to raise on damaged files. MemoryError is not here: the caller names it.
PYDICOM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    BytesLengthException,
    EOFError,
    InvalidDicomError,
    LookupError,
    NotImplementedError,
    OSError,
    RuntimeError,  # a codec failed; RecursionError from sequences nested without end
    StopIteration,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)

_TEXTS = frozenset(
    ("AE", "AS", "CS", "DA", "DS", "DT", "IS", "LO", "LT", "PN", "SH", "ST", "TM", "UC", "UI", "UR", "UT")
)
_BLANKS = " \t\r\n\0"
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")
_DECIMAL_COMMA = re.compile(r"[+-]?\d*,\d+([eE][+-]?\d{1,3})?")
_THOUSANDS = re.compile(r"[+-]?[1-9]\d{0,2},\d{3}")
_SHOWN = re.compile(r"[+-]?\d{0,9}(,\d{0,9})?(\.\d{0,9})?")
"""What of a text that should be a number is shown: nothing that could be a name, a date or a patient's number."""


def describe(keyword: str) -> str:
    """`WindowCenter (0028,1050)`"""
    return f"{keyword} {_tag(keyword)}"


def read_number(dataset: Dataset, keyword: str, notes: list[str]) -> float | None:
    """The first of the element's numbers; None where it is missing or empty. A decimal comma is understood and noted,
    and so is a representation that is not numeric: a text is parsed as a number, bytes as the words that the dictionary
    names. Raises RefusedError for what is not a number."""
    element: Any = dataset.get_item(_tag(keyword))
    if element is None:
        return None
    if element.VR not in (None, "UN", "DS", "IS") and element.VR in _TEXTS:
        notes.append(f"{keyword} is of the representation {element.VR}: read as a number")
    if isinstance(element, RawDataElement) and _value_representation(element, keyword) in _TEXTS:
        text = bytes(element.value or b"").decode("latin-1")
        parts = [part.strip(_BLANKS) for part in text.split("\\")]
        return _parse(keyword, parts[0], notes) if any(parts) else None
    try:
        value = dataset[keyword].value
        if isinstance(value, bytes) and dictionary_VR(_tag(keyword)) == "US":
            value = read_words(dataset, keyword)
        several = value if hasattr(value, "__len__") and not isinstance(value, (bytes, str)) else [value]
        # float() would read a text that is a number in Python, and each digit of a text is a number of its own.
        number = None if not len(several) or several[0] in (None, "", b"") else several[0]
        if number is None:
            return None
        found = _parse(keyword, number.strip(_BLANKS), notes) if isinstance(number, str) else float(number)
    except PYDICOM_ERRORS as error:
        if isinstance(error, RefusedError):
            raise
        raise RefusedError("bad-header", f"{describe(keyword)} is not a number ({type(error).__name__})") from None
    if not math.isfinite(found):
        raise RefusedError("bad-header", f"{describe(keyword)} is not a finite number")
    return found


def read_whole(dataset: Dataset, keyword: str, *, default: int | None = None, least: int = 1) -> int:
    """A whole number of at least `least`; `default` where the element is missing or empty. Raises RefusedError."""
    number = read_number(dataset, keyword, [])
    if number is None:
        if default is None:
            raise RefusedError("bad-header", f"{describe(keyword)} is missing or empty")
        return default
    if number != int(number):
        raise RefusedError("bad-header", f"{describe(keyword)} is {number:g}; expected a whole number")
    if number < least:
        raise RefusedError("bad-header", f"{describe(keyword)} is {int(number)}; expected {least} or more")
    return int(number)


def read_words(dataset: Dataset, keyword: str) -> UInt16s:
    """16-bit words as they are, whether the element calls them signed or not. Raises RefusedError. uint16 [K]."""
    element: Any = dataset.get_item(_tag(keyword))
    value = None if element is None else element.value
    if value is None or (isinstance(value, bytes) and len(value) == 0):
        return np.empty(0, np.uint16)
    if isinstance(element, RawDataElement) and element.VR in _TEXTS:
        value = _whole_numbers(keyword, value)
    if isinstance(value, bytes):
        if len(value) % 2:
            raise RefusedError("bad-header", f"{describe(keyword)} has {len(value)} bytes; expected words of 2 bytes")
        return np.frombuffer(value, "<u2" if is_little_endian(dataset, element) else ">u2").astype(np.uint16)
    try:
        words = np.atleast_1d(np.asarray(value, dtype=np.int64))
    except (TypeError, ValueError, OverflowError):
        raise RefusedError("bad-header", f"{describe(keyword)} does not hold whole numbers") from None
    return (words & 0xFFFF).astype(np.uint16)


def read_bytes(dataset: Dataset, keyword: str) -> bytes | None:
    """The element's value where it stands as bytes."""
    element: Any = dataset.get_item(_tag(keyword))
    value = None if element is None else element.value
    return value if isinstance(value, bytes) else None


def is_little_endian(dataset: Dataset, element: DataElement | RawDataElement) -> bool:
    """The byte order in which the element was read."""
    if isinstance(element, RawDataElement):
        return bool(element.is_little_endian)
    return dataset.original_encoding[1] is not False


def is_signed_word(dataset: Dataset, keyword: str) -> bool:
    """Whether the file itself says that the element's words are signed."""
    element: Any = dataset.get_item(_tag(keyword))
    return element is not None and element.VR == "SS"


def is_undefined_length(dataset: Dataset, keyword: str) -> bool:
    """Whether the value ends with a delimiter, as encapsulated pixel data do."""
    element: Any = dataset.get_item(_tag(keyword))
    if isinstance(element, RawDataElement):
        return element.length == 0xFFFFFFFF
    return bool(element.is_undefined_length)


def read_code(dataset: Dataset, keyword: str) -> str:
    """A defined term, without blanks; empty where there is none, or none that can be read."""
    if dataset.get_item(_tag(keyword)) is None:
        return ""
    try:
        value = dataset.get(keyword)
    except PYDICOM_ERRORS:
        return ""
    if value is not None and not isinstance(value, str) and hasattr(value, "__getitem__"):
        value = value[0] if len(value) else ""
    return str(value or "").strip(" \0").upper()


def read_items(dataset: Dataset, keyword: str) -> list[Dataset]:
    """The items of a sequence. Raises RefusedError."""
    if dataset.get_item(_tag(keyword)) is None:
        return []
    try:
        return list(dataset.get(keyword) or ())
    except PYDICOM_ERRORS as error:
        raise RefusedError("bad-header", f"{describe(keyword)} cannot be read ({type(error).__name__})") from None


def _parse(keyword: str, text: str, notes: list[str]) -> float:
    if _NUMBER.fullmatch(text):
        return float(text)
    if _DECIMAL_COMMA.fullmatch(text):
        if _THOUSANDS.fullmatch(text):
            raise RefusedError(
                "bad-header", f"{describe(keyword)} is {text}, whose comma may be a decimal one or one of thousands"
            )
        notes.append(f"{keyword} has a decimal comma")
        return float(text.replace(",", "."))
    found = (
        (text if _SHOWN.fullmatch(text) else f"a text of {len(text)} characters") if text else "an empty first value"
    )
    raise RefusedError("bad-header", f"{describe(keyword)} is not a number: found {found}")


def _whole_numbers(keyword: str, content: bytes) -> list[int]:
    parts = [part.strip(_BLANKS) for part in content.decode("latin-1").split("\\")]
    numbers = [_parse(keyword, part, []) for part in parts if any(parts)]
    if not all(number.is_integer() for number in numbers):
        raise RefusedError("bad-header", f"{describe(keyword)} does not hold whole numbers")
    return [int(number) for number in numbers]


@lru_cache(maxsize=256)
def _tag(keyword: str) -> BaseTag:
    tag = tag_for_keyword(keyword)
    if tag is None:
        raise KeyError(keyword)  # a bug of ours
    return Tag(tag)


def _value_representation(element: RawDataElement, keyword: str) -> str:
    return element.VR if element.VR not in (None, "UN") else dictionary_VR(_tag(keyword))
