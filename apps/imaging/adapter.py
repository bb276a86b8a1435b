"""Arrays of images to the network's input, and its outputs to decisions: the front door's way to an imaging artifact.

An image that is an array takes the steps of one that is a file (`readers/raster.py`): the same grey levels, the same
resize, and so the same probability.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featherweight.apps.imaging.pixels import DARK_NOTE, finish, render_unsigned, resize
from featherweight.apps.imaging.sealed import decode_decision, decode_preprocess
from featherweight.core.adapters import Cases, Decisions, InputRange, check_ranges
from featherweight.core.arrays import Array, GreyImage
from featherweight.core.errors import ArtifactError, TensorError
from featherweight.core.tensors import Tensors, TensorSpec
from featherweight.core.terminal import counted

_MAX_SIDE = 1 << 15
"""Maximum side of an image in pixels: a larger array is not meant as an image."""
_DARK = 4095
_ACCEPTED = "uint8 (0 to 255), uint16 (0 to 65535) or floats (0 to 1)"


class ImagingAdapter:
    """Grey images [H, W] in; label and calibrated probability out. The program's input is [N, 1, side, side]."""

    def __init__(self, labels: Sequence[str], files: Mapping[str, bytes], inputs: Sequence[TensorSpec]) -> None:
        missing = {"preprocess.json", "decision.json"} - files.keys()
        if missing:
            raise ArtifactError(f"the artifact lacks {', '.join(sorted(missing))}; make it again")
        self._side = decode_preprocess(files["preprocess.json"]).side
        self._decision = decode_decision(files["decision.json"])
        shapes = [(spec.dtype, spec.shape) for spec in inputs]
        if shapes != [("float32", (None, 1, self._side, self._side))] or len(labels) != 2:
            found = "; ".join(str(spec) for spec in inputs)
            raise ArtifactError(
                f"the program takes {found} and has {counted(len(labels), 'labels')}; its preprocess.json asks for "
                f"float32 [N, 1, {self._side}, {self._side}] and two labels; make the artifact again"
            )
        self._input, self._labels = inputs[0].name, tuple(labels)
        self.outcomes = None
        # What version 1 of preprocess.json means: the grey level of white is 1.
        self.ranges = (InputRange(self._input, 0.0, 1.0, "grey level, 0 is black and 1 is white"),)

    def cases(self, arrays: Any) -> Sequence[Array]:
        """`arrays`: [N, H, W], or a sequence of images [H, W] of any sizes."""
        if isinstance(arrays, np.ndarray) and arrays.ndim == 2:
            raise TensorError(
                f"images: found one array {list(arrays.shape)}, expected [N, H, W]; of one image give image[None]"
            )
        images = [_checked(image, place) for place, image in enumerate(arrays)]
        if not images:
            raise TensorError("images: found none, expected at least one")
        return images

    def prepare(self, cases: Cases, first: int) -> tuple[Tensors, tuple[str, ...]]:
        """float32 [n, 1, side, side] in 0..1."""
        levels = np.empty((len(cases), 1, self._side, self._side), np.float32)
        for place, image in enumerate(cases):
            if image.dtype.kind == "f":
                check_ranges({self._input: image[None]}, self.ranges, first + place)
            levels[place, 0] = _grey_levels(image, self._side)
        return {self._input: levels}, tuple(_note(image) for image in cases)

    def decide(self, outputs: Tensors) -> Decisions:
        """Decide from the logit [n, 1]."""
        (logits,) = outputs.values()
        scores = logits[:, 0].astype(np.float64)
        probabilities = self._decision.probabilities(scores)
        negative, positive = self._labels
        decisions = np.where(probabilities >= self._decision.threshold, positive, negative)
        return Decisions(scores, probabilities, decisions, positive)


def _checked(image: Any, place: int) -> Array:
    if not isinstance(image, np.ndarray):
        raise TensorError(f"images[{place}]: found {type(image).__name__}, expected a numpy array [H, W]")
    if image.ndim != 2 or min(image.shape) < 1 or max(image.shape) > _MAX_SIDE:
        colour = image.ndim == 3 and image.shape[2] in (3, 4)
        remedy = "; make it grey, with Pillow by image.convert('L')" if colour else ""
        raise TensorError(
            f"images[{place}]: found shape {list(image.shape)}, expected a grey image [H, W] of at most "
            f"{_MAX_SIDE:,} pixels a side{remedy}"
        )
    if image.dtype not in (np.uint8, np.uint16) and image.dtype.kind != "f":
        raise TensorError(
            f"images[{place}]: found {image.dtype}, whose white is not known; expected {_ACCEPTED}: convert it"
        )
    return image


def _grey_levels(image: Array, side: int) -> GreyImage:
    """float32 [side, side] in 0..1, by the same steps as a file of as many bits."""
    if image.dtype == np.uint16:
        return render_unsigned(image, 65535, side)
    return render_unsigned(image, 255, side) if image.dtype == np.uint8 else finish(resize(image, side), False)


def _note(image: Array) -> str:
    return DARK_NOTE if image.dtype == np.uint16 and 0 < image.max() <= _DARK else ""
