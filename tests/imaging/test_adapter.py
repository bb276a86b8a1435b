"""An image that is an array is read as the file that holds it."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from featherweight.apps.imaging.adapter import ImagingAdapter
from featherweight.apps.imaging.readers.raster import decode_image
from featherweight.apps.imaging.sealed import DecisionRule, Preprocess, encode
from featherweight.core.adapters import describe_ranges
from featherweight.core.errors import ArtifactError
from featherweight.core.tensors import TensorSpec

SIDE = 32
FILES = {
    "preprocess.json": encode(Preprocess(side=SIDE)),
    "decision.json": encode(DecisionRule(slope=2.0, intercept=0.0, threshold=0.75)),
}
INPUTS = (TensorSpec("image", "float32", (None, 1, SIDE, SIDE)),)
ADAPTER = ImagingAdapter(("normal", "ill"), FILES, INPUTS)


@pytest.mark.parametrize("shape", [(40, 48), (32, 32), (9, 300), (8, 8)])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_the_pixels_are_those_of_the_file(shape: tuple[int, int], dtype: type[np.uint8] | type[np.uint16]) -> None:
    image = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, shape, dtype)
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    tensors, notes = ADAPTER.prepare(ADAPTER.cases([image]), 0)
    assert np.array_equal(tensors["image"][0, 0], decode_image(Image.open(file), SIDE))
    assert notes == ("",)


def test_decisions_are_those_of_the_sealed_threshold() -> None:
    found = ADAPTER.decide({"logit": np.array([[-40.0], [0.54], [0.56], [40.0]], np.float32)})
    assert found.decisions.tolist() == ["normal", "normal", "ill", "ill"]
    assert found.positive == "ill"
    assert ((found.probabilities > 0) & (found.probabilities < 1)).all()


def test_the_range_is_what_preprocess_json_means() -> None:
    assert describe_ranges(ADAPTER.ranges) == "image: 0 to 1 (grey level, 0 is black and 1 is white)"


def test_a_program_that_takes_something_else_is_refused() -> None:
    for labels, files, inputs in (
        (("a", "b"), {}, INPUTS),
        (("a", "b", "c"), FILES, INPUTS),
        (("a", "b"), FILES, (TensorSpec("image", "float32", (None, 3, SIDE, SIDE)),)),
        (("a", "b"), {**FILES, "decision.json": b"{}"}, INPUTS),
    ):
        with pytest.raises(ArtifactError):
            ImagingAdapter(labels, files, inputs)
