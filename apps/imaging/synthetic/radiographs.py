"""Drawn chest radiographs with a known truth, for the demo and for tests that need no real data.

A drawing, not a simulation: thorax, lungs, ribs, vessels, heart and noise are laid over one another as brightness, with
anatomy, exposure, sharpness and pose drawn at random. The positive class has soft opacities in the lungs, from obvious
to nearly invisible, and both classes have things that resemble them (large vessels, breast shadows, haze at the base),
so that a network has something to learn and no network is perfect. Nothing trained on these helps with real x-rays.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image as Pillow
from PIL import ImageDraw

from featherweight.core.arrays import Floats, Floats32, GreyImage, UInt16s

Random = np.random.Generator

LEVELS = 4096
"""Stored values are 12 bits deep."""

STRENGTH = 0.7
"""The brightness of the most visible opacity; chosen so that a small network tells most cases and not all."""


@dataclass(frozen=True)
class SyntheticCase:
    """One radiograph. pixels: uint16 [side, side] in 0..4095, light is dense tissue; label: 1 has an opacity;
    visibility: how strong the opacity is, 0 for label 0."""

    index: int
    patient: str
    split: str
    label: int
    visibility: float
    pixels: UInt16s


def synthetic_cases(count: int, seed: int = 0, *, side: int = 256, prevalence: float = 0.5) -> Iterator[SyntheticCase]:
    """`count` radiographs one after the other, the same for the same (seed, side); patients have one to three each.

    Of each ten patients six are for training, two for validation and two for test.
    """
    order = np.random.default_rng([seed, 0])
    index = patient = 0
    while index < count:
        images = int(order.integers(1, 4))
        layers = anatomy_layers(side, np.random.default_rng([seed, 1, patient]))
        # Interleaved, so that also a small set has patients in every part.
        split = ("train", "validation", "train", "test", "train")[patient % 5]
        for _ in range(min(images, count - index)):
            random = np.random.default_rng([seed, 2, index])
            label = int(random.random() < prevalence)
            visibility = float(0.15 + 0.85 * random.beta(1.8, 1.2)) if label else 0.0
            pixels = _expose(draw_radiograph(layers, visibility, random), random)
            yield SyntheticCase(index, f"S{seed:03d}P{patient:05d}", split, label, visibility, pixels)
            index += 1
        patient += 1


# One unit is half the image's side; x grows to the viewer's right, y downwards, (0, 0) is the centre.


@dataclass(frozen=True)
class _Anatomy:
    """What stays the same in all images of a patient."""

    width: float
    apex: float
    base: float
    heart: float
    ribs: int
    slope: float
    breasts: float
    tissue: float


def _anatomy(random: Random) -> _Anatomy:
    return _Anatomy(
        width=random.uniform(0.88, 1.08),
        apex=random.uniform(-0.78, -0.66),
        base=random.uniform(0.42, 0.62),
        heart=random.uniform(0.85, 1.2),
        ribs=int(random.integers(9, 12)),
        slope=random.uniform(0.16, 0.34),
        breasts=float(max(0.0, random.normal(0.02, 0.05))),
        tissue=random.uniform(0.5, 0.62),
    )


@dataclass(frozen=True)
class Layers:
    """What stays the same in a patient, drawn once, each [side, side]: the brightness of everything but the heart and
    the air, and where the lungs and the body are (0..1)."""

    anatomy: _Anatomy
    right: GreyImage
    left: GreyImage
    body: GreyImage
    brightness: GreyImage


def anatomy_layers(side: int, random: Random) -> Layers:
    """What a drawn chest consists of, each layer float [side, side]."""
    anatomy = _anatomy(random)
    right, left = _lung(anatomy, -1, side, random), _lung(anatomy, 1, side, random)
    lungs = np.maximum(right, left)
    body = _body(anatomy, side)
    layers = body * anatomy.tissue
    layers += 0.1 * _blob(side, 0.0, 0.95, 1.1, 0.45) * body  # the abdomen is denser than the shoulders
    layers -= lungs * (anatomy.tissue - 0.2)
    layers += lungs * _vessels(side, random)
    layers += _bones(anatomy, side, random) * (0.3 + 0.7 * lungs) * body
    layers += _spine(anatomy, side)
    layers += anatomy.breasts * (_blob(side, -0.45, 0.42, 0.36, 0.3) + _blob(side, 0.45, 0.42, 0.36, 0.3))
    return Layers(anatomy, right, left, body, layers)


def draw_radiograph(layers: Layers, visibility: float, random: Random, *, still: bool = False) -> GreyImage:
    """The brightness of one radiograph, float32 [side, side], about 0..1, before exposure and noise.

    visibility: 0 draws no opacity, 1 the strongest. still: without turning, shifting and the marker.
    """
    lungs, side = np.maximum(layers.right, layers.left), layers.body.shape[0]
    image = layers.brightness + _heart(layers.anatomy, side, random)
    image += lungs * (random.uniform(-0.04, 0.04) + _haze(side, random))
    image += 0.025 * _smooth_noise(side, side / 5, random) * layers.body
    if visibility > 0:
        image += STRENGTH * visibility * _opacities((layers.right, layers.left), side, random)
    return image if still else _mark(_pose(image, random), random)


def _expose(image: GreyImage, random: Random) -> UInt16s:
    """Focus, dose and processing of one exposure: blur, noise that grows in the dark, gamma, contrast."""
    side = image.shape[0]
    image = _blur(image, side / 512 * random.uniform(0.5, 1.8) + 0.01)
    noise = random.normal(0, 1, image.shape).astype(np.float32)
    image = image + noise * random.uniform(0.006, 0.025) * (1.25 - image)
    image = np.clip(image, 0, 1) ** random.uniform(0.85, 1.2)
    low, high = random.uniform(0.0, 0.08), random.uniform(0.85, 1.0)
    return np.round((low + (high - low) * np.clip(image, 0, 1)) * (LEVELS - 1)).astype(np.uint16)


def _grid(side: int) -> tuple[Floats32, Floats32]:
    axis = ((np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1).astype(np.float32)
    return axis[None, :], axis[:, None]


def _blob(side: int, x: float, y: float, width: float, height: float) -> GreyImage:
    """A soft ellipse, 1 in its middle."""
    across, down = _grid(side)
    return np.exp(-(((across - x) / width) ** 2) - ((down - y) / height) ** 2).astype(np.float32)


def _fill(points: Floats, side: int, soft: float) -> GreyImage:
    """The inside of a closed line in units, with an edge that is `soft` units wide."""
    canvas = Pillow.new("L", (side * _FINER, side * _FINER))
    ImageDraw.Draw(canvas).polygon(_pixels(points, side), fill=255)
    return _soften(_reduced(canvas), side, soft)


def _reduced(canvas: Pillow.Image) -> GreyImage:
    return np.asarray(canvas.reduce(_FINER), dtype=np.float32) / np.float32(255)


def _soften(canvas: GreyImage, side: int, soft: float) -> GreyImage:
    return _blur(canvas, max(0.01, soft * side / 2))


def _blur(image: GreyImage, sigma: float) -> GreyImage:
    """A Gaussian with this standard deviation, in pixels; the border is a mirror."""
    reach = min(max(1, round(4 * sigma)), image.shape[0] - 1)
    taps = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    taps = (taps / taps.sum()).astype(np.float32)
    blurred = image.astype(np.float32, copy=False)
    for _ in range(2):  # down, and turned: across
        mirrored = np.pad(blurred, ((reach, reach), (0, 0)), mode="reflect")
        blurred = np.zeros_like(blurred)
        for start, tap in enumerate(taps):
            blurred += tap * mirrored[start : start + len(blurred)]
        blurred = np.ascontiguousarray(blurred.T)
    return blurred


_FINER = 2
"""Pillow's drawing has hard edges: lines are drawn so many times finer and averaged."""


