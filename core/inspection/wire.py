"""A strict reader of protobuf messages: what it accepts, every other reader understands in the same way.

Runtimes read lenient: they take a number in more bytes than it needs, cut tags off at 32 bits, skip fields that they do
not know, let the last of two values win. A check that reads otherwise than the runtime behind it checks nothing. So
numbers and tags stand in their shortest form here, every field is known, of its own type and, where it is one value,
there once; nothing is left over.

Format: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Mapping
from enum import IntEnum
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np

from featherweight.core.arrays import Floats32, Integers, Octets, UInt64s
from featherweight.core.errors import BackendError

Message = dict[str, Any]
"""Field name -> int, float, str, memoryview, Message, a list of these, or an array of numbers; absent where not set."""

FIELDS = 500_000
"""The most fields that a file may have, all messages together, so that reading it ends within seconds; a run of numbers
counts as one. A network of 600 operators has 15,000, with an exporter's notes."""
INTEGERS = 1 << 25
"""The most integers that stand in runs of a file, all runs together: each takes 8 bytes of memory, and as little as one
of the file. A forest of five million splits has fewer."""
TEXT_BYTES = 1 << 20
"""Maximum size of one text: exporters write whole stacks of calls into notes."""

_SHORT_RUN = 32
"""Numbers of a run that are read one by one: for so few numpy's calls would cost more."""
_WINDOW_BYTES = 1 << 17
"""Bytes of a run that are decoded at a time: numpy takes some fifty bytes for each."""


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
    """repeated: several values, each behind a tag of its own; numbers among them stand in one run. most: integers of a
    run."""

    number: int
    name: str
    kind: Kind
    repeated: bool = False
    message: Schema | None = None
    most: int = INTEGERS


