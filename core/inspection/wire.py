"""A strict reader of protobuf messages: what it accepts, every other reader understands in the same way.

Runtimes read lenient: they take a number in more bytes than it needs, cut tags off at 32 bits, skip fields that they do
not know, let the last of two values win. A check that reads otherwise than the runtime behind it checks nothing. So
numbers and tags stand in their shortest form here, every field is known, of its own type and, where it is one value,
there once; nothing is left over.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from core.errors import BackendError

Message = dict[str, Any]
"""Field name -> int, float, str, memoryview, Message, a list of these, or an array of numbers; absent where not set."""

FIELDS = 500_000
"""The most fields that a file may have, all messages together, so that reading it ends within seconds; a run of numbers
counts as one. A network of 600 operators has 15,000, with an exporter's notes."""
TEXT_BYTES = 1 << 20
"""Of one text: exporters write whole stacks of calls into notes."""

_SHORT_RUN = 32
"""Numbers of a run that are read one by one: for so few numpy's calls would cost more."""


class Kind(IntEnum):
    """How a field's value is written; the lowest three bits are the wire type."""

    INTEGER = 0
    FLOAT = 5
    TEXT = 2
    BYTES = 2 + 8
    MESSAGE = 2 + 16
    PACKED_INTEGERS = 2 + 24
    PACKED_FLOATS = 2 + 32
    PACKED_DOUBLES = 2 + 40


_TEXT = int(Kind.TEXT)


class Field(NamedTuple):
    """repeated: several values, each behind a tag of its own; numbers among them stand in one run."""

    number: int
    name: str
    kind: Kind
    repeated: bool = False
    message: Schema | None = None


class Schema:
    """The known fields of a message. refused: number of a field -> in words, what a program does that has it."""

    def __init__(self, name: str, *fields: Field, refused: Mapping[int, str] = MappingProxyType({})) -> None:
        self.name = name
        self.refused = refused
        self.by_tag = {
            field.number << 3 | field.kind & 7: (field.name, int(field.kind), field.repeated, field.message)
            for field in fields
        }


def read_message(content: bytes, schema: Schema) -> Message:
    """Raises BackendError for anything but one such message in its shortest form, and for nothing else."""
    try:
        return _Reader(content).read(0, len(content), schema)
    except UnicodeDecodeError as error:
        raise _fault("a text is not UTF-8") from error


