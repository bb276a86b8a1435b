"""The forms of int8 beside the static one, scales for whole tensors, and operators that go back to float."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from featherweight.core.backends.registry import NAMES, find_backend
from featherweight.core.errors import BackendUnavailableError, DataError, UsageError
from featherweight.core.export import export
from featherweight.core.inspection import check_content
from featherweight.core.model import Model
from featherweight.core.passes import float_operators
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from featherweight.core.recipe import parse_recipe
from featherweight.core.recipe.types import render_recipe
from featherweight.core.tensors import Tensors, TensorSpec

FORMS = ("int8-dynamic", "int8-weights", "fp16-weights")


class Mixed(nn.Module):
    """A layer of every kind whose weights can be stored."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.wide = nn.Embedding(64, 16), nn.Conv1d(16, 24, 3, padding=1)
        self.back, self.lstm = nn.ConvTranspose1d(24, 16, 3, padding=1), nn.LSTM(16, 16, batch_first=True)
        self.middle, self.head = nn.Linear(16, 32), nn.Linear(32, 1)
        self.product = nn.Parameter(torch.randn(16, 16) / 4)

    def forward(self, words: Tensor, row: Tensor) -> Tensor:
        found = self.back(torch.relu(self.wide(self.table(words).transpose(1, 2)))).transpose(1, 2)
        found = self.lstm(found @ self.product)[0][:, -1] + row
        scores: Tensor = self.head(torch.relu(self.middle(found)))
        return scores


INPUTS = (TensorSpec("words", "int64", (None, 6)), TensorSpec("row", "float32", (None, 16)))


def cases(count: int, seed: int = 0) -> Tensors:
    rng = np.random.default_rng(seed)
    return {"words": rng.integers(0, 64, (count, 6)), "row": rng.normal(size=(count, 16)).astype(np.float32)}


@pytest.fixture(scope="module")
def program() -> Program:
    torch.manual_seed(1)
    return export(Model(Mixed().eval(), INPUTS, (TensorSpec("score", "float32", (None, 1)),)))[0]


def scores(program: Program, inputs: Tensors, backend: str = "onnxruntime") -> np.ndarray:
    with find_backend(backend).open(program) as session:
        return np.asarray(session.run(inputs)["score"][:, 0])


def kinds(program: Program) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(program.content).graph.node}


@pytest.mark.parametrize("precision", FORMS)
def test_every_backend_runs_the_form_or_says_why_not_before_it_opens(program: Program, precision: str) -> None:
    made, record = quantize(program, QuantizeStep(precision), [])  # type: ignore[arg-type]
    check_content(made.content)
    assert made.precision == QuantizeStep(precision).program_precision  # type: ignore[arg-type]
    assert len(made.content) < len(program.content) * (0.6 if precision == "fp16-weights" else 0.5)
    assert record.facts["file_bytes"] == len(made.content)
    wanted, ran = scores(program, cases(50)), []
    for name in NAMES:
        if name == "native" or (name == "torch" and made.precision == "int8"):
            with pytest.raises(BackendUnavailableError, match=f"backend {name}: .*use the backend onnxruntime"):
                find_backend(name).open(made)
            continue
        found = scores(made, cases(50), name)
        assert 0 < np.abs(found - wanted).max() < 0.1 * wanted.std(), name
        ran.append(name)
    assert {"onnxruntime", "openvino"} <= set(ran)


def test_what_each_form_stores(program: Program) -> None:
    dynamic, weights, halves = (quantize(program, QuantizeStep(form), [])[0] for form in FORMS)  # type: ignore[arg-type]
    assert {"DynamicQuantizeLinear", "MatMulInteger", "DequantizeLinear"} <= kinds(dynamic)
    assert kinds(weights) == kinds(program) | {"DequantizeLinear"}
    assert kinds(halves) == kinds(program) | {"Cast"}
    for made, kind in ((weights, TensorProto.INT8), (halves, TensorProto.FLOAT16)):
        stored = onnx.load_from_string(made.content).graph.initializer
        assert not any(t.data_type == TensorProto.FLOAT and np.prod(t.dims) >= 256 for t in stored)
        assert sum(t.data_type == kind and np.prod(t.dims) >= 256 for t in stored) == 7


