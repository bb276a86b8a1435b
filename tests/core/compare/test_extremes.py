"""Numbers that no score, threshold, cost or limit is: refused with a sentence, and none is changed silently."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import featherweight
from featherweight.core.compare import parquet
from featherweight.core.compare.inputs import Inputs, open_inputs
from featherweight.core.compare.tables import read_table, table_of
from featherweight.core.errors import DataError, FeatherweightError, RecipeError, UsageError
from featherweight.core.tensors import DType, TensorSpec
from tests.core.compare.test_programs import the_cases

COUNT = 80
LABELS = [0, 1] * (COUNT // 2)
ANY = st.one_of(st.floats(width=64), st.integers(-(10**400), 10**400), st.none(), st.text(max_size=3), st.booleans())


def compared(folder: Path, scores: Any, other: Any, **asked: Any) -> featherweight.ComparisonOutcome:
    ids = range(COUNT)
    asked = {"limits": {"auc_loss": 0.5, "flip_ratio_max": 0.9}, "threshold": 0.5, **asked}
    return featherweight.compare(
        {"id": ids, "score": scores}, {"id": ids, "score": other}, data={"id": ids, "y": LABELS}, label="y",
        out=folder / "v", record=folder / f"{np.random.default_rng().integers(2**60)}.jsonl", **asked,
    )  # fmt: skip


SCORES = np.random.default_rng(0).random(COUNT)


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"in_force": 0.5, "cost_missed": 1e308, "cost_alarm": 1e308}, "cost"),
        ({"in_force": 0.5, "cost_missed": float("nan"), "cost_alarm": 1}, "cost"),
        ({"in_force": 10**400}, "threshold in force"),
        ({"in_force": 0.5, "prevalence": 10**400}, "prevalence"),
        ({"threshold": 1e308}, "threshold"),
        ({"threshold": 10**400}, "threshold"),
        ({"threshold": [0.5, 0.5, 0.5]}, "found 3 of them"),
        ({"threshold": {5: 1e40}}, "threshold 5"),
        ({"threshold": "0.5"}, "threshold"),
        ({"limits": {5: 0.1}}, "found a int as a name"),
        ({"limits": {"auc_loss": 10**400}}, "auc_loss"),
        ({"limits": {"auc_loss": float("inf")}}, "auc_loss: found inf"),
        ({"seed": -1}, "seed"),
        ({"cluster": ["y", "y"]}, "different ones"),
    ],
)
def test_what_is_asked_with_extreme_numbers_is_refused(tmp_path: Path, asked: dict[str, Any], said: str) -> None:
    with pytest.raises((UsageError, RecipeError), match=said):
        compared(tmp_path, SCORES, SCORES + 0.01, **asked)
    assert not list(tmp_path.iterdir())  # no use of the cases is written down either


def test_a_list_of_two_thresholds_is_one_for_each_model(tmp_path: Path) -> None:
    assert compared(tmp_path, SCORES, SCORES + 0.01, threshold=[0.5, 0.51]).passed


@pytest.mark.parametrize("largest", [1e31, 1e308, -1e308])
def test_scores_that_no_model_gives_are_refused(tmp_path: Path, largest: float) -> None:
    scores = np.where(np.arange(COUNT) == 3, largest, SCORES)
    with pytest.raises(DataError, match=r"gives 1 case a score beyond 1e\+30"):
        compared(tmp_path, scores, SCORES)


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_the_largest_numbers_that_are_taken_give_finite_figures(tmp_path: Path, data: st.DataObject) -> None:
    number = st.one_of(st.floats(-1e30, 1e30), st.sampled_from([1e30, -1e30, 0.0, 5e-324, 1e-300]))
    scores = [data.draw(st.lists(number, min_size=COUNT, max_size=COUNT)) for _ in range(2)]
    cost = st.one_of(st.floats(1e-29, 1e30), st.sampled_from([1e30, 1e-29]))
    found = compared(
        tmp_path, *scores, threshold=data.draw(number), in_force=data.draw(number), cost_missed=data.draw(cost),
        cost_alarm=data.draw(cost), prevalence=data.draw(st.sampled_from([1e-300, 0.5, 1 - 1e-16])), show_test=True,
    )  # fmt: skip
    assert "nan" not in found.document.read_text("utf-8").lower().replace("tenance", "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ANY, ANY, ANY, ANY)
def test_whatever_is_asked_by_programs_is_judged_or_refused(
    tmp_path: Path, threshold: Any, in_force: Any, prevalence: Any, cost: Any
) -> None:
    try:
        compared(
            tmp_path, SCORES[:0], SCORES, threshold=threshold, in_force=in_force, prevalence=prevalence,
            cost_missed=cost, cost_alarm=cost,
        )  # fmt: skip
    except FeatherweightError as error:
        assert str(error)  # noqa: PT017  (of no rows, so that nothing is ever judged here)


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1e300, 3.0], "float32"),
        ([-3.5e38, 3.0], "float32"),
        ([2.0**63, 3.0], "int64"),
        ([2.0**31, 3.0], "int32"),
        ([0.5, 3.0], "int32"),
        ([np.nan, 3.0], "int64"),
        (np.array([2**63, 3], np.uint64), "int64"),
        (["Meier", "2"], "float32"),
        (["Meier", "2"], "int64"),
        (np.array([1 + 1j, 2]), "float32"),
    ],
)
def test_inputs_that_would_become_other_numbers_are_refused(values: Any, dtype: DType) -> None:
    inputs = Inputs("x.npz", {"a": np.array(values)}, None, np.array([0, 1]))
    with pytest.raises(DataError, match=f"input 'a' takes {dtype}; found") as found:
        inputs.tensors((TensorSpec("a", dtype, (None,)),))
    assert "Meier" not in str(found.value)


@given(st.lists(st.one_of(st.floats(), st.integers(-(2**64), 2**64).map(float)), min_size=1, max_size=5))
def test_whole_numbers_come_out_as_they_went_in(values: list[float]) -> None:
    inputs = Inputs("x.npz", {"a": np.array(values)}, None, np.arange(len(values)))
    try:
        found = inputs.tensors((TensorSpec("a", "int64", (None,)),))["a"]
    except DataError:
        return
    assert found.tolist() == values


@pytest.mark.parametrize(
    "values", [[2**53 + 1, 5], [-(2**60), 5], ["9007199254740993", "5"], ["-99999999999999999", ""]]
)
def test_whole_numbers_that_are_not_exact_are_refused(values: list[Any]) -> None:
    with pytest.raises(DataError, match="holds whole numbers beyond 9,007,199,254,740,992"):
        table_of("t", {"x": values}).numbers("x", may_lack=True)
    assert table_of("t", {"x": [2**53, -(2**53)]}).numbers("x").tolist() == [2.0**53, -(2.0**53)]


def test_an_archive_of_texts_is_refused_without_them(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", id=np.arange(600), x=np.array(["Meier"] * 600))
    ids = {"id": range(600), "y": [0, 1] * 300}
    from featherweight.core.compare.cases import Columns, read_cases

    inputs = open_inputs(tmp_path / "x.npz", read_cases(table_of("data", ids), Columns("y")), "id", ())
    with pytest.raises(DataError, match="no numbers") as found:
        inputs.tensors((TensorSpec("x", "float32", (None, 1)),))
    assert "Meier" not in str(found.value)


# ---------------------------------------------------------------------------------------------------- Parquet


def test_columns_of_equal_numbers_take_what_they_take_unpacked(tmp_path: Path) -> None:
    """A megabyte that says it holds a few, and unpacks to 1.3 GB; a column that is not asked for costs nothing."""
    rows = 1_900_000
    column = pa.array(np.zeros(rows))
    pq.write_table(pa.table({f"c{place}": column for place in range(90)}), tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 1_000_000
    with pytest.raises(DataError, match="90 columns take 1,368,000,000 bytes"):
        read_table(tmp_path / "t.parquet")
    pool = pa.default_memory_pool()
    before = pool.bytes_allocated()
    found = read_table(tmp_path / "t.parquet", ("c7", "none"))
    assert (list(found.columns), len(found.others), found.rows) == (["c7"], 89, rows)
    assert pool.bytes_allocated() - before < 20_000_000
    with pytest.raises(DataError, match="there is no column 'none'; found 'c7', 'c0'"):
        found.numbers("none")


def test_texts_that_a_dictionary_stands_for_are_counted_before_they_are_unpacked(tmp_path: Path) -> None:
    """Each is short enough; together 2.4 GB, of a file of 250 kB. By its own process, which may take 2 GB more."""
    rows = pa.DictionaryArray.from_arrays(pa.array(np.zeros(1_200_000, np.int32)), pa.array(["x" * 1990]))
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": rows}), path)
    assert path.stat().st_size < 300_000
    program = (
        "import resource, pyarrow, pyarrow.parquet, pyarrow.compute\n"
        "from pathlib import Path\n"
        "from featherweight.core.compare.tables import read_table\n"
        "from featherweight.core.errors import DataError\n"
        "used = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()\n"
        "resource.setrlimit(resource.RLIMIT_AS, (used + (2 << 30), used + (2 << 30)))\n"
        f"try: read_table(Path({str(path)!r}))\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "its columns take more than 1,073,741,824 bytes" in done.stdout


def test_a_dictionary_of_texts_is_a_column_of_texts(tmp_path: Path) -> None:
    values = pa.array(["a", None, "b", "a"]).dictionary_encode()
    pq.write_table(pa.table({"id": values}), tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet").texts("id", missing="?") == ["a", "?", "b", "a"]


@pytest.mark.parametrize(
    "column",
    [
        pa.array([[1, 2], [3]]),
        pa.array([{"a": 1}, {"a": 2}]),
        pa.array([b"Meier", b"x"]),
        pa.array([b"Meier", b"x"]).dictionary_encode(),
        pa.nulls(2),
    ],
)
def test_other_types_are_refused_before_they_are_read(tmp_path: Path, column: pa.Array) -> None:
    """Where they are asked for; else they are left aside."""
    pq.write_table(pa.table({"x": column, "id": ["a", "b"]}), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"column 'x' holds .*; expected texts or numbers"):
        read_table(tmp_path / "t.parquet", ("x",))
    assert "x" not in read_table(tmp_path / "t.parquet").columns
    assert read_table(tmp_path / "t.parquet", ("id",)).texts("id") == ["a", "b"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_parquet_file_with_changed_bytes_is_read_or_refused(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"id": [f"Meier {k % 7}" for k in range(300)], "score": np.arange(300.0)}), path)
    content = bytearray(path.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(4, len(content) - 5))] = data.draw(st.integers(0, 255))
    path.write_bytes(bytes(content))
    try:
        found = read_table(path, ("id", "score"))
        for name in found.columns:
            found.texts("id") if name == "id" else found.numbers(name)
    except DataError as error:
        assert "Meier" not in str(error)  # noqa: PT017  (most changes are noticed, some change a value)


def test_a_file_that_changed_between_its_two_readings_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    ids = [f"case {place}" for place in range(600)]
    pq.write_table(pa.table({"id": ids, "a": np.zeros(600)}), path)
    inputs = open_inputs(path, the_cases(), "id", ("a",))
    assert inputs.columns(["a"])[0].tolist() == [0] * 600
    pq.write_table(pa.table({"id": ids[::-1], "a": np.ones(600)}), path)
    with pytest.raises(DataError, match="was changed while it was read"):
        inputs.columns(["a"])


def test_what_is_unpacked_is_counted_by_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"id": [f"{k:0100}" for k in range(1000)]}), tmp_path / "t.parquet")
    monkeypatch.setattr(parquet, "MAX_BYTES", 50_000)
    with pytest.raises(DataError, match="more than 50,000 bytes"):
        read_table(tmp_path / "t.parquet")
