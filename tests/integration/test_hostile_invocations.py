"""Commands that are asked for what cannot be done: each ends with a message and its exit code, never with a traceback.

They run in this process: an exception that is not a SystemExit would be the traceback that a person sees.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featherweight.apps.fraud.synthetic import write_synthetic
from featherweight.core.bundled import data_directory
from featherweight.core.cli import main
from tests.imaging.tiny import write_images, write_model

Invoke = Callable[..., tuple[int, str]]
LONG = "x" * 300
"""No file system takes a name of so many bytes."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the cases name: sound inputs, and what lies where something else is expected."""
    root = tmp_path_factory.mktemp("place")
    write_model(root / "model")
    write_images(root / "images", 6)
    (root / "file").write_text("x")
    (root / "empty").mkdir()
    os.mkfifo(root / "pipe")
    os.mkfifo(root / "pipe.csv")
    return root


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards")
    write_synthetic(folder, customers=100, terminals=200, days=50)
    return folder


@pytest.fixture
def invoke(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Invoke:
    monkeypatch.chdir(place)

    def run(words: str | list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["featherweight", *(words.split() if isinstance(words, str) else words)])
        with pytest.raises(SystemExit) as ended:
            main()
        output = capsys.readouterr()
        code = ended.value.code
        return (code if isinstance(code, int) else int(code is not None)), " ".join(
            (output.err + output.out).replace("│", " ").split()
        )

    return run


@contextlib.contextmanager
def mounted(point: Path, options: str) -> Iterator[Path]:
    point.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(point)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("mounting a file system needs root")
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], check=True)


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    with mounted(tmp_path / "read-only", "ro,size=64k") as point:
        yield point


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["imaging", "classify", "", "--out", "out"], "argument 3 is empty"),
        (["imaging", "classify", "images", "--out", ""], "argument 5 (--out) is empty"),
        (["imaging", "classify", "images", "--out="], "argument 4 (--out) is empty"),
        (["artifact", "verify", ""], "argument 3 is empty"),
    ],
)
def test_an_empty_argument_is_not_the_current_folder(words: list[str], said: str, invoke: Invoke, place: Path) -> None:
    """A variable of the shell that is not set, in quotes, is one."""
    before = sorted(place.iterdir())
    found, text = invoke(words)
    assert (found, said in text) == (2, True), text
    assert sorted(place.iterdir()) == before


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("images --out file", 6, "choose another --out"),
        ("images --out file/out", 6, "choose another --out"),
        ("images --out /dev/null", 6, "choose another --out"),
        (f"images --out {LONG}", 6, "choose another --out"),
        ("missing --out out", 2, "no such file or folder"),
        (f"{LONG} --out out", 2, "cannot be looked at"),
        ("empty --out out", 2, "holds no files to classify"),
        ("pipe.csv --out out", 2, "expected a list that is a regular file"),
        ("images --out out --model file", 2, "is not a folder"),
        ("images --out out --model pipe", 2, "is not a folder"),
        ("images --out out --model empty", 2, "empty is empty"),
        ("images --out out --model missing", 2, "no such folder"),
        ("images --out out --backend none", 2, "no backend is called"),
        ("images --out out --workers 0", 2, "--workers"),
        ("images --out out --decode-timeout nan", 2, "--decode-timeout"),
    ],
)
def test_classify(words: str, code: int, message: str, invoke: Invoke, place: Path) -> None:
    model = [] if "--model" in words else ["--model", str(place / "model")]
    found, text = invoke(["imaging", "classify", *words.split(), *model])
    assert (found, message in text) == (code, True), text
    assert not (place / "out").exists()