def test_no_case_has_another_answer_in_a_batch_than_alone(program: Program) -> None:
    """Ranges that are found in a run would be those of the whole batch: its cases are run one by one."""
    far = cases(20, seed=3)
    far["row"][1:] *= 50
    alone = {name: array[:1] for name, array in far.items()}
    for form in ("int8-weights", "int8-dynamic"):
        made, _ = quantize(program, QuantizeStep(form), [])  # type: ignore[arg-type]
        for name in ("onnxruntime", "openvino"):
            assert abs(scores(made, far, name)[0] - scores(made, alone, name)[0]) < 1e-5, (form, name)


def test_stored_weights_are_the_nearest_multiples_of_each_channels_scale(program: Program) -> None:
    made, _ = quantize(program, QuantizeStep("int8-weights"), [])
    plain = {
        tensor.name: numpy_helper.to_array(tensor)
        for tensor in onnx.load_from_string(program.content).graph.initializer
    }
    proto = onnx.load_from_string(made.content)
    stored = {tensor.name: numpy_helper.to_array(tensor) for tensor in proto.graph.initializer}
    found = [node for node in proto.graph.node if node.op_type == "DequantizeLinear"]
    assert len(found) == 7
    for node in found:
        whole, scale, zero = (stored[name] for name in node.input)
        (axis,) = (entry.i for entry in node.attribute)
        shape = [-1 if place == axis else 1 for place in range(whole.ndim)]
        origin = plain[node.input[0].split(":")[0]]
        assert not zero.any()
        assert np.abs(whole * scale.reshape(shape) - origin).max() <= scale.max() / 2 * 1.001
        assert np.all(np.abs(whole).max(axis=tuple(one for one in range(whole.ndim) if one != axis)) == 127)


@pytest.mark.parametrize("precision", ["int8", "int8-dynamic", "int8-weights"])
def test_one_scale_for_each_tensor_is_smaller_and_less_exact(program: Program, precision: str) -> None:
    found = []
    for scales in ("channel", "tensor"):
        step = QuantizeStep(precision, weight_scales=scales)  # type: ignore[arg-type]
        made, _ = quantize(program, step, [cases(64)])
        error = float(((scores(made, cases(200, 5)) - scores(program, cases(200, 5))) ** 2).mean())
        stored = onnx.load_from_string(made.content).graph.initializer
        several = {
            t.dims[0] for t in stored if t.data_type == TensorProto.FLOAT and t.name.endswith("scale") and t.dims
        }
        found.append((len(made.content), error, several))
    (channel_bytes, channel_error, channel_scales), (tensor_bytes, tensor_error, tensor_scales) = found
    assert tensor_bytes < channel_bytes
    assert min(channel_error, tensor_error) > 0
    assert max(channel_scales) > 1
    assert not {one for one in tensor_scales if one > 1}


def spoiled(program: Program) -> tuple[Program, str]:
    """The same function, but for a hidden value that is huge and that nothing reads: where the layer that follows has
    one range for its inputs, none is left for the others. With that layer's name."""
    proto = onnx.load_from_string(program.content)
    stored = {tensor.name: tensor for tensor in proto.graph.initializer}
    middle, head = (node for node in proto.graph.node if node.op_type == "Gemm")
    bias, weight = (numpy_helper.to_array(stored[name]).copy() for name in (middle.input[2], head.input[1]))
    bias[0], weight[0, 0] = 5e4, 0.0
    for name, array in ((middle.input[2], bias), (head.input[1], weight)):
        stored[name].CopyFrom(numpy_helper.from_array(array, name))
    return replace(program, content=proto.SerializeToString()), head.name


def relative_change(program: Program, made: Program, inputs: Tensors) -> float:
    wanted = scores(program, inputs)
    return float(((scores(made, inputs) - wanted) ** 2).mean() / wanted.var())


def test_operators_go_back_to_float_until_the_outputs_keep_the_change(program: Program) -> None:
    hurt, name = spoiled(program)
    whole, _ = quantize(hurt, QuantizeStep(), [cases(64)])
    assert relative_change(hurt, whole, cases(64)) > 0.5
    kept, record = quantize(hurt, QuantizeStep(change_max=0.01), [cases(64)])
    facts = record.facts
    assert name in facts["float_operators"]  # type: ignore[operator]
    assert facts["change"] <= 0.01 < 0.5 < facts["change_of_all"]  # type: ignore[operator]
    assert relative_change(hurt, kept, cases(64)) == pytest.approx(facts["change"], rel=0.01)
    count = len(facts["float_operators"])  # type: ignore[arg-type]
    fewer, _ = quantize(hurt, QuantizeStep(float_operators=count - 1), [cases(64)])
    assert relative_change(hurt, fewer, cases(64)) > 0.01, "one fewer would have done"
    assert (kept, record) == quantize(hurt, QuantizeStep(change_max=0.01), [cases(64)])


