"""Sorting in bounded memory."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.apps.fraud.files import sorting
from featherweight.apps.fraud.files.sorting import sort_items
from featherweight.core.errors import OutputError


@given(
    st.lists(st.tuples(st.integers(-3, 3) | st.integers(-(1 << 63), (1 << 63) - 1), st.binary(max_size=9))),
    st.sampled_from([1, 400, 2000]),
    st.integers(2, 4),
)
def test_items_of_the_same_key_keep_their_order(items: list[tuple[int, bytes]], run_bytes: int, runs: int) -> None:
    """From one run in memory to many, which become one again and again."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(sorting, "RUN_BYTES", run_bytes)
        patch.setattr(sorting, "RUNS", runs)
        assert list(sort_items(iter(items), Path(folder))) == sorted(items, key=lambda item: item[0])
        assert not list(Path(folder).iterdir()), "runs have no name"


def test_no_more_than_a_run_is_held(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 1 << 14)
    largest = 0
    write = sorting._write_run

    def measured(items: list[tuple[int, bytes]], *rest: object) -> object:
        nonlocal largest
        largest = max(largest, sum(map(len, (content for _, content in items))))
        return write(items, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(sorting, "_write_run", measured)
    count = sum(1 for _ in sort_items(((-number, b"x" * 100) for number in range(5000)), tmp_path))
    assert count == 5000
    assert 0 < largest <= 1 << 14


def test_a_folder_that_takes_nothing_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(sorting, "RUN_BYTES", 1)
    with pytest.raises(OutputError, match="cannot be put in the order of time here"):
        list(sort_items([(1, b"x")], tmp_path / "nothing"))


def test_a_full_disk_is_told_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Closing what could not be written raises again, and must not hide it."""
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda **_: io.open("/dev/full", "rb+"))  # noqa: SIM115, UP020
    monkeypatch.setattr(sorting, "RUN_BYTES", 1)
    with pytest.raises(OutputError, match="No space left"):
        list(sort_items([(1, b"x")], tmp_path))