def _pixels(points: Floats, side: int) -> list[float]:
    """x, y, x, y, ... on the finer canvas."""
    flat: list[float] = ((points + 1) / 2 * side * _FINER).ravel().tolist()
    return flat


_T = np.linspace(0, 1, 12, endpoint=False)
_BLEND = 0.5 * np.stack(
    [-_T + 2 * _T**2 - _T**3, 2 - 5 * _T**2 + 3 * _T**3, _T + 4 * _T**2 - 3 * _T**3, -(_T**2) + _T**3], axis=1
)


def _curve(knots: list[tuple[float, float]], closed: bool = False) -> Floats:
    """A smooth line through the knots (Catmull-Rom), twelve points from one to the next."""
    points = np.array(knots)
    if closed:
        points = np.vstack([points[-1:], points, points[:2]])
    else:
        points = np.vstack([2 * points[:1] - points[1:2], points, 2 * points[-1:] - points[-2:-1]])
    windows = np.lib.stride_tricks.sliding_window_view(points, 4, axis=0)  # [segments, 2, 4]
    return np.vstack([np.einsum("tk,sck->stc", _BLEND, windows).reshape(-1, 2), points[-2:-1]])


def _body(anatomy: _Anatomy, side: int) -> GreyImage:
    w = anatomy.width
    half = [
        (0.16, -1.2),
        (0.2, -0.92),
        (0.55, -0.82),
        (0.92 * w, -0.66),
        (0.97 * w, -0.2),
        (0.9 * w, 0.4),
        (0.93 * w, 1.3),
    ]
    outline = half + [(-x, y) for x, y in reversed(half)]
    return _fill(np.array(outline), side, 0.02)


