"""Columns of a Parquet file, treated as hostile: a few bytes can stand for any number of equal rows, so that what the
columns hold is counted before they are unpacked, and only those that are asked for are."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from featherweight.core.compare.bounded import MAX_BYTES, MAX_COLUMNS, MAX_ROWS, MAX_TEXT
from featherweight.core.errors import DataError
from featherweight.core.terminal import counted

if TYPE_CHECKING:
    import pyarrow as pa

_BATCH_ROWS = 65_536
_TEXT_BYTES = 4 * MAX_TEXT
"""Of one text: UTF-8 takes up to four bytes a character."""


def read_parquet(
    path: Path, file: BinaryIO, wanted: Collection[str] | None
) -> tuple[list[str], dict[str, pa.Array], int]:
    """Names of all columns; those of them that are wanted (all of texts and numbers where it is None), one value a row,
    decimals as float64; rows.

    Raises DataError for a file that cannot be read, holds other types than texts and numbers in these columns, or more
    than is read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(file, memory_map=False) as first:
            names = list(first.schema_arrow.names)
            rows = int(first.metadata.num_rows)
            every = list(first.schema_arrow)
            fields = [one for one in every if (_is_read(one.type) if wanted is None else one.name in wanted)]
        _check_claims(path, rows, fields)
        file.seek(0)
        # Texts stay encoded until it is known how long they are.
        texts = [field.name for field in fields if is_text(field.type)]
        found: dict[str, list[pa.Array]] = {field.name: [] for field in fields}
        with pq.ParquetFile(file, memory_map=False, read_dictionary=texts) as whole:
            _read_batches(path, whole, rows, found)
        return names, {field.name: _joined(field, found[field.name]) for field in fields}, rows
    except (pa.ArrowException, OSError, ValueError, LookupError, OverflowError) as error:  # may quote a value
        raise DataError(f"{path}: cannot be read as Parquet ({type(error).__name__}); is it damaged?") from error


def is_text(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_read(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return is_text(kind.value_type)
    numbers = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return is_text(kind) or any(of_kind(kind) for of_kind in numbers)


def _check_claims(path: Path, rows: int, fields: list[Any]) -> None:
    """Rows times the width of the columns' types, before a page of the file is unpacked."""
    import pyarrow as pa

    if len({field.name for field in fields}) < len(fields) or len(fields) > MAX_COLUMNS:
        raise DataError(f"{path}: names a column twice, or has more than {MAX_COLUMNS:,}")
    if rows > MAX_ROWS:
        raise DataError(f"{path}: says that it holds {counted(rows, 'rows')}; at most {MAX_ROWS:,} are read")
    width = 0
    for field in fields:
        if not _is_read(field.type):
            raise DataError(f"{path}: column {field.name!r} holds {field.type}; expected texts or numbers")
        width += 32 if is_text(field.type) or pa.types.is_dictionary(field.type) else field.type.bit_width
    if rows * width > 8 * MAX_BYTES:
        raise DataError(
            f"{path}: {counted(rows, 'rows')} of {counted(len(fields), 'columns')} take {rows * width // 8:,} bytes; "
            f"at most {MAX_BYTES:,} are read"
        )


def _read_batches(path: Path, whole: Any, rows: int, found: dict[str, list[pa.Array]]) -> None:
    read, size = 0, 0
    for batch in whole.iter_batches(_BATCH_ROWS, columns=list(found)):
        read += batch.num_rows
        if read > rows:
            raise DataError(f"{path}: holds more than the {counted(rows, 'rows')} that it says")
        for name, parts in found.items():
            values = batch.column(name)
            values.validate(full=True)  # raises for texts that are not UTF-8, and for indices beyond their dictionary
            size += _decoded_bytes(path, name, values)
            if size > MAX_BYTES:
                raise DataError(f"{path}: its columns take more than {MAX_BYTES:,} bytes; leave out what is not needed")
            parts.append(values)
    if read < rows:
        raise ValueError("fewer rows than it says")


def _decoded_bytes(path: Path, name: str, values: pa.Array) -> int:
    """What a column takes when its texts are no longer encoded."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_dictionary(values.type):
        return int(values.nbytes)
    lengths = pc.binary_length(values.dictionary)
    longest = pc.max(lengths).as_py() or 0
    if longest > _TEXT_BYTES:
        raise DataError(f"{path}: column {name!r} holds a text of {longest:,} bytes; at most {_TEXT_BYTES:,} are read")
    texts = pc.sum(pc.cast(pc.take(lengths, values.indices), pa.int64())).as_py() or 0
    return int(texts) + int(values.indices.nbytes)


def _joined(field: Any, parts: list[pa.Array]) -> pa.Array:
    import pyarrow as pa

    decoded = [part.dictionary_decode() if pa.types.is_dictionary(part.type) else part for part in parts]
    if pa.types.is_decimal(field.type):
        decoded = [part.cast(pa.float64()) for part in decoded]
    if not decoded:
        return pa.array([], pa.float64() if pa.types.is_decimal(field.type) else field.type)
    return pa.concat_arrays(decoded)
