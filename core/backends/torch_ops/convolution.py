"""Convolutions and pooling."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.nn import functional

from featherweight.core.backends.torch_ops.values import Attributes, Inputs, Operator, optional, required, unary


def padding_of(sizes: Sequence[int], attributes: Attributes, kernel: Sequence[int]) -> list[int]:
    """begin and end of every spatial axis, as ONNX counts them: [b1, b2, ..., e1, e2, ...]. sizes: of the spatial
    axes."""
    mode = attributes.get("auto_pad", "NOTSET")
    if mode in ("NOTSET", ""):
        return list(attributes.get("pads") or [0] * 2 * len(kernel))
    if mode == "VALID":
        return [0] * 2 * len(kernel)
    strides, dilations = _each(attributes, "strides", kernel), _each(attributes, "dilations", kernel)
    begins, ends = [], []
    for size, width, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        total = max(0, (-(-size // stride) - 1) * stride + dilation * (width - 1) + 1 - size)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def pad_spatial(x: Tensor, pads: Sequence[int], value: float = 0.0) -> Tensor:
    """x with this much more (less, where negative) at the begin and end of its last axes, counted as ONNX does."""
    half = len(pads) // 2
    if not any(pads):
        return x
    # torch counts from the last axis to the first.
    order = [size for axis in reversed(range(half)) for size in (pads[axis], pads[half + axis])]
    return functional.pad(x, order, value=value)


def _each(attributes: Attributes, name: str, kernel: Sequence[int]) -> list[int]:
    return list(attributes.get(name) or [1] * len(kernel))


def _conv(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    rank = weight.ndim - 2
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    pads = padding_of(x.shape[2:], attributes, weight.shape[2:])
    symmetric = pads[:rank] == pads[rank:]
    return convolve(
        x if symmetric else pad_spatial(x, pads),
        weight,
        bias,
        stride=_each(attributes, "strides", pads[:rank]),
        padding=pads[:rank] if symmetric else 0,
        dilation=_each(attributes, "dilations", pads[:rank]),
        groups=attributes.get("group", 1),
    )


def transposed_pads(sizes: Sequence[int], attributes: Attributes, kernel: Sequence[int]) -> list[int]:
    """How much is cut off a transposed convolution at the begin and end of every spatial axis."""
    rank, mode = len(kernel), attributes.get("auto_pad", "NOTSET")
    wanted = attributes.get("output_shape")
    strides, dilations = _each(attributes, "strides", kernel), _each(attributes, "dilations", kernel)
    if wanted is None:
        if mode not in ("SAME_UPPER", "SAME_LOWER"):
            return padding_of(sizes, attributes, kernel)
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    extra = attributes.get("output_padding") or [0] * rank
    begins, ends = [], []
    for axis, target in enumerate(list(wanted)[-rank:]):
        whole = (sizes[axis] - 1) * strides[axis] + extra[axis] + dilations[axis] * (kernel[axis] - 1) + 1
        total = whole - target
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends


def _conv_transpose(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, weight, bias = required(inputs), required(inputs, 1), optional(inputs, 2)
    kernel = weight.shape[2:]
    rank = len(kernel)
    convolve = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}[rank]
    strides, dilations = _each(attributes, "strides", kernel), _each(attributes, "dilations", kernel)
    whole = convolve(x, weight, None, strides, 0, 0, attributes.get("group", 1), dilations)
    pads = transposed_pads(x.shape[2:], attributes, kernel)
    extra = attributes.get("output_padding") or [0] * rank
    cut = [-size for size in pads[:rank]] + [more - size for more, size in zip(extra, pads[rank:], strict=True)]
    found = pad_spatial(whole, cut)
    return found if bias is None else found + bias.reshape(-1, *[1] * rank)


def _ceiling_pads(x: Tensor, attributes: Attributes, kernel: Sequence[int], pads: Sequence[int]) -> list[int]:
    """What is added at the ends so that the last window of `ceil_mode` is whole. It begins within the input or the
    padding before it, else there is no such window."""
    if not attributes.get("ceil_mode", 0):
        return [0] * len(kernel)
    strides, dilations, rank = _each(attributes, "strides", kernel), _each(attributes, "dilations", kernel), len(kernel)
    added = []
    for axis, size in enumerate(x.shape[2:]):
        reach = dilations[axis] * (kernel[axis] - 1) + 1
        length = size + pads[axis] + pads[rank + axis]
        windows = -(-(length - reach) // strides[axis]) + 1
        if (windows - 1) * strides[axis] >= size + pads[axis]:
            windows -= 1
        added.append(max(0, (windows - 1) * strides[axis] + reach - length))
    return added


def _max_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, kernel = required(inputs), list(attributes["kernel_shape"])
    rank = len(kernel)
    pool = {1: functional.max_pool1d, 2: functional.max_pool2d, 3: functional.max_pool3d}[rank]
    pads = padding_of(x.shape[2:], attributes, kernel)
    added = _ceiling_pads(x, attributes, kernel, pads)
    native = pads[:rank] == pads[rank:] and all(2 * pad <= width for pad, width in zip(pads, kernel, strict=False))
    native = native and not any(added)
    numbers = x if x.is_floating_point() else x.float()
    found = pool(
        numbers
        if native
        else pad_spatial(
            numbers, pads[:rank] + [end + more for end, more in zip(pads[rank:], added, strict=True)], float("-inf")
        ),
        kernel,
        stride=_each(attributes, "strides", kernel),
        padding=pads[:rank] if native else 0,
        dilation=_each(attributes, "dilations", kernel),
    )
    return found.to(x.dtype)


def _average_pool(inputs: Inputs, attributes: Attributes) -> Tensor:
    x, kernel = required(inputs), list(attributes["kernel_shape"])
    rank = len(kernel)
    pads = padding_of(x.shape[2:], attributes, kernel)
    added = _ceiling_pads(x, attributes, kernel, pads)
    sums = _window_means(pad_spatial(x, pads), [0] * rank + added, attributes, kernel)
    counts_padding = bool(attributes.get("count_include_pad", 0))
    if not any(added) and (counts_padding or not any(pads)):
        return sums
    ones = pad_spatial(torch.ones_like(x[:1, :1]), pads, 1.0 if counts_padding else 0.0)
    return sums / _window_means(ones, [0] * rank + added, attributes, kernel)


def _window_means(x: Tensor, pads: Sequence[int], attributes: Attributes, kernel: Sequence[int]) -> Tensor:
    """Each window's mean, what is added counted as zeros."""
    x, strides, rank = pad_spatial(x, pads), _each(attributes, "strides", kernel), len(kernel)
    dilations = _each(attributes, "dilations", kernel)
    if all(size == 1 for size in dilations):
        pool = {1: functional.avg_pool1d, 2: functional.avg_pool2d, 3: functional.avg_pool3d}[rank]
        return pool(x, list(kernel), stride=strides)
    convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[rank]
    ones = torch.ones(1, 1, *kernel, dtype=x.dtype, device=x.device)
    found = convolve(x.reshape(-1, 1, *x.shape[2:]), ones, stride=strides, dilation=dilations) / ones.numel()
    return found.reshape(*x.shape[:2], *found.shape[2:])


CONVOLUTION: Mapping[str, Operator] = {
    "AveragePool": _average_pool,
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "GlobalAveragePool": unary(lambda x: x.mean(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "GlobalMaxPool": unary(lambda x: x.amax(dim=tuple(range(2, x.ndim)), keepdim=True)),
    "MaxPool": _max_pool,
}