def _lung(anatomy: _Anatomy, hand: int, side: int, random: Random) -> GreyImage:
    """hand: -1 is the patient's right lung, at the viewer's left; the left one has a bay for the heart."""
    w, top = anatomy.width, anatomy.apex
    base = anatomy.base + (0.05 if hand > 0 else -0.03)
    inner = 0.3 if hand > 0 else 0.17
    knots = [
        (0.3, top),
        (0.52 * w, top + 0.22),
        (0.7 * w, top + 0.62),
        (0.77 * w, base - 0.3),
        (0.76 * w, base + 0.1),
        (0.5 * w, base - 0.06),
        (inner + 0.04, base - 0.02),
        (inner, base - 0.35),
        (0.14, -0.2),
        (0.15, top + 0.2),
    ]
    shaken = [(hand * (x + random.normal(0, 0.012)), y + random.normal(0, 0.012)) for x, y in knots]
    return _fill(_curve(shaken, closed=True), side, 0.013)


def _bones(anatomy: _Anatomy, side: int, random: Random) -> GreyImage:
    """Posterior ribs run outwards and down, anterior ones inwards and down, fainter; clavicles above all."""
    back, front, clavicles = [], [], []
    for hand in (-1, 1):
        for rib in range(anatomy.ribs):
            y = anatomy.apex + 0.02 + rib * 1.3 / anatomy.ribs + random.normal(0, 0.006)
            reach = anatomy.width * min(0.78, 0.42 + 0.12 * rib)
            drop = anatomy.slope * (0.6 + 0.07 * rib)
            knots = [(0.08, y), (0.4 * reach + 0.04, y - 0.03), (0.8 * reach, y + 0.35 * drop), (reach, y + drop)]
            back.append(_curve(_mirror(knots, hand)))
            if 1 <= rib < anatomy.ribs - 3:
                knots = [(reach, y + drop), (0.85 * reach, y + 1.5 * drop), (0.45 * reach, y + 1.9 * drop)]
                front.append(_curve(_mirror(knots, hand)))
        knots = [(0.07, anatomy.apex + 0.2), (0.35, anatomy.apex + 0.1), (0.72 * anatomy.width, anatomy.apex - 0.02)]
        clavicles.append(_curve(_mirror(knots, hand)))
    bones = 0.12 * _tubes(back, side, 0.055) + 0.06 * _tubes(front, side, 0.06) + 0.15 * _tubes(clavicles, side, 0.055)
    return _soften(bones, side, 0.008)


