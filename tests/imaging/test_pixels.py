"""The grey scale pipeline against the standard's formulas, pydicom's own functions, and its full-size reference."""

from __future__ import annotations

import itertools
import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from featherweight.apps.imaging.pixels import (
    TOLERANCE,
    Greyscale,
    Lut,
    Rescale,
    Window,
    WindowFunction,
    apply_modality,
    apply_window,
    grey_from_rgb,
    render,
    render_reference,
    resize,
)
from featherweight.core.arrays import StoredPixels

FUNCTIONS: tuple[WindowFunction, ...] = ("LINEAR", "LINEAR_EXACT", "SIGMOID")


@st.composite
def stored_arrays(draw: st.DrawFn) -> StoredPixels:
    kind = draw(st.sampled_from([np.uint8, np.uint16, np.int16, np.uint32, np.int32, np.float32]))
    rows, columns, seed = draw(st.integers(1, 70)), draw(st.integers(1, 70)), draw(st.integers(0, 2**32 - 1))
    generator = np.random.default_rng(seed)
    low, high = (-3000.0, 4095.0) if np.dtype(kind).kind in "if" else (0.0, 255.0 if kind is np.uint8 else 4095.0)
    image = generator.uniform(low, high, (rows, columns))
    if draw(st.booleans()):  # real images are mostly smooth, with hard edges
        image = np.where(np.add.outer(np.arange(rows), np.arange(columns)) % 23 < 11, image * 0.1, high - 1)
    return image.astype(kind)


@st.composite
def greyscales(draw: st.DrawFn) -> Greyscale:
    slope = draw(st.sampled_from([1.0, -1.0, 0.684, 3.77, 1e-3, -250.0]))
    modality = Rescale(slope, draw(st.sampled_from([0.0, -1024.0, 12.5])))
    voi = None
    if draw(st.booleans()):
        width = max(1.0, draw(st.floats(1, 9000)) * abs(slope))
        center = draw(st.floats(-3000, 4095)) * slope + modality.intercept
        voi = Window(center, width, draw(st.sampled_from(FUNCTIONS)))
    padding = draw(st.sampled_from([None, (0.0, 0.0), (4095.0, 4000.0), (-3000.0, -2900.0)]))
    return Greyscale(modality, voi, draw(st.booleans()), padding)


@example(np.array([[162]], np.uint8), Greyscale(Rescale(-1.0, 0.0)), 1)
@example(np.array([[162]], np.uint8), Greyscale(Rescale(0.001), Window(-0.526, 3.048)), 1)
@example(np.array([[162]], np.uint8), Greyscale(Rescale(0.001), Window(3.526, 3.048)), 1)
@given(stored_arrays(), greyscales(), st.sampled_from([1, 8, 31, 64]))
def test_resizing_early_gives_what_the_full_size_way_gives(stored: StoredPixels, grey: Greyscale, side: int) -> None:
    fast, reference = render(stored, grey, side), render_reference(stored, grey, side)
    assert fast.dtype == reference.dtype == np.float32
    assert fast.shape == (side, side)
    assert np.isfinite(fast).all()
    assert fast.min() >= 0
    assert fast.max() <= 1
    np.testing.assert_allclose(fast, reference, atol=TOLERANCE, rtol=0)


@given(st.floats(-2000, 2000), st.floats(1, 5000), st.sampled_from(FUNCTIONS), st.integers(0, 2**32 - 1), st.booleans())
def test_windows_are_pydicoms(center: float, width: float, function: WindowFunction, seed: int, signed: bool) -> None:
    dataset = Dataset()
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.BitsStored, dataset.PixelRepresentation = 12, int(signed)
    dataset.WindowCenter, dataset.WindowWidth = f"{center:.6g}", f"{max(width, 2):.6g}"
    dataset.VOILUTFunction = function
    values = (
        np.random.default_rng(seed).integers(-2048 if signed else 0, 2048 if signed else 4096, 500).astype(np.int16)
    )
    with np.errstate(over="ignore"):  # pydicom's sigmoid overflows far below the center, harmlessly
        expected = np.asarray(apply_windowing(values, dataset), dtype=np.float64)
    low, high = (-2048, 2047) if signed else (0, 4095)
    window = Window(float(dataset.WindowCenter), float(dataset.WindowWidth), function)
    np.testing.assert_allclose(
        apply_window(values.astype(np.float64), window), (expected - low) / (high - low), atol=1e-3
    )


def test_linear_window_at_its_ends() -> None:
    # PS3.3 C.11.2.1.2.1, note 3: center 2048, width 4096 leaves 0..4095 as it is.
    values = np.array([-5.0, 0, 2047.5, 4095, 5000])
    np.testing.assert_allclose(apply_window(values, Window(2048, 4096)), [0, 0, 0.5, 1, 1])
    # Width 1 is a threshold at center - 0.5.
    np.testing.assert_array_equal(apply_window(np.array([9.0, 9.5, 9.6, 10]), Window(10, 1)), [0, 0, 1, 1])


@pytest.mark.parametrize(
    "window",
    [Window(0, 0.5), Window(0, 0, "SIGMOID"), Window(math.nan, 5), Window(0, math.inf), Window(1, -4, "LINEAR_EXACT")],
)
def test_windows_the_standard_forbids_are_not_usable(window: Window) -> None:
    assert not window.is_usable


def test_order_of_the_steps() -> None:
    # Rescale before window before inversion: 150 -> 50 modality -> 0.5 -> 0.5; 120 -> 20 -> 0.2 -> 0.8
    stored = np.array([[120, 150]], dtype=np.uint16).repeat(2, axis=0)
    grey = Greyscale(Rescale(1, -100), Window(50, 100, "LINEAR_EXACT"), inverted=True)
    np.testing.assert_allclose(render(stored, grey, 2), [[0.8, 0.5], [0.8, 0.5]], atol=1e-6)


