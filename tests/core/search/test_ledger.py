"""The ledger: what was kept is found as it was, and nothing else is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featherweight.core.errors import OutputError
from featherweight.core.search.ledger import Entry, Ledger
from featherweight.core.tensors import digest_tensors

plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
kinds = st.sampled_from([np.float64, np.float32, np.uint8, np.int64])
some_arrays = kinds.flatmap(
    lambda kind: arrays.arrays(kind, arrays.array_shapes(max_dims=3, max_side=4, min_side=0))  # empty ones too
)


@given(st.dictionaries(st.text(), plain, max_size=3), st.dictionaries(st.from_regex(r"\A[a-z]{1,5}\Z"), some_arrays))
def test_what_is_kept_is_found_bit_by_bit(
    tmp_path_factory: pytest.TempPathFactory, facts: dict[str, Any], tensors: dict[str, Any]
) -> None:
    folder = tmp_path_factory.mktemp("ledger")
    key = {"steps": [1, "a"], "host": {"cpu": "x"}}
    Ledger(folder).keep("built", key, Entry(facts, tensors))
    found = Ledger(folder).find("built", dict(reversed(key.items())))
    assert found is not None
    assert found.facts == facts
    assert found.arrays.keys() == tensors.keys()
    for name, array in tensors.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()


def test_another_key_or_kind_is_not_found(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "not" / "yet")
    assert ledger.find("built", {"a": 1}) is None
    ledger.keep("built", {"a": 1}, Entry({"x": 1}))
    assert ledger.written == 1
    assert ledger.find("built", {"a": 1}) == Entry({"x": 1})
    assert ledger.find("built", {"a": 2}) is None
    assert ledger.find("scored", {"a": 1}) is None


def test_a_damaged_or_foreign_file_is_as_if_it_were_not_there(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path)
    ledger.keep("built", {"a": 1}, Entry({"x": 1}, {"program": np.arange(200, dtype=np.uint8)}))
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[-7] ^= 1
    for damaged in (b"", whole[:50], whole[:-1], bytes(flipped), b"\xff" * 400):
        path.write_bytes(damaged)
        assert ledger.find("built", {"a": 1}) is None
    path.write_bytes(whole)
    assert ledger.find("built", {"a": 1}) is not None
    ledger.keep("built", {"a": 2}, Entry())
    other = next(one for one in tmp_path.iterdir() if one != path)
    other.write_bytes(whole)  # whole, but of another key
    assert ledger.find("built", {"a": 2}) is None


def test_no_changed_bit_of_a_file_gives_other_facts_or_values(tmp_path: Path) -> None:
    ledger, entry = Ledger(tmp_path), Entry({"work": 123.0, "why": ["é"]}, {"scores": np.arange(3.0)})
    ledger.keep("cost", {"a": 1}, entry)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for bit in range(8 * len(whole)):
        damaged = bytearray(whole)
        damaged[bit // 8] ^= 1 << bit % 8
        path.write_bytes(damaged)
        found = ledger.find("cost", {"a": 1})
        assert found is None or (found.facts == entry.facts and found.arrays["scores"].tolist() == [0, 1, 2])


def test_two_runs_may_keep_the_same_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def other_first(path: Path, content: bytes) -> int:
        """Another process keeps the same entry between two steps of this one's."""
        monkeypatch.undo()
        written = path.write_bytes(content)
        Ledger(tmp_path).keep("built", {"a": 1}, Entry({"x": 1}))
        return written

    monkeypatch.setattr(Path, "write_bytes", other_first)
    Ledger(tmp_path).keep("built", {"a": 1}, Entry({"x": 1}))
    assert Ledger(tmp_path).find("built", {"a": 1}) == Entry({"x": 1})
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    assert Ledger(tmp_path / ("x" * 300)).find("built", {}) is None
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match="cannot be kept"):
        Ledger(tmp_path / "file" / "ledger").keep("built", {}, Entry())


def test_digests_tell_names_types_shapes_and_values() -> None:
    one = np.arange(6, dtype=np.float32)
    digests = {
        digest_tensors(tensors)
        for tensors in (
            {"a": one},
            {"b": one},
            {"a": one.astype(np.float64)},
            {"a": one.reshape(2, 3)},
            {"a": one[::-1]},
            {"a": one, "b": one},
        )
    }
    assert len(digests) == 6
    assert digest_tensors({"a": one.reshape(2, 3).T}) == digest_tensors(
        {"a": np.ascontiguousarray(one.reshape(2, 3).T)}
    )
