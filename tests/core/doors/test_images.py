"""Folders of pictures with a labels.csv."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featherweight.core.doors.binding import InputForm, bind
from featherweight.core.doors.data import Data
from featherweight.core.errors import DataError
from featherweight.core.tensors import TensorSpec

GREY = InputForm((TensorSpec("input", "float32", (None, 1, 8, 8)),))
COLOUR = InputForm((TensorSpec("input", "float32", (None, 3, 4, 4)),))


def folder_of(path: Path, count: int = 12) -> Path:
    lines = ["path,label,patient,split,site"]
    for place in range(count):
        level = 20 * place
        Image.fromarray(np.full((8, 8), level, np.uint8)).save(path / f"{place}.png")
        split = ("train", "validation", "test")[place // 2 % 3]
        lines.append(f"{place}.png,{'cat' if place % 2 else 'dog'},p{place},{split},north")
    (path / "labels.csv").write_text("\n".join(lines) + "\n")
    return path


def test_pictures_become_levels_with_the_columns_of_the_list(tmp_path: Path) -> None:
    data = Data.read(folder_of(tmp_path), label="label", positive="cat")
    found = bind(data, GREY)
    train = found.parts["training"]
    assert train.ids == ("0.png", "1.png", "6.png", "7.png")
    assert train.clusters == ("p0", "p1", "p6", "p7")
    assert train.groups["site"].tolist() == ["north"] * 4
    assert train.labels.tolist() == [0, 1, 0, 1]
    np.testing.assert_allclose(train.tensors["input"][:, 0, 0, 0], np.array([0, 20, 120, 140]) / 255, atol=1e-7)
    assert data.example()[""].shape == (2, 1, 8, 8)
    assert bind(data, COLOUR).parts["test"].tensors["input"].shape == (4, 3, 4, 4)


def test_each_kind_of_fault_is_one_line(tmp_path: Path) -> None:
    folder_of(tmp_path)
    for place in (3, 5):
        (tmp_path / f"{place}.png").write_bytes(b"no picture")
    (tmp_path / "7.png").unlink()
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "9.png")
    with pytest.raises(DataError) as caught:
        bind(Data.read(tmp_path, label="label", positive="cat"), GREY)
    first, *lines = str(caught.value).splitlines()
    assert first.endswith("labels.csv: 4 faults")
    assert [line.strip() for line in lines] == [
        "3.png, 5.png: cannot be read as a picture (UnidentifiedImageError)",
        "7.png: there is no such file",
        "9.png: has pixels of the kind I;16; expected 8 bits, grey or colour",
    ]


def test_a_list_that_names_a_picture_twice_is_refused(tmp_path: Path) -> None:
    folder_of(tmp_path)
    with (tmp_path / "labels.csv").open("a") as file:
        file.write("3.png,cat,p3,train,north\n")
    with pytest.raises(DataError, match="names 1 picture more than once"):
        Data.read(tmp_path, label="label")


def test_a_model_of_rows_takes_no_pictures(tmp_path: Path) -> None:
    rows = InputForm((TensorSpec("features", "float32", (None, 4)),))
    with pytest.raises(DataError, match=r"the model takes \[4\] for a case"):
        bind(Data.read(folder_of(tmp_path), label="label", positive="cat"), rows)
