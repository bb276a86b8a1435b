"""Ranges of inputs, and the adapters that apps register."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.adapters import InputRange, check_ranges, describe_ranges, open_adapter
from featherweight.core.errors import MissingExtraError, TensorError, UsageError

GREY = InputRange("image", 0.0, 1.0, "grey level")


def images(*values: float) -> dict[str, np.ndarray]:
    return {"image": np.array(values, np.float32).reshape(-1, 1)}


@given(st.lists(st.floats(0, 1, width=32), min_size=1))
def test_what_is_inside_passes(values: list[float]) -> None:
    check_ranges(images(*values), [GREY])


def test_rounding_is_not_outside() -> None:
    check_ranges(images(float(np.nextafter(np.float32(1), np.float32(2)))), [GREY])


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ((0, 255), r"found values from 0 to 255, first in case 1; expected 0 to 1 \(grey level\); are these 8-bit"),
        ((0, 4000), "are these 12-bit values, 0 to 4095"),
        ((0, 60000), "Divide them by 65535"),
        ((0, 70000), r"expected 0 to 1 \(grey level\)$"),
        ((0.5, -2), r"found values from -2 to 0.5, first in case 1; expected 0 to 1 \(grey level\)$"),
        ((1.5,), "are these 8-bit"),
        ((0.5, np.nan), r"found values from 0.5 to 0.5 and 1 that are not finite numbers, first in case 1"),
        ((np.inf,), "found no finite value and 1 that are not"),
    ],
)
def test_what_is_outside_is_named(values: tuple[float, ...], said: str) -> None:
    with pytest.raises(TensorError, match=said):
        check_ranges(images(*values), [GREY])


def test_columns_have_ranges_of_their_own() -> None:
    ranges = [
        InputRange("rows", 0, column=0, name="amount", missing=True),
        InputRange("rows", 0, 1, column=1, name="risk", missing=True),
        InputRange("rows", column=2, name="z", missing=True),
    ]
    rows = np.array([[5, 0.5, -3], [np.nan, np.nan, np.nan]], np.float32)
    check_ranges({"rows": rows}, ranges)
    assert describe_ranges(ranges) == (
        "rows: 0 or more for amount; rows: 0 to 1 for risk; rows: any finite number for z; NaN where a value is missing"
    )
    for place, wrong, said in (
        (0, -1, "rows column 'amount': found values from -1 to -1, first in case 8; expected 0 or more"),
        (1, 30, "rows column 'risk': found values from 30 to 30, first in case 8; expected 0 to 1; are these 8-bit"),
        (2, np.inf, "rows column 'z': found no finite value"),
    ):
        changed = rows.copy()
        changed[1, place] = wrong
        changed[0, place] = np.nan
        with pytest.raises(TensorError, match=said):
            check_ranges({"rows": changed}, ranges, first=7)


def test_an_app_that_is_not_installed_has_no_adapter() -> None:
    assert open_adapter("nobody", ("a", "b"), {}, ()) is None


@pytest.fixture
def plug(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A module that a distribution registers as the adapter of the app `plugged`."""
    info = tmp_path / "plugged_models-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugged-models\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[featherweight.models]\nplugged = plugged_adapter:Adapter\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "plugged_adapter.py"
    sys.modules.pop("plugged_adapter", None)


@pytest.mark.parametrize(
    ("source", "kind", "said"),
    [
        ("import no_such_package_at_all", UsageError, "no_such_package_at_all.*reinstall it"),
        ("def (", UsageError, "does not load: invalid syntax"),
        ("", UsageError, "Adapter"),
        ("raise ModuleNotFoundError('none', name='numba')", MissingExtraError, "its extra 'fraud'"),
    ],
)
def test_an_app_that_does_not_load_is_told(plug: Path, source: str, kind: type[UsageError], said: str) -> None:
    plug.write_text(source)
    with pytest.raises(kind, match=said):
        open_adapter("plugged", (), {}, ())


def test_an_app_of_ones_own_is_found(plug: Path) -> None:
    plug.write_text("def Adapter(labels, files, inputs): return (labels, files, inputs)\n")
    assert open_adapter("plugged", ("a",), {"x": b""}, ()) == (("a",), {"x": b""}, ())