CSV_LISTS = {
    "empty": (b"", "expected one named `path`"),
    "no column": (b"a,b\n1,2\n", "expected one named `path`"),
    "two columns": (b"path,path\na.png,b.png\n", "expected one named `path`"),
    "no row": (b"path\n", "holds no files"),
    "a NUL in a name": (b"path\na\0b\n", "is empty or not a path"),
    "a NUL in a column": (b"pa\0th\na\n", "expected one named `path`"),
    "a short row": (b"a,path\n1\n", "is empty or not a path"),
    "twice": (b"path\na.png\na.png\n", "is listed twice"),
    "an open quote": (b'path\n"abc', "cannot be read as CSV"),
    "a long field": (b"path\n" + b"x" * 200_000, "cannot be read as CSV"),
    "UTF-16": ("path\na.png\n".encode("utf-16"), "cannot be read as CSV"),
    "gzip": (gzip.compress(b"path\na.png\n"), "cannot be read as CSV"),
}


@pytest.mark.parametrize(("content", "message"), CSV_LISTS.values(), ids=CSV_LISTS.keys())
def test_classify_a_csv_list(content: bytes, message: str, invoke: Invoke, place: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_bytes(content)
    words = ["imaging", "classify", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--model", "model"]
    code, text = invoke(words)
    assert (code, message in text) == (2, True), text


PARQUET_LISTS = {
    "numbers": pa.table({"path": [1, 2]}),
    "lists": pa.table({"path": [["a"], ["b"]]}),
    "bytes": pa.table({"path": [b"\xff"]}),
    "times beyond all": pa.table({"path": pa.array([2**62], pa.timestamp("us"))}),
    "nothing": pa.table({"path": pa.nulls(2)}),
    "a null": pa.table({"path": ["a", None]}),
    "text that is not UTF-8": pa.table({"path": pa.array([b"\xff\xfe"], pa.binary()).view(pa.string())}),
    "another column": pa.table({"x": ["a"]}),
    "two columns": pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["path", "path"]),
    "a billion equal rows": None,
    "no rows": pa.table({"path": pa.array([], pa.string())}),
}


@pytest.mark.parametrize("table", PARQUET_LISTS.values(), ids=PARQUET_LISTS.keys())
def test_classify_a_parquet_list(table: pa.Table | None, invoke: Invoke, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    if table is not None:
        pq.write_table(table, path)
    else:
        equal = pa.DictionaryArray.from_arrays(pa.array([0] * 1_000_000, pa.int8()), ["a.png"])
        with pq.ParquetWriter(path, pa.schema([("path", equal.type)])) as writer:
            for _ in range(50):
                writer.write_table(pa.table({"path": equal}))
    code, text = invoke(["imaging", "classify", str(path), "--out", str(tmp_path / "out"), "--model", "model"])
    assert code == 2, text
    assert "error: " in text


@pytest.mark.parametrize("damage", ["cut", "head only", "noise"])
def test_classify_a_damaged_parquet_list(damage: str, invoke: Invoke, place: Path, tmp_path: Path) -> None:
    path = tmp_path / "list.parquet"
    pq.write_table(pa.table({"path": ["a.png", "b.png"]}), path)
    content = path.read_bytes()
    noise = b"PAR1" + bytes(range(256)) * 4 + b"PAR1"
    path.write_bytes({"cut": content[: len(content) // 2], "head only": b"PAR1", "noise": noise}[damage])
    code, text = invoke(["imaging", "classify", str(path), "--out", str(tmp_path / "out"), "--model", "model"])
    assert (code, "cannot be read as Parquet" in text) == (2, True), text


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("imaging synthesize file --count 2", 6, "cannot be written"),
        (f"imaging synthesize {LONG} --count 2", 6, "cannot be written"),
        ("imaging synthesize out --count 2 --seed -1", 2, "--seed"),
        ("imaging train --data missing --out out", 2, "missing"),
        ("imaging train --data file --out out", 2, "file"),
        ("imaging train --data empty --out out", 2, "empty"),
        (f"imaging train --data {LONG} --out out", 2, LONG[:9]),
        ("imaging train --data empty --out out --format none", 2, "none"),
        ("imaging train --data empty --out out --network none", 2, "none"),
        ("imaging train --data empty --out out --split-seed -1", 2, "split-seed"),
        ("fraud synthesize file --days 2", 6, "cannot be written"),
        (f"fraud synthesize {LONG} --days 2", 6, "cannot be written"),
        ("fraud synthesize out --days 2 --seed -1", 2, "--seed"),
        ("fraud train --data missing --out out", 2, "missing"),
        ("fraud train --data file --out out", 2, "file"),
        ("fraud train --data empty --out out", 2, "empty"),
        (f"fraud train --data {LONG} --out out", 2, LONG[:9]),
        ("fraud train --data file --out out --format handbook", 2, "file"),
        ("fraud train --data file --out out --format ulb", 2, "file"),
        ("fraud train --data file --out out --format none", 2, "none"),
        ("fraud train --data file --out out --model none", 2, "none"),
        ("fraud train --data empty --out file", 6, "cannot be written"),
        (f"fraud train --data empty --out {LONG}", 6, "cannot be written"),
        ("data fetch none", 2, "no data set named"),
        ("data fetch pneumoniamnist --from missing --to out", 2, "no such file"),
        (f"data fetch pneumoniamnist --from {LONG} --to out", 2, LONG[:9]),
        ("data fetch pneumoniamnist --from file --to out", 2, "expected"),
        ("data fetch pneumoniamnist --from pipe --to out", 2, "no such file"),
        ("data fetch pneumoniamnist --from file --to file", 6, "cannot be made"),
        (f"data fetch pneumoniamnist --from file --to {LONG}", 6, LONG[:9]),
    ],
)
def test_the_other_commands(words: str, code: int, message: str, invoke: Invoke) -> None:
    found, text = invoke(words)
    assert (found, message in text) == (code, True), text


@pytest.mark.parametrize("folder", ["file", "missing", LONG, "/dev/null", "pipe"])
def test_a_data_folder_that_is_not_valid(folder: str, invoke: Invoke, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEATHERWEIGHT_DATA", folder)
    assert invoke("data list")[0] == 0
    assert invoke("data list --json")[0] == 0
    code, text = invoke("imaging train --data pneumoniamnist --format medmnist --out out")
    assert (code, "error: " in text) == (2, True), text


@pytest.mark.parametrize("kind", ["folder", "pipe", "link"])
def test_what_lies_where_a_download_gathers(kind: str, invoke: Invoke, tmp_path: Path) -> None:
    """Nothing is written through a link or waited for, also when what was found has the wrong digest."""
    name = tomllib.loads((data_directory() / "catalogue.toml").read_text())["pneumoniamnist"]["file"]
    (tmp_path / "victim").write_bytes(b"mine")
    part = tmp_path / f"{name}.part"
    match kind:
        case "folder":
            part.mkdir()
        case "pipe":
            os.mkfifo(part)
        case "link":
            part.symlink_to(tmp_path / "victim")
    code, text = invoke(["data", "fetch", "pneumoniamnist", "--from", "file", "--to", str(tmp_path)])
    assert (code, "error: " in text) == (2, True), text
    assert (tmp_path / "victim").read_bytes() == b"mine"


@pytest.mark.parametrize("size", ["8k", "16k", "24k", "60k"])
@pytest.mark.parametrize("form", ["", "--jsonl"])
def test_transactions_that_do_not_fit_are_not_there(size: str, form: str, invoke: Invoke, tmp_path: Path) -> None:
    """Cut short, they would be read as fewer transactions."""
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        code, text = invoke(f"fraud synthesize {disk}/out --customers 300 --terminals 300 --days 30 {form}")
        assert (code, "No space left on device" in text) == (6, True), text
        assert list((disk / "out").iterdir()) == []


@pytest.mark.parametrize("size", ["4k", "12k"])
def test_a_model_that_does_not_fit(size: str, cards: Path, invoke: Invoke, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", f"size={size}") as disk:
        code, text = invoke(f"fraud train --data {cards} --model logistic --alerts-per-day 10 --out {disk}/out")
        assert (code, "No space left on device" in text) == (6, True), text
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_decisions_that_do_not_fit(name: str, cards: Path, invoke: Invoke, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk", "size=16k") as disk:
        code, text = invoke(f"fraud score --input {cards}/transactions.parquet --output {disk}/{name}")
        assert (code, "No space left on device" in text) == (6, True), text
        assert list(disk.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("--until 0001-01-01", "the year 1"),
        ("--until 9999-12-31", "the data ends on"),
        ("--train-days 1000000000", "the year 1"),
        ("--alerts-per-day nan", "--alerts-per-day"),
    ],
)
def test_days_that_are_not_in_the_data(options: str, message: str, cards: Path, invoke: Invoke) -> None:
    code, text = invoke(f"fraud train --data {cards} --model logistic --out out {options}")
    assert (code, message in text) == (2, True), text


def test_days_without_a_transaction(invoke: Invoke, tmp_path: Path) -> None:
    """So few customers that all of their cards are known as compromised before the validation days."""
    invoke(f"fraud synthesize {tmp_path}/few --customers 40 --terminals 40 --days 50")
    code, text = invoke(f"fraud train --data {tmp_path}/few --model logistic --out {tmp_path}/out")
    assert (code, "no transaction is left in the" in text) == (2, True), text


@pytest.mark.parametrize(
    "words",
    [
        "imaging classify images --model model --out",
        "imaging synthesize --count 2",
        "fraud synthesize --days 2",
        "fraud train --data empty --out",
        "data fetch pneumoniamnist --from file --to",
    ],
)
def test_a_disk_that_may_not_be_written(words: str, invoke: Invoke, read_only: Path) -> None:
    code, text = invoke([*words.split(), str(read_only / "out")])
    assert (code, "Read-only file system" in text) == (6, True), text


FRAUD_INPUTS = {
    "a folder": ("empty", None, 2),
    "missing": ("missing", None, 2),
    "a long name": (LONG, None, 2),
    "Parquet cut short": ("t.parquet", b"PAR1", 2),
    "Parquet of noise": ("t.parquet", b"PAR1" + bytes(range(256)) + b"PAR1", 2),
    "Parquet whose foot is endless": ("t.parquet", b"PAR1\xff\xff\xff\x7fPAR1", 2),
    "gzip": ("t.jsonl.gz", gzip.compress(b'{"transaction_id": "1"}\n'), 2),
    "CSV of something else": ("t.csv", b"a,b\n1,2\n", 2),
    "NUL bytes": ("t.jsonl", b"\0" * 1000, 2),
    "no object": ("t.jsonl", b"[1]\n", 3),
    "deep": ("t.jsonl", b"[" * 10_000 + b"\n", 3),
    "one endless line": ("t.jsonl", b"{" * 1_000_000, 3),
    "UTF-16": ("t.jsonl", '{"transaction_id": "1"}\n'.encode("utf-16"), 2),
}


@pytest.mark.parametrize(("name", "content", "code"), FRAUD_INPUTS.values(), ids=FRAUD_INPUTS.keys())
def test_score(name: str, content: bytes | None, code: int, invoke: Invoke, tmp_path: Path) -> None:
    path = name if content is None else str(tmp_path / name)
    if content is not None:
        (tmp_path / name).write_bytes(content)
    found, text = invoke(["fraud", "score", "--input", path, "--output", str(tmp_path / "out.jsonl")])
    assert found == code, text
    assert (tmp_path / "out.jsonl").exists() == (code == 3)


def test_score_a_column_that_is_there_twice(invoke: Invoke, tmp_path: Path) -> None:
    """Which of them is the customer nobody knows."""
    names = ["transaction_id", "customer_id", "customer_id", "terminal_id", "time_ms", "amount"]
    columns = [pa.array([value]) for value in ("1", "a", "b", "t", 1_522_540_831_000, 1.0)]
    pq.write_table(pa.Table.from_arrays(columns, names=names), tmp_path / "t.parquet")
    code, text = invoke(
        ["fraud", "score", "--input", str(tmp_path / "t.parquet"), "--output", str(tmp_path / "out.jsonl")]
    )
    assert (code, "more than one column customer_id" in text) == (2, True), text


@pytest.mark.parametrize("output", ["file/x", "empty", "/dev/full", LONG, "missing/x", "."])
def test_score_into_what_cannot_be_written(output: str, invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(b"")
    code, text = invoke(["fraud", "score", "--input", str(tmp_path / "t.jsonl"), "--output", output])
    assert (code, "cannot be written" in text) == (6, True), text