def test_a_change_that_is_kept_leaves_nothing_in_float(program: Program) -> None:
    for form in ("int8", "int8-dynamic", "int8-weights"):
        plain, _ = quantize(program, QuantizeStep(form), [cases(64)])
        made, record = quantize(program, QuantizeStep(form, change_max=0.5), [cases(64)])
        assert record.facts["float_operators"] == []
        assert record.facts["change"] == record.facts["change_of_all"]
        assert made == plain


def test_a_change_that_nothing_keeps_is_refused(program: Program) -> None:
    with pytest.raises(UsageError, match=r"move by .* with one operator in int8, more than change_max 1e-12 allows"):
        quantize(program, QuantizeStep("int8-weights", change_max=1e-12), [cases(64)])
    with pytest.raises(DataError, match="no calibration inputs"):
        quantize(program, QuantizeStep("int8-weights", change_max=0.1), [])


def test_a_network_without_large_weights_has_nothing_to_store() -> None:
    inputs, outputs = TensorSpec("x", "float32", (None, 4)), TensorSpec("score", "float32", (None, 1))
    tiny, _ = export(Model(nn.Linear(4, 1).eval(), (inputs,), (outputs,)))
    for form in FORMS:
        with pytest.raises(UsageError, match=f"would be {form}; leave the step out"):
            quantize(tiny, QuantizeStep(form), [])  # type: ignore[arg-type]


def test_weights_that_halves_cannot_hold_stay(program: Program) -> None:
    proto = onnx.load_from_string(program.content)
    tensor = next(t for t in proto.graph.initializer if np.prod(t.dims) >= 256)
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[0] = 1e6
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    made, _ = quantize(replace(program, content=proto.SerializeToString()), QuantizeStep("fp16-weights"), [])
    kept = {t.name: numpy_helper.to_array(t) for t in onnx.load_from_string(made.content).graph.initializer}
    np.testing.assert_array_equal(kept[tensor.name], array)
    assert sum(array.dtype == np.float16 for array in kept.values()) == 6


def test_a_recipe_renders_the_new_keys_only_where_they_say_something() -> None:
    text = 'version = 1\nname = "x"\n[source]\ntask = "t"\n[[step]]\nkind = "quantize"\n'
    plain = parse_recipe(text)
    assert {"change_max", "weight_scales"}.isdisjoint(render_recipe(plain).split())
    asked = parse_recipe(text + 'precision = "int8-weights"\nweight_scales = "tensor"\nchange_max = [0.01, 0.0]\n')
    assert parse_recipe(render_recipe(asked)) == asked != plain
    assert "change_max = [0.01, 0.0]" in render_recipe(asked)


class Counted:
    """A form whose file is the number of nodes that stay in float, or the name of the only one that is quantized."""

    rounding = ("a", "b", "c", "d", "e", "f")

    def made(self, *, only: Sequence[str] = (), in_float: Collection[str] = ()) -> Any:
        return only[0] if only else len(in_float)


@given(
    falls=st.lists(st.integers(0, 100), min_size=6, max_size=6),
    most=st.integers(1, 100),
    first=st.integers(0, 5),
)
def test_no_more_operators_than_it_takes_go_back(falls: list[int], most: int, first: int) -> None:
    changes = dict(enumerate(sorted(falls, reverse=True)))
    fits = [count for count in range(first, 6) if changes[count] <= most]
    with pytest.MonkeyPatch.context() as patch:
        own = {name: float(place) for place, name in enumerate(Counted.rounding)}
        patch.setattr(float_operators, "_change_of", lambda plain, inputs: lambda made: {**changes, **own}[made])
        step = QuantizeStep(float_operators=first, change_max=most)
        try:
            made, facts = float_operators.quantize_but_worst(Counted(), onnx.ModelProto(), step, [])
        except UsageError:
            assert not fits
            return
    assert made == fits[0]  # type: ignore[comparison-overlap]
    assert facts["float_operators"] == ["f", "e", "d", "c", "b", "a"][: fits[0]]
    assert (facts["change_of_all"], facts["change"]) == (changes[first], changes[fits[0]])