def _mirror(knots: list[tuple[float, float]], hand: int) -> list[tuple[float, float]]:
    return [(hand * x, y) for x, y in knots]


def _tubes(curves: list[Floats], side: int, width: float) -> GreyImage:
    """Bones in projection: their cortex is brighter than their marrow."""
    return _lines(curves, side, width) - np.float32(0.45) * _lines(curves, side, 0.6 * width)


def _lines(curves: list[Floats], side: int, width: float) -> GreyImage:
    """1 on the curves, 0 elsewhere; where they cross they do not add up."""
    canvas = Pillow.new("L", (side * _FINER, side * _FINER))
    pen = ImageDraw.Draw(canvas)
    thick = max(1, round(width * side / 2)) * _FINER
    for points in curves:
        pen.line(_pixels(points, side), fill=255, width=thick)
    return _reduced(canvas)


def _vessels(side: int, random: Random) -> GreyImage:
    """Branches from both hila outwards, thinner on the way, and the fine texture between them."""
    curves = []
    for hand in (-1, 1):
        for _ in range(15):
            x, y = hand * 0.2, -0.05 + random.normal(0, 0.05)
            angle = random.uniform(-1.35, 1.35)
            knots = [(x, y)]
            for turn in random.normal(0, 0.2, 7):
                angle += turn
                x, y = x + hand * 0.085 * np.cos(angle), y + 0.085 * np.sin(angle)
                knots.append((x, y))
            curves.append(_curve(knots))
    canvas = np.zeros((side, side), np.float32)
    for part, width in ((1.0, 0.014), (0.6, 0.024), (0.3, 0.042)):
        canvas += np.float32(0.05) * _lines([line[: int(len(line) * part)] for line in curves], side, width)
    hila = 0.08 * (_blob(side, -0.21, -0.04, 0.09, 0.16) + _blob(side, 0.21, -0.04, 0.09, 0.16))
    texture = np.float32(0.012) * _smooth_noise(side, side / 60, random)
    return np.asarray(_soften(canvas, side, 0.008) + hila + texture, dtype=np.float32)


def _spine(anatomy: _Anatomy, side: int) -> GreyImage:
    across, down = _grid(side)
    column = np.exp(-((across / 0.1) ** 4))
    vertebrae = 0.8 + 0.2 * np.cos(down * 26 + anatomy.apex * 9)
    trachea = 0.1 * np.exp(-((across / 0.045) ** 4)) / (1 + np.exp((down + 0.32) * 22))
    return np.asarray(0.12 * column * vertebrae - trachea, dtype=np.float32)


def _heart(anatomy: _Anatomy, side: int, random: Random) -> GreyImage:
    size = anatomy.heart * random.uniform(0.95, 1.06)
    knots = [
        (-0.13, -0.35),
        (0.1, -0.42),
        (0.2, -0.3),
        (0.17, -0.12),
        (0.3 * size, 0.1),
        (0.44 * size, 0.34),
        (0.36 * size, anatomy.base + 0.02),
        (-0.1, anatomy.base + 0.08),
        (-0.22 * size, anatomy.base - 0.06),
        (-0.2 * size, 0.15),
        (-0.13, -0.1),
    ]
    outline = _fill(_curve(knots, closed=True), side, 0.018)
    return np.asarray(0.26 * outline * (1 - 0.25 * _blob(side, 0.0, -0.4, 0.3, 0.3)), dtype=np.float32)


