"""A user's own data: what fits a model, what does not, and in one line for each kind of fault."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler, TensorDataset, WeightedRandomSampler

from featherweight.core.doors.binding import BoundData, InputForm, bind
from featherweight.core.doors.data import Data
from featherweight.core.doors.splits import draw_split
from featherweight.core.errors import DataError
from featherweight.core.tensors import TensorSpec

TWO = InputForm((TensorSpec("features", "float32", (None, 2)),))
NAMED = InputForm((TensorSpec("features", "float32", (None, 2)),), ("dose", "age"))


def columns(count: int = 60) -> dict[str, Any]:
    generator = np.random.default_rng(0)
    return {
        "age": generator.normal(size=count),
        "dose": generator.normal(size=count),
        "y": np.arange(count) % 2,
        "split": np.array(["train", "val", "test"])[np.arange(count) // 2 % 3],
        "patient": [f"p{place // 2}" for place in range(count)],
    }


def bound(table: dict[str, Any], form: InputForm = NAMED, **meant: Any) -> BoundData:
    return bind(Data.read(table, **{"label": "y", "split": "split", "cluster": "patient", **meant}), form)


def test_features_come_in_the_models_order_by_their_names(tmp_path: Path) -> None:
    table = {**columns(), "note": ["free text"] * 60}
    pq.write_table(pa.table(table), tmp_path / "cases.parquet")
    data = Data.read(tmp_path / "cases.parquet", label="y", split="split", cluster="patient")
    found = bind(data, NAMED)
    train = found.parts["training"]
    assert found.columns == ("dose", "age")
    index = np.flatnonzero(table["split"] == "train")
    np.testing.assert_array_equal(train.tensors["features"][:, 0], table["dose"][index].astype(np.float32))
    np.testing.assert_array_equal(train.labels, table["y"][index])
    assert train.ids[0] == "row 1"
    assert train.clusters is not None
    assert train.clusters[:2] == ("p0", "p0")
    assert found.notes == ()


def test_a_csv_says_the_same_as_a_parquet_file(tmp_path: Path) -> None:
    table = columns()
    names = list(table)
    rows = [",".join(str(table[name][place]) for name in names) for place in range(60)]
    (tmp_path / "cases.csv").write_text("\n".join([",".join(names), *rows]) + "\n")
    pq.write_table(pa.table(table), tmp_path / "cases.parquet")
    one, other = (
        bind(Data.read(tmp_path / name, label="y", split="split"), NAMED).parts["test"]
        for name in ("cases.csv", "cases.parquet")
    )
    np.testing.assert_array_equal(one.tensors["features"], other.tensors["features"])
    np.testing.assert_array_equal(one.labels, other.labels)


@pytest.mark.parametrize(
    ("change", "meant", "says"),
    [
        ({"dose": None}, {}, "lacks 1 feature of the model .dose."),
        ({"dose": ["a"] * 60, "age": ["b"] * 60}, {}, r"2 features \(dose, age\): holds texts that are not numbers"),
        ({"age": [np.inf] * 60}, {}, "1 feature .age.: is no finite number in 60 rows"),
        ({"split": ["train", "later", "never"] * 20}, {}, r"holds 'later', 'never' in 40 rows; expected train"),
        ({"split": ["train"] * 60}, {}, "names no cases for validation or test"),
        ({"y": [0, 1, 2] * 20}, {}, "the training cases hold none of the classes 2"),
        ({"y": [1] * 60}, {}, "1 different label "),
        ({"y": ["ill", "well"] * 30}, {}, "name the positive one"),
        ({"y": ["ill", "well"] * 30}, {"positive": "sick"}, "no label is 'sick'"),
        ({}, {"label": "truth"}, "there is no column 'truth'"),
        ({}, {"groups": ("site",)}, "there is no column 'site'"),
        ({}, {"features": ("age",)}, "has 1 feature"),
    ],
)
def test_each_kind_of_fault_is_told_once(change: dict[str, Any], meant: dict[str, Any], says: str) -> None:
    table = {name: values for name, values in {**columns(), **change}.items() if values is not None}
    with pytest.raises(DataError, match=says) as caught:
        bound(table, **meant)
    assert len(str(caught.value).splitlines()) <= 3


def test_classes_have_names() -> None:
    table = {**columns(), "y": ["ill", "well"] * 30}
    assert bound(table, positive="ill").names == ("well", "ill")
    assert bound(table, positive="ill").parts["test"].labels.tolist()[:2] == [1, 0]
    classified = InputForm(NAMED.specs, NAMED.names, ("ill", "well"))
    assert bound(table, classified).names == ("ill", "well")
    assert bound({**columns(), "y": [False, True] * 30}).names == ("False", "True")


def test_a_split_is_drawn_with_clusters_and_copies_together() -> None:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(900, 2)).astype(np.float32)
    rows[300:310] = rows[600:610]  # the same inputs under other clusters
    labels = (generator.random(900) < 0.2).astype(np.int64)
    clusters = np.array([f"p{place // 3}" for place in range(900)])
    found = bind(Data(cases=(rows, labels), clusters=clusters), TWO)
    sizes = [len(part) for part in found.parts.values()]
    assert sum(sizes) == 900
    assert abs(sizes[0] - 540) < 30
    shares = [part.labels.mean() for part in found.parts.values()]
    assert max(shares) - min(shares) < 0.03
    owners = [set(part.clusters or ()) for part in found.parts.values()]
    inputs = [{row.tobytes() for row in part.tensors["features"]} for part in found.parts.values()]
    for kind in (owners, inputs):
        assert len(kind[0] | kind[1] | kind[2]) == sum(map(len, kind))
    (note,) = found.notes
    assert note.startswith("The split was drawn here (")
    again = draw_split({"features": rows}, labels, clusters.tolist(), 0)
    other = draw_split({"features": rows}, labels, clusters.tolist(), 1)
    assert len(again["test"]) == sizes[2]
    assert not np.array_equal(again["test"], other["test"])


def test_a_split_that_cannot_be_drawn_is_refused() -> None:
    rows = np.random.default_rng(0).normal(size=(40, 2))
    with pytest.raises(DataError, match="one of the labels has 3 cases"):
        bind(Data(cases=(rows, np.arange(40) < 3)), TWO)
    with pytest.raises(DataError, match="fewer than 5 clusters"):
        bind(Data(cases=(rows, np.arange(40) % 2), clusters=np.zeros(40)), TWO)


def test_datasets_and_loaders_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(90, 2, generator=generator)
    labels = (torch.arange(90) % 2).float()
    parts = [TensorDataset(inputs[part::3], labels[part::3]) for part in range(3)]
    data = Data(train=DataLoader(parts[0], batch_size=7), validation=parts[1], test=(inputs[2::3], labels[2::3]))
    found = bind(data, TWO)
    assert [len(part) for part in found.parts.values()] == [30, 30, 30]
    np.testing.assert_array_equal(found.parts["training"].tensors["features"], inputs[::3].numpy())
    np.testing.assert_array_equal(found.parts["validation"].labels, labels[1::3].numpy())


class Cases(Dataset[Any]):
    """Ninety cases of two columns, item by item made by `give`."""

    def __init__(self, give: Callable[[int], Any]) -> None:
        self.give = give

    def __len__(self) -> int:
        return 90

    def __getitem__(self, place: int) -> Any:
        if place >= 90:
            raise IndexError
        return self.give(place)


ROWS = torch.arange(180.0).reshape(90, 2)
PLAIN = Cases(lambda place: (ROWS[place], place % 2))


class Streamed(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return (PLAIN[place] for place in range(90))


@pytest.mark.parametrize(
    "source",
    [
        PLAIN,
        DataLoader(PLAIN, batch_size=7, shuffle=True, drop_last=True),
        DataLoader(PLAIN, batch_size=None),
        DataLoader(Streamed(), batch_size=7),
        Streamed(),
        [PLAIN[place] for place in range(90)],
        Cases(lambda place: ({"only": ROWS[place]}, torch.tensor([place % 2]))),
    ],
)
def test_every_case_comes_once_and_in_the_order_of_the_data_set(source: Any) -> None:
    """However a loader would shuffle: the clusters belong to the cases by their places."""
    data = Data(train=source, validation=PLAIN, test=PLAIN, clusters=(np.arange(90),) * 3)
    train = bind(data, TWO).parts["training"]
    np.testing.assert_array_equal(train.tensors["features"], ROWS.numpy())
    np.testing.assert_array_equal(train.labels, np.arange(90) % 2)
    assert train.clusters is not None
    assert train.clusters[89] == "89"


def _fail(place: int) -> Any:
    raise OSError("disk")


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (Cases(lambda place: (ROWS[place] + torch.randn(2), 0)), "something else for its first case"),
        (DataLoader(PLAIN, sampler=WeightedRandomSampler([1.0] * 90, 90)), "drawn by WeightedRandomSampler"),
        (DataLoader(PLAIN, sampler=RandomSampler(PLAIN, replacement=True)), "drawn by RandomSampler"),
        (DataLoader(Streamed(), batch_size=7, drop_last=True), "leaves its last cases out"),
        (Cases(lambda place: {"x": ROWS[place], "y": 0}), "gives dict, expected"),
        (Cases(_fail), "its code fails .OSError: disk"),
        (Cases(lambda place: ((ROWS[place],) * (1 + place % 2), 0)), "2 inputs for one case, 1 for another"),
        (Cases(lambda place: (ROWS[place], torch.tensor([0, 1]))), r"labels of the shape \[2\]"),
        (Cases(lambda place: (ROWS[place][: 1 + place % 2], 0)), "the inputs differ in shape"),
        ((PLAIN[place] for place in range(3)), "does not say how many cases"),
        ([[1, 2], [[1], [2, 3]]], r"does not become an array|expected|differ"),
    ],
)
def test_a_data_set_that_cannot_be_right_is_refused(source: Any, says: str) -> None:
    with pytest.raises(DataError, match=says) as caught:
        Data(train=source, validation=PLAIN, test=PLAIN)
    assert len(str(caught.value).splitlines()) == 1


def test_columns_of_other_types_are_numbers_or_left_aside(tmp_path: Path) -> None:
    """Decimals, truths and encoded texts; times and lists that the model does not ask for."""
    table = columns()
    odd = {
        "age": pa.array([Decimal(place) / 4 for place in range(60)], pa.decimal128(8, 2)),
        "dose": pa.array([False, True, None] * 20),
        "y": pa.array([Decimal(place % 2) for place in range(60)], pa.decimal128(1, 0)),
        "split": pa.array(table["split"]).dictionary_encode(),
        "seen": pa.array(np.arange(60), pa.timestamp("s")),
        "codes": pa.array([[1, 2]] * 60),
    }
    pq.write_table(pa.table({**table, **odd}), tmp_path / "cases.parquet")
    train = bind(Data.read(tmp_path / "cases.parquet", label="y", split="split"), NAMED).parts["training"]
    np.testing.assert_array_equal(train.tensors["features"][:2], [[0, 0], [1, 0.25]])
    np.testing.assert_array_equal(train.labels[:2], [0, 1])
    with pytest.raises(DataError, match=r"lacks 1 feature of the model .seen."):
        bind(
            Data.read(tmp_path / "cases.parquet", label="y", split="split"),
            InputForm(NAMED.specs, ("seen", "age")),
        )


def test_several_inputs_by_their_names_or_places() -> None:
    specs = (TensorSpec("image", "float32", (None, 1, 4, 4)), TensorSpec("codes", "int64", (None, 3)))
    images, codes = np.zeros((10, 1, 4, 4)), np.arange(30).reshape(10, 3)
    part: Any = ({"codes": codes, "image": images}, np.arange(10) % 2)
    by_place: Any = ((images, codes), np.arange(10) % 2)
    for given in (part, by_place):
        found = bind(Data(train=given, validation=given, test=given), InputForm(specs))
        assert found.parts["test"].tensors["codes"].dtype == np.int64
        assert found.parts["test"].tensors["image"].shape == (10, 1, 4, 4)
    wrong: Any = ({"codes": codes + 0.5, "image": images}, np.arange(10) % 2)
    with pytest.raises(DataError, match="takes int64; found other numbers"):
        bind(Data(train=wrong, validation=wrong, test=wrong), InputForm(specs))


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "missing: training, validation, test"),
        ({"train": 1}, "missing: validation, test"),
        ({"cases": (np.zeros((4, 2)), np.zeros(3))}, "3 labels but 4 rows of input 1"),
        ({"cases": (np.zeros((4, 2)), np.zeros(4)), "clusters": [1]}, "4 labels but 1 clusters"),
        ({"cases": (np.zeros((4, 2)), np.zeros((4, 2)))}, r"labels of the shape \[4, 2\]"),
        ({"cases": 3}, "found int, expected"),
        ({"cases": (np.array(["a"]), [0])}, "expected numbers"),
    ],
)
def test_arrays_that_do_not_belong_together_are_refused(given: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError, match=says):
        Data(**given)