class Schema:
    """The known fields of a message. one_of: names of fields of which a message has one at most (protobuf keeps the
    last one, other readers whichever they ask for); refused: number of a field -> in words, what a program does that
    has it."""

    def __init__(
        self,
        name: str,
        *fields: Field,
        one_of: Collection[str] = (),
        refused: Mapping[int, str] = MappingProxyType({}),
    ) -> None:
        self.name = name
        self.one_of = frozenset(one_of)
        self.refused = refused
        self.by_tag = {field.number << 3 | field.kind & 7: field for field in fields}


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
        self._integers_read = 0

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
            _, name, kind, repeated, inner, _ = by_tag[tag]
            self._fields += 1
            if self._fields > FIELDS:
                raise _fault(f"it has more than {FIELDS:,} fields")
            if kind & 7 != 2:
                if name in found:
                    raise _fault(f"{schema.name}.{name} stands there twice")
                found[name], at = self._number(by_tag[tag], began, at, end, tag)
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
        if schema.one_of and len(schema.one_of & found.keys()) > 1:
            raise _fault(
                f"{schema.name} has {' and '.join(sorted(schema.one_of & found.keys()))}, of which one may stand"
            )
        return found

    def _number(self, field: Field, began: int, at: int, end: int, tag: int) -> tuple[Any, int]:
        """(value or array of values, place behind it); began, at: before and behind the first one's tag."""
        if field.kind == Kind.INTEGER:
            if field.repeated:
                return self._integers(field.name, began, end, tag, field.most)
            value, at = self._varint(at, end)
            return _signed(value), at
        return self._floats(began, end, tag) if field.repeated else (self._float(at, end), at + 4)

    def _sized(self, name: str, kind: int, at: int, end: int) -> Any:
        if kind == _TEXT:
            if end - at > TEXT_BYTES:
                raise _fault(f"{name} has more than {TEXT_BYTES} bytes")
            return self._content[at:end].decode()
        if kind == Kind.BYTES:
            return self._view[at:end]
        if kind == Kind.PACKED_INTEGERS:
            self._check_count(name, self._count(at, end), INTEGERS)
            return self._integers(name, at, end, None, INTEGERS)[0]
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

    def _count(self, at: int, end: int) -> int:
        """How many packed numbers stand there, before anything is made of them."""
        return sum(
            int(np.count_nonzero(np.frombuffer(self._content, np.uint8, min(_WINDOW_BYTES, end - start), start) < 128))
            for start in range(at, end, _WINDOW_BYTES)
        )

    def _check_count(self, name: str, count: int, most: int) -> None:
        if count > most:
            raise _fault(f"{name} has more than {most:,} numbers")
        if self._integers_read + count > INTEGERS:
            raise _fault(f"its runs have more than {INTEGERS:,} numbers, all together")

    def _integers(self, name: str, at: int, end: int, tag: int | None, most: int) -> tuple[Integers, int]:
        """All values of a run, and the place behind it. tag: of one byte, which stands before each; None: they are
        packed behind one another, up to the end."""
        content, ahead = self._content, int(tag is not None)
        few: list[int] = []
        while at < end and (tag is None or content[at] == tag) and len(few) < _SHORT_RUN:
            value, at = self._varint(at + ahead, end)
            few.append(_signed(value))
            self._check_count(name, len(few), most)
        run = bytearray(np.array(few, np.int64).tobytes())
        while at < end and (tag is None or content[at] == tag):
            numbers, size = _window(np.frombuffer(content, np.uint8, min(_WINDOW_BYTES, end - at), at), tag)
            if size:
                run += numbers.tobytes()
                at += size
            else:  # the next one is faulty or cut: read alone, it says so
                value, at = self._varint(at + ahead, end)
                run += struct.pack("=q", _signed(value))
            self._check_count(name, len(run) // 8, most)
        self._integers_read += len(run) // 8
        return np.frombuffer(run, np.int64), at

    def _floats(self, at: int, end: int, tag: int) -> tuple[Floats32, int]:
        run = bytearray()
        while at < end and self._content[at] == tag:
            size = min(_WINDOW_BYTES, end - at) // 5 * 5
            if not size:
                raise _fault("it ends within a number")
            values = np.frombuffer(self._content, np.uint8, size, at).reshape(-1, 5)
            strays = np.flatnonzero(values[:, 0] != tag)
            count = int(strays[0]) if len(strays) else len(values)
            run += values[:count, 1:].tobytes()
            at += 5 * count
        return np.frombuffer(run, "<f4"), at


def _window(data: Octets, tag: int | None) -> tuple[UInt64s, int]:
    """The whole numbers at the start of these bytes, as far as they are in their shortest form and, with a tag, stand
    behind it; and how many bytes they take."""
    numbers, starts, ends = _varints(data)
    if tag is None:
        return numbers, int(ends[-1]) + 1 if len(ends) else 0
    count = len(numbers) // 2
    strays = np.flatnonzero((numbers[: 2 * count : 2] != tag) | (starts != ends)[: 2 * count : 2])
    if len(strays):
        count = int(strays[0])
    return numbers[1 : 2 * count : 2], int(ends[2 * count - 1]) + 1 if count else 0


def _varints(
    data: Octets,
) -> tuple[UInt64s, Integers, Integers]:
    """(numbers, first bytes, last bytes) of varints behind one another, up to the first one that is cut or not in its
    shortest form."""
    ends = np.flatnonzero(data < 128)
    starts = np.concatenate([[0], ends[:-1] + 1])[: len(ends)]
    lengths, last = ends - starts + 1, data[ends]
    odd = np.flatnonzero((lengths > 10) | ((lengths > 1) & (last == 0)) | ((lengths == 10) & (last > 1)))
    if len(odd):
        ends, starts, lengths = ends[: odd[0]], starts[: odd[0]], lengths[: odd[0]]
    numbers = np.zeros(len(ends), np.uint64)
    for byte in range(int(lengths.max(initial=0))):
        longer = np.flatnonzero(lengths > byte)
        numbers[longer] |= (data[starts[longer] + byte] & np.uint8(127)).astype(np.uint64) << np.uint64(7 * byte)
    return numbers, starts, ends


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _unknown(schema: Schema, tag: int) -> BackendError:
    if tag >> 3 in schema.refused:
        return BackendError(f"the program {schema.refused[tag >> 3]}")
    return _fault(f"{schema.name} has a field {tag >> 3} of wire type {tag & 7}, which no program needs")


def _fault(what: str) -> BackendError:
    return BackendError(f"the program is not an ONNX file in its strict form: {what}")