class _Reader:
    def __init__(self, content: bytes) -> None:
        self._content = content
        self._view = memoryview(content)
        self._fields = 0

    def read(self, at: int, end: int, schema: Schema) -> Message:
        """The message between two places. It calls itself as deep as the schema is, which has no circles."""
        found: Message = {}
        content, by_tag = self._content, schema.by_tag
        while at < end:
            began, tag = at, content[at]
            if tag < 128:
                at += 1
            else:
                tag, at = self._varint(at, end)
            if tag not in by_tag:
                raise _unknown(schema, tag)
            name, kind, repeated, inner = by_tag[tag]
            self._fields += 1
            if self._fields > FIELDS:
                raise _fault(f"it has more than {FIELDS:,} fields")
            if kind & 7 != 2:
                if name in found:
                    raise _fault(f"{schema.name}.{name} stands there twice")
                found[name], at = self._number(kind, repeated, began, at, end, tag)
                continue
            size = content[at] if at < end else 128
            if size < 128:
                at += 1
            else:
                size, at = self._varint(at, end)
            if size > end - at:
                raise _fault(f"{schema.name}.{name} is longer than what it stands in")
            value = self.read(at, at + size, inner) if inner is not None else self._sized(name, kind, at, at + size)
            at += size
            if not repeated:
                if name in found:
                    raise _fault(f"{schema.name}.{name} stands there twice")
                found[name] = value
            elif name in found:
                found[name].append(value)
            else:
                found[name] = [value]
        return found

    def _number(self, kind: int, repeated: bool, began: int, at: int, end: int, tag: int) -> tuple[Any, int]:
        """(value or array of values, place behind it); began, at: before and behind the first one's tag."""
        if kind == 0:
            if repeated:
                return self._integers(began, end, tag)
            value, at = self._varint(at, end)
            return _signed(value), at
        return self._floats(began, end, tag) if repeated else (self._float(at, end), at + 4)

    def _sized(self, name: str, kind: int, at: int, end: int) -> Any:
        if kind == _TEXT:
            if end - at > TEXT_BYTES:
                raise _fault(f"{name} has more than {TEXT_BYTES} bytes")
            return self._content[at:end].decode()
        if kind == Kind.BYTES:
            return self._view[at:end]
        if kind == Kind.PACKED_INTEGERS:
            if end - at <= _SHORT_RUN:
                few: list[int] = []
                while at < end:
                    value, at = self._varint(at, end)
                    few.append(_signed(value))
                return np.array(few, np.int64)
            values, _, _ = _varints(np.frombuffer(self._content, np.uint8, end - at, at), whole=True)
            return values.view(np.int64)
        dtype = np.dtype("<f4" if kind == Kind.PACKED_FLOATS else "<f8")
        if (end - at) % dtype.itemsize:
            raise _fault(f"{name} ends within a number")
        return np.frombuffer(self._content, dtype, (end - at) // dtype.itemsize, at)

    def _varint(self, at: int, end: int) -> tuple[int, int]:
        """(unsigned number of up to 64 bits, place behind it)."""
        content = self._content
        if at < end and content[at] < 128:
            return content[at], at + 1
        value, shift = 0, 0
        while at < end:
            byte = content[at]
            at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                if (byte == 0 and shift) or value >> 64:
                    raise _fault("a number is written in more bytes than it needs")
                return value, at
            shift += 7
            if shift > 63:
                break
        raise _fault("it ends within a number, or a number has no end")

    def _float(self, at: int, end: int) -> float:
        if end - at < 4:
            raise _fault("it ends within a number")
        value: float = struct.unpack_from("<f", self._content, at)[0]
        return value

    def _integers(self, at: int, end: int, tag: int) -> tuple[npt.NDArray[np.int64], int]:
        """All values of a run from the first one's tag on, which is one byte; and the place behind it."""
        first: list[int] = []
        while at < end and self._content[at] == tag and len(first) < _SHORT_RUN:
            value, at = self._varint(at + 1, end)
            first.append(_signed(value))
        if len(first) < _SHORT_RUN or at == end or self._content[at] != tag:
            return np.array(first, np.int64), at
        data = np.frombuffer(self._content, np.uint8, end - at, at)
        numbers, starts, ends = _varints(data, whole=False)
        is_tag = (numbers[::2] == tag) & (ends[::2] == starts[::2])
        count = int(np.argmin(is_tag)) if not is_tag.all() else len(is_tag)
        if 2 * count > len(numbers):
            raise _fault("it ends within a number")
        rest = np.ascontiguousarray(numbers[1 : 2 * count : 2]).view(np.int64)
        return np.concatenate([np.array(first, np.int64), rest]), at + int(ends[2 * count - 1]) + 1

    def _floats(self, at: int, end: int, tag: int) -> tuple[npt.NDArray[np.float32], int]:
        data = np.frombuffer(self._content, np.uint8, end - at, at)
        is_tag = data[::5] == tag
        count = int(np.argmin(is_tag)) if not is_tag.all() else len(is_tag)
        if 5 * count > len(data):
            raise _fault("it ends within a number")
        return data[: 5 * count].reshape(-1, 5)[:, 1:].copy().view("<f4")[:, 0], at + 5 * count


def _varints(data: npt.NDArray[np.uint8], *, whole: bool) -> tuple[npt.NDArray[np.uint64], ...]:
    """(numbers, first bytes, last bytes) of varints behind one another; whole: nothing may be left over. Of a stream
    that goes on with something else, the numbers behind may be anything: see `_Reader._integers`, which takes those of
    the run and has them checked."""
    ends = np.flatnonzero(data < 128)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    if whole and len(data) and (not len(ends) or ends[-1] != len(data) - 1):
        raise _fault("it ends within a number")
    lengths = ends - starts + 1
    if not whole:
        # What is no number of ours ends the run.
        odd = np.flatnonzero(lengths > 10)
        if len(odd):
            ends, starts, lengths = ends[: odd[0]], starts[: odd[0]], lengths[: odd[0]]
    elif len(lengths) and lengths.max() > 10:
        raise _fault("a number has no end")
    numbers = np.zeros(len(ends), np.uint64)
    for byte in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > byte)
        numbers[longer] |= (data[starts[longer] + byte] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * byte)
    last = data[ends]
    long = ((last == 0) & (lengths > 1)) | ((lengths == 10) & (last > 1))
    if long.any():
        if whole:
            raise _fault("a number is written in more bytes than it needs")
        first = int(np.flatnonzero(long)[0])
        ends, starts, numbers = ends[:first], starts[:first], numbers[:first]
    return numbers, starts.astype(np.uint64), ends.astype(np.uint64)


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unknown(schema: Schema, tag: int) -> BackendError:
    if tag >> 3 in schema.refused:
        return BackendError(f"the program {schema.refused[tag >> 3]}")
    return _fault(f"{schema.name} has a field {tag >> 3} of wire type {tag & 7}, which no program needs")


def _fault(what: str) -> BackendError:
    return BackendError(f"the program is not an ONNX file in its strict form: {what}")
