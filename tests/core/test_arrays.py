"""Array types stand in one place, each with a name of its own, its type and its shape."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import numpy as np
import pytest

from featherweight.core import arrays

ROOT = Path(arrays.__file__).resolve().parents[1]
SOURCE = (ROOT / "core" / "arrays.py").read_text("utf-8")
NAMES = [one.targets[0].id for one in ast.parse(SOURCE).body if isinstance(one, ast.Assign)]  # type: ignore[attr-defined]


def test_array_types_are_named_in_one_place() -> None:
    """Another file would give the same name another meaning: `Floats` was float64, float32 and both."""
    files = [path for room in ("core", "apps", "bench") for path in (ROOT / room).rglob("*.py")]
    assert len(files) > 200
    spelled = [str(path.relative_to(ROOT)) for path in files if re.search(r"NDArray|np\.ndarray\[", path.read_text())]
    assert spelled == ["core/arrays.py"]


@pytest.mark.parametrize("name", NAMES)
def test_an_array_type_says_its_element_and_its_shape(name: str) -> None:
    described = re.search(rf'^{name} = .*\n"""(.+)"""$', SOURCE, re.MULTILINE)
    assert described is not None, f"{name}: one line below it says what it is"
    assert re.search(r"\[(N|F|H|resamples)|[Aa]ny (type and )?shape", described[1])
    (element,) = getattr(arrays, name).__args__[1].__args__
    if isinstance(element, type) and issubclass(element, np.number | np.bool_):
        assert described[1].startswith(np.dtype(element).name)


def test_array_types_load_nothing_but_numpy() -> None:
    imported = {one.module for one in ast.walk(ast.parse(SOURCE)) if isinstance(one, ast.ImportFrom)}
    assert imported == {"__future__", "typing"}