def _haze(side: int, random: Random) -> GreyImage:
    """Shadows that resemble an opacity but are not one: a faint base, a thick vessel seen end on, skin folds."""
    canvas = random.uniform(0, 0.07) * _blob(side, 0.0, 0.62, 0.9, random.uniform(0.1, 0.24))
    for _ in range(int(random.integers(0, 3))):
        x, y = random.uniform(-0.6, 0.6), random.uniform(-0.5, 0.3)
        size = random.uniform(0.03, 0.2)
        canvas = canvas + random.uniform(0.01, 0.045) * _blob(side, x, y, size, size * random.uniform(0.6, 1.6))
    return np.asarray(canvas, dtype=np.float32)


def _opacities(lungs: tuple[GreyImage, GreyImage], side: int, random: Random) -> GreyImage:
    """One to three cloudy patches, each centred inside a lung and ending with it."""
    canvas = np.zeros((side, side), np.float32)
    for _ in range(int(random.choice([1, 1, 2, 3]))):
        lung = lungs[int(random.integers(2))]
        rows, columns = np.nonzero(lung > 0.9)
        pick = int(random.integers(len(rows)))
        x, y = columns[pick] / side * 2 - 1, rows[pick] / side * 2 - 1
        size = random.uniform(0.2, 0.48)
        patch = _blob(side, x, y, size, size * random.uniform(0.7, 1.4)) * lung
        cloud = np.clip(0.85 + 0.18 * _smooth_noise(side, side / 9, random), 0, 1.4)
        canvas = np.maximum(canvas, patch * cloud)
    return canvas


def _smooth_noise(side: int, scale: float, random: Random) -> Floats32:
    """Noise of unit variance whose features are about `scale` pixels wide."""
    small = max(4, round(side / max(1.0, scale) * 2))
    drawn = Pillow.fromarray(random.normal(0, 1, (small, small)).astype(np.float32))
    noise = np.asarray(drawn.resize((side, side), Pillow.Resampling.BICUBIC))
    return np.asarray(noise / max(1e-6, float(noise.std())), dtype=np.float32)


def _pose(image: GreyImage, random: Random) -> GreyImage:
    side = image.shape[0]
    angle, scale = np.radians(random.normal(0, 2.5)), random.uniform(0.92, 1.1)
    across, down = random.normal(0, 0.025, 2) * side
    # Where a pixel of the turned image comes from; beyond the edge the border goes on.
    cosine, sine, edge, half = np.cos(angle) / scale, np.sin(angle) / scale, side // 4, side / 2
    left = half + edge - cosine * (half + across) + sine * (half + down)
    top = half + edge - sine * (half + across) - cosine * (half + down)
    wide = Pillow.fromarray(np.pad(image, edge, mode="edge"))
    turn = (cosine, -sine, left, sine, cosine, top)
    turned = wide.transform((side, side), Pillow.Transform.AFFINE, turn, Pillow.Resampling.BILINEAR)
    return np.array(turned, dtype=np.float32)


def _mark(image: GreyImage, random: Random) -> GreyImage:
    """The side marker, and now and then the edge of the collimator or a lead on the skin."""
    side = image.shape[0]
    x, y, size = random.uniform(0.72, 0.84), random.uniform(-0.92, -0.84), 0.07
    letter = np.array([(x, y - size), (x, y), (x + 0.6 * size, y)])
    image = np.maximum(image, 0.95 * _soften(_lines([letter], side, 0.014), side, 0.003))
    if random.random() < 0.3:
        edge = round(side * random.uniform(0.01, 0.04))
        image[:, :edge] = image[:, side - edge :] = 0.0
    if random.random() < 0.25:
        start = random.uniform(-0.9, 0.9)
        lead = _curve([(start, -1.0), (start * 0.7, -0.3), (start + 0.3, 0.2)])
        image += 0.3 * _soften(_lines([lead], side, 0.008), side, 0.004)
    return image
