"""Result tables as Parquet, streamed: the memory taken does not grow with the number of rows."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from featherweight.apps.imaging.writers.atomic import replace_result
from featherweight.apps.imaging.writers.rows import Columns, Row

GROUP_ROWS = 20_000


def write_parquet(path: Path, columns: Columns[Row], rows: Iterable[Row]) -> None:
    """Raises OutputError when the file cannot be written; it is then as it was."""
    # Loaded here: it is large, and the job needs it only when all is classified.
    import pyarrow as pa
    from pyarrow import parquet

    types = {
        "text": pa.string(),
        "word": pa.dictionary(pa.int32(), pa.string()),
        "integer": pa.int64(),
        "real": pa.float64(),
    }
    schema = pa.schema([pa.field(name, types[column.kind], nullable=False) for name, column in columns.items()])
    remaining = iter(rows)
    with (
        replace_result(path) as partial,
        partial.open("wb") as file,  # pyarrow itself opens no path that is not UTF-8
        parquet.ParquetWriter(file, schema, compression="zstd") as writer,
    ):
        while group := list(islice(remaining, GROUP_ROWS)):
            arrays = [
                pa.array([column.value(row) for row in group], type=schema.field(name).type)
                for name, column in columns.items()
            ]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
