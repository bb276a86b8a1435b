"""Tables from outside: what is read, what is refused, and that no message quotes what a table holds."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.core.compare import archives, bounded, parquet
from featherweight.core.compare.archives import read_arrays
from featherweight.core.compare.tables import read_table, table_of
from featherweight.core.errors import DataError
from tests.core.compare.tabled import write

NAME = "Meier"


def refused(path: Path, said: str) -> None:
    with pytest.raises(DataError, match=said) as found:
        read_table(path)
    assert NAME not in str(found.value)
    assert str(path) in str(found.value)


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".pq"])
def test_columns_are_read_by_kind(tmp_path: Path, suffix: str) -> None:
    columns = {"id": [7, 8, 9], "site": ["a", "b, c", 'd"e'], "score": [0.5, -1.0, 1e-300], "age": [1.5, None, 3.0]}
    table = read_table(write(tmp_path / f"t{suffix}", columns))
    assert table.texts("id") == ["7", "8", "9"]
    assert table.texts("site") == columns["site"]
    assert table.numbers("score").tolist() == columns["score"]
    np.testing.assert_array_equal(table.numbers("age", may_lack=True), [1.5, np.nan, 3.0])
    with pytest.raises(DataError, match=r"'age' is no finite number in 1 row \(row 2\)"):
        table.numbers("age")
    with pytest.raises(DataError, match=r"no column 'none'; found 'id', 'site'"):
        table.texts("none")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf", "", NAME, "1,0", "0x1p3"])
def test_what_is_no_finite_number_is_refused(tmp_path: Path, value: str) -> None:
    path = tmp_path / "t.csv"
    path.write_text(f'id,score\n1,0.5\n2,"{value}"\n')
    with pytest.raises(DataError, match=r"'score' (is no finite number in 1 row \(row 2\)|holds texts that)") as found:
        read_table(path).numbers("score")
    assert NAME not in str(found.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"id,score\n1,2\n3,4,Meier\n", "line 3 has more or fewer cells"),
        (b"id,score\n1,2\n3\n", "line 3 has more or fewer cells"),
        (b"id;score\n1;2\n", "separated by ';'"),
        (b"id,score,id\n1,2,3\n", "names 'id' twice"),
        (b"id,,score\n1,2,3\n", "without a name"),
        (b"id,score\n", "holds no rows"),
        (b"", "the first line is empty"),
        (b"\xff\xfei\x00d\x00", "no header of CSV in UTF-8"),
        (b"id,score\nMeier\xff,2\n", "cannot be read as CSV in UTF-8"),
        (b'id,score\n"Meier,2\n', "cannot be read as CSV|cells"),
    ],
)
def test_a_damaged_csv_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    refused(tmp_path / "t.csv", said)


def test_a_damaged_parquet_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.parquet", {"id": [NAME] * 100, "score": np.arange(100.0)})
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    refused(path, "cannot be read as Parquet")
    path.write_bytes(b"PAR1" + b"\0" * 100 + b"PAR1")
    refused(path, "cannot be read as Parquet")
    changed = bytearray(content)
    changed[20:60] = bytes(40)
    path.write_bytes(bytes(changed))
    refused(path, "cannot be read as Parquet")


def test_few_bytes_that_stand_for_many_rows_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(300_000, np.int32)), pa.array(["x" * 400]))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": rows}), path)
    assert path.stat().st_size < 20_000
    monkeypatch.setattr(parquet, "MAX_ROWS", 100_000)
    refused(path, "300,000 rows")


def test_a_long_text_that_stands_in_many_rows_is_never_unpacked(tmp_path: Path) -> None:
    """As plain texts it would take 20 GB."""
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(100_000, np.int32)), pa.array(["x" * 200_000]))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": rows}), path)
    refused(path, "a text of 200,000 bytes")


def test_a_file_too_large_a_pipe_and_a_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe.csv")
    refused(tmp_path / "pipe.csv", "expected a regular file")
    (tmp_path / "folder.csv").mkdir()
    refused(tmp_path / "folder.csv", "expected a regular file")
    refused(tmp_path / "none.csv", "No such file")
    path = write(tmp_path / "t.csv", {"id": [1]})
    with pytest.raises(DataError, match="at most 2 are read"), bounded.open_bounded(path, 2):
        pass


def test_a_table_in_memory() -> None:
    table = table_of("a", {"id": range(3), "score": np.array([1, 2, 3], np.float32)})
    assert table.texts("id") == ["0", "1", "2"]
    assert table.numbers("score").tolist() == [1, 2, 3]
    with pytest.raises(DataError, match=r"numbers of rows \(2, 3\)"):
        table_of("a", {"id": [1, 2, 3], "score": [1, 2]})
    with pytest.raises(DataError, match="'x' is not one value a row"):
        table_of("a", {"x": np.zeros((2, 2))})


def test_an_archive_of_arrays_is_read(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez_compressed(path, id=np.array(["a", "b"]), x=np.ones((2, 3), np.float32, order="F"))
    found = read_arrays(path)
    assert found["id"].tolist() == ["a", "b"]
    np.testing.assert_array_equal(found["x"], np.ones((2, 3)))


def test_a_hostile_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.array([{"run": "me"}], dtype=object))
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_arrays(path)
    path.write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_arrays(path)
    np.savez_compressed(path, x=np.zeros(1_000_000))  # 8 MB of a few kB
    monkeypatch.setattr(archives, "MAX_BYTES", 100_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_arrays(path)


def test_a_header_that_claims_more_than_is_there_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, x=np.zeros(1000, np.uint8))
    content = path.read_bytes()
    assert content.count(b"(1000,)") == 1
    import zipfile

    with zipfile.ZipFile(path) as archive:
        member = archive.read("x.npy").replace(b"(1000,), }   ", b"(10000000,),}")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x.npy", member)
    with pytest.raises(DataError, match=r"numpy\.savez"):
        read_arrays(path)
