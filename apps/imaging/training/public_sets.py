"""Readers of the public sets: files of a publisher's layout -> `Split`."""

from __future__ import annotations

import io
import re
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.core.arrays import GreyBytes
from featherweight.core.errors import DataError


def parse_patient(file_name: str) -> str:
    """The patient in a file name of the Kermany x-rays.

    >>> parse_patient("person1000_bacteria_2931.jpeg")
    'person1000'
    >>> parse_patient("NORMAL2-IM-0115-0001.jpeg")
    'NORMAL2-IM-0115'
    """
    found = re.match(r"(person\d+|(?:NORMAL2-)?IM-\d+)", file_name)
    if found is None:
        raise DataError(
            f"{file_name}: no patient in the file name; expected person<N>_..., IM-<N>-... or NORMAL2-IM-<N>-..."
        )
    return found.group(1)


def parse_finding(file_name: str) -> str:
    """What the Kermany x-rays' file names say of the pneumonia: "bacteria", "virus", or "normal" for none.

    >>> parse_finding("person1000_bacteria_2931.jpeg")
    'bacteria'
    """
    found = re.match(r"person\d+_(bacteria|virus)_", file_name)
    return found.group(1) if found else "normal"


def split_by_patient(cases: Cases, fraction: float, seed: int) -> tuple[Cases, Cases]:
    """(train, validation): no patient on both sides, `fraction` of each class's patients in validation."""
    generator = np.random.default_rng(seed)
    patients = np.array(cases.patients)
    held: set[str] = set()
    for label in np.unique(cases.labels):
        names = np.unique(patients[cases.labels == label])
        held.update(generator.permutation(names)[: round(len(names) * fraction)].tolist())
    chosen = np.isin(patients, sorted(held))
    return cases.take(~chosen), cases.take(chosen)


def _decode_grey(content: bytes, side: int) -> GreyBytes:
    with Image.open(io.BytesIO(content)) as image:
        grey = image.convert("L")
        if grey.size != (side, side):
            grey = grey.resize((side, side), Image.Resampling.BOX)
        return np.asarray(grey, dtype=np.uint8)


def read_kermany(path: Path, *, seed: int = 0, side: int = 224) -> Split:
    """The paediatric chest x-rays: a zip or folder with chest_xray/{train,test}/{NORMAL,PNEUMONIA}/*.jpeg."""
    parts: dict[str, list[tuple[str, bytes]]] = {"train": [], "test": []}
    pattern = re.compile(r"(?:^|/)(train|test)/(NORMAL|PNEUMONIA)/([^/]+\.jpe?g)$")
    if path.is_dir():
        names = sorted(str(p.relative_to(path)) for p in path.rglob("*.jp*g"))
        for name in names:
            if found := pattern.search(name):
                parts[found.group(1)].append((name, (path / name).read_bytes()))
    else:
        with zipfile.ZipFile(path) as archive:
            for name in sorted(archive.namelist()):
                if found := pattern.search(name):
                    parts[found.group(1)].append((name, archive.read(name)))
    if not parts["train"] or not parts["test"]:
        raise DataError(f"{path}: no chest x-rays found; expected {{train,test}}/{{NORMAL,PNEUMONIA}}/*.jpeg inside")
    train, validation = split_by_patient(_kermany_cases(parts["train"], side), 0.12, seed)
    return Split(train, validation, _kermany_cases(parts["test"], side))


def _kermany_cases(files: list[tuple[str, bytes]], side: int) -> Cases:
    names = tuple(name.rsplit("/", 1)[1] for name, _ in files)
    labels = np.array([int("/PNEUMONIA/" in f"/{name}") for name, _ in files], dtype=np.int64)
    images = np.stack([_decode_grey(content, side) for _, content in files])
    groups = {"finding": np.array([parse_finding(name) for name in names])}
    return Cases(images, labels, names, tuple(parse_patient(name) for name in names), groups)


def read_medmnist(path: Path, *, seed: int = 0, side: int = 28) -> Split:
    """A binary grey set of MedMNIST v2 in its official .npz, with the official split; side must be the file's own.

    The set names no patients, so each image is its own.
    """
    parts = []
    # Opened here, because numpy leaves a file open that it cannot read.
    with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
        for name in ("train", "val", "test"):
            images, labels = archive[f"{name}_images"], archive[f"{name}_labels"].reshape(-1).astype(np.int64)
            if images.ndim != 3 or images.shape[1:] != (side, side):
                raise DataError(f"{path}: {name}_images is {images.shape}, expected [N, {side}, {side}]")
            ids = tuple(f"{name}-{i:05d}" for i in range(len(labels)))
            parts.append(Cases(images.astype(np.uint8), labels, ids, ids))
    return Split(*parts)
