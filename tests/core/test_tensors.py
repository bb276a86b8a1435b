from __future__ import annotations

from typing import get_args

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from featherweight.core.errors import TensorError
from featherweight.core.tensors import DType, Tensors, TensorSpec, check_tensors

IMAGE = TensorSpec("image", "float32", (None, 1, 4, 4))
AGE = TensorSpec("age", "int64", (None, 1))


def test_the_batch_size_is_returned() -> None:
    tensors: Tensors = {"image": np.zeros((3, 1, 4, 4), np.float32), "age": np.zeros((3, 1), np.int64)}
    assert check_tensors(tensors, (IMAGE, AGE)) == 3
    assert check_tensors({"x": np.zeros((2, 2), np.uint8)}, (TensorSpec("x", "uint8", (2, 2)),)) == 1


def test_batch_sizes_must_agree() -> None:
    with pytest.raises(TensorError, match=r"batch sizes differ: \{'image': 3, 'age': 2\}"):
        check_tensors({"image": np.zeros((3, 1, 4, 4), np.float32), "age": np.zeros((2, 1), np.int64)}, (IMAGE, AGE))


def test_the_message_says_what_to_do() -> None:
    with pytest.raises(TensorError, match=r"image: found float64, expected float32; convert with .astype\('float32'\)"):
        check_tensors({"image": np.zeros((1, 1, 4, 4))}, (IMAGE,))


@settings(deadline=None)
@given(
    dtype=st.sampled_from([*get_args(DType), "float64", "int8"]),
    shape=arrays.array_shapes(min_dims=0, max_dims=5, min_side=0, max_side=5),
)
def test_exactly_the_spec_is_accepted(dtype: str, shape: tuple[int, ...]) -> None:
    tensors = {"image": np.zeros(shape, dtype)}
    if dtype == "float32" and len(shape) == 4 and shape[0] > 0 and shape[1:] == (1, 4, 4):
        assert check_tensors(tensors, (IMAGE,)) == shape[0]
    else:
        with pytest.raises(TensorError):
            check_tensors(tensors, (IMAGE,))
