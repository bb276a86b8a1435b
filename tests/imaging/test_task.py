"""A recipe's [source] and the data set that it names: mistakes are told in words."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest

from apps.imaging.task import open_task, read_split
from core.errors import DataError, UsageError

SOURCE = {"network": "nowhere", "data": "nothing", "reader": "folder"}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"readr": "folder"}, "unknown field `readr`"),
        ({"network": 5}, r"Expected `str`, got `int` - at `\$.network`"),
        ({"seed": [1]}, r"at `\$.seed`"),
        ({"batch": 0}, r"`int` >= 1 - at `\$.batch`"),
        ({"stages": [[112]]}, r"length 2, got 1 - at `\$.stages\[0\]`"),
    ],
)
def test_mistakes_in_source_name_the_key(change: dict[str, object], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        open_task({**SOURCE, **change})
    with pytest.raises(UsageError, match="missing required field `data`; its keys are network, data, reader, seed"):
        open_task({"network": "nowhere", "reader": "folder"})
    with pytest.raises(DataError, match="no weights"):
        open_task(SOURCE)


def test_a_damaged_data_set_is_told_in_words(tmp_path: Path) -> None:
    path = tmp_path / "set"
    for content in (b"", b"PK\x03\x04 and then nothing", bytes(1000)):
        path.write_bytes(content)
        for reader in ("kermany", "medmnist"):
            with pytest.raises(DataError, match=f"cannot be read as {reader}"):
                read_split(str(path), reader, side=28, seed=0)
    np.savez(tmp_path / "other.npz", images=np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as medmnist"):
        read_split(str(tmp_path / "other.npz"), "medmnist", side=28, seed=0)
    np.save(tmp_path / "array.npy", np.zeros(3))
    with pytest.raises(DataError, match="cannot be read as medmnist"):
        read_split(str(tmp_path / "array.npy"), "medmnist", side=28, seed=0)
    with zipfile.ZipFile(path, "w") as archive:
        for part in ("train/NORMAL/IM-0001-0001", "test/PNEUMONIA/person1_virus_6"):
            archive.writestr(f"chest_xray/{part}.jpeg", b"not a JPEG")
    with pytest.raises(DataError, match="cannot be read as kermany"):
        read_split(str(path), "kermany", side=28, seed=0)