def test_look_up_tables_hold_their_ends() -> None:
    lut = Lut(first=-2, entries=np.array([10, 20, 30], dtype=np.uint16), bits=12)
    stored = np.array([-9, -2, -1, 0, 7], dtype=np.int16)
    np.testing.assert_array_equal(apply_modality(stored, lut, np.dtype(np.float64)), [10, 10, 20, 30, 30])
    voi = Greyscale(Rescale(), Lut(0, np.array([0, 255], dtype=np.uint16), 8))
    np.testing.assert_array_equal(render(np.array([[0, 1], [5, 0]], dtype=np.uint16), voi, 2), [[0, 1], [1, 0]])


def test_padding_does_not_set_the_range() -> None:
    stored = np.array([[0, 100], [150, 200]], dtype=np.uint16)
    padded = render(stored, Greyscale(padding=(0, 0)), 2)
    np.testing.assert_allclose(padded, [[0, 0], [0.5, 1]], atol=1e-6)
    np.testing.assert_allclose(render(stored, Greyscale(), 2), [[0, 0.5], [0.75, 1]], atol=1e-6)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_one_value_everywhere_is_black(value: int) -> None:
    assert not render(np.full((9, 5), value, dtype=np.uint16), Greyscale(), 4).any()


def test_values_that_are_not_numbers_are_refused() -> None:
    with pytest.raises(FloatingPointError):
        render(np.array([[1, np.nan]], dtype=np.float32), Greyscale(), 2)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_shrinking_by_whole_numbers_is_the_mean_of_each_block(side: int, down: int, across: int, seed: int) -> None:
    image = np.random.default_rng(seed).random((side * down, side * across)).astype(np.float32)
    means = image.reshape(side, down, side, across).mean(axis=(1, 3))
    np.testing.assert_allclose(resize(image, side), means, atol=1e-5)


def by_area(line: np.ndarray, count: int) -> np.ndarray:
    """The mean of a step function over `count` equal intervals, an interval at a time."""
    edges = [len(line) * index / count for index in range(count + 1)]
    means = []
    for low, high in itertools.pairwise(edges):
        shares = [max(0.0, min(place + 1, high) - max(place, low)) for place in range(len(line))]
        means.append(sum(share * value for share, value in zip(shares, line, strict=True)) / (high - low))
    return np.array(means)


def between_centres(line: np.ndarray, count: int) -> np.ndarray:
    """Pixels' centres lie at 0.5, 1.5, ...; before the first and after the last the end goes on."""
    centres = (np.arange(count) + 0.5) * len(line) / count
    return np.interp(centres, np.arange(len(line)) + 0.5, line)


@given(
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float32, np.float64]),
    st.integers(1, 70),
    st.integers(1, 70),
    st.sampled_from([1, 2, 5, 16, 31]),
    st.integers(0, 2**32 - 1),
)
def test_resizing_is_what_its_definition_says(kind: type, rows: int, columns: int, side: int, seed: int) -> None:
    low, high = (0.0, 1.0) if np.dtype(kind).kind == "f" else (float(np.iinfo(kind).min), float(np.iinfo(kind).max))
    image = np.random.default_rng(seed).uniform(low, high, (rows, columns)).astype(kind)
    expected = image.astype(np.float64)
    for _ in range(2):
        one = by_area if expected.shape[0] > side else between_centres
        expected = np.stack([one(column, side) for column in expected.T])
    found = resize(image, side)
    assert found.dtype == (np.float64 if kind is np.float64 else np.float32)
    np.testing.assert_allclose(found, expected, atol=(high - low) * 1e-6, rtol=0)


class Counted:
    """An image of one value that is made when it is asked for, as `Rows`; most: the most bytes asked for at once."""

    def __init__(self, rows: int, columns: int) -> None:
        self.shape, self.dtype, self.most = (rows, columns), np.dtype(np.uint16), 0

    def __getitem__(self, rows: slice) -> np.ndarray:
        first, last, _ = rows.indices(self.shape[0])
        made = np.full((last - first, self.shape[1]), 1000, np.uint16)
        self.most = max(self.most, made.nbytes)
        return made


@pytest.mark.parametrize(
    "grey",
    [
        Greyscale(),
        Greyscale(voi=Window(1000, 4096)),
        Greyscale(voi=Window(1000, 1)),
        Greyscale(voi=Window(1000, 50, "SIGMOID"), padding=(0, 0)),
        Greyscale(Lut(0, np.arange(4096, dtype=np.uint16), 12), padding=(0, 0)),
        Greyscale(voi=Lut(0, np.arange(4096, dtype=np.uint16), 12)),
    ],
)
def test_a_large_image_is_rendered_in_bands(grey: Greyscale) -> None:
    image = Counted(8_000, 6_000)
    tracemalloc.start()
    try:
        render(image, grey, 224)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert image.most < 4 << 20
    assert peak < 48 << 20  # the image alone is 96 MB, in floating point 192


def test_enlarging_interpolates() -> None:
    wide = resize(np.array([[0.0, 1.0]], dtype=np.float32), 8)
    assert (np.diff(wide[0]) >= 0).all()
    assert len(np.unique(wide[0])) > 3


def test_luma_is_bt601() -> None:
    np.testing.assert_allclose(grey_from_rgb(np.eye(3, dtype=np.uint8)[None] * 200), [[59.8, 117.4, 22.8]], atol=1e-3)
