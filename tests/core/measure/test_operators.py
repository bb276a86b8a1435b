"""What operators cost, read from ONNX Runtime's real profiles, and the sentences made of it. No time is asserted."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.errors import BackendError, TensorError, UsageError
from featherweight.core.export import export
from featherweight.core.measure.operators import (
    OperatorTime,
    explain_slower_int8,
    measure_operators,
    parse_profile,
    render_explanation,
)
from featherweight.core.model import trees_model
from featherweight.core.passes.quantize import quantize
from featherweight.core.passes.steps import QuantizeStep
from featherweight.core.program import Program
from tests.fakes import fitted_trees, images, rows, trained_model

CASES = images(16, seed=1)[0]
BATCHES = [{"image": CASES[:1]}, {"image": CASES[1:2]}]


@pytest.fixture(scope="module")
def fp32() -> Program:
    return export(trained_model())[0]


@pytest.fixture(scope="module")
def int8(fp32: Program) -> Program:
    return quantize(fp32, QuantizeStep(), [{"image": CASES}])[0]


def test_real_profiles_name_the_operators_and_leave_nothing_behind(
    fp32: Program, int8: Program, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    before, after = (measure_operators(program, BATCHES, repetitions=3) for program in (fp32, int8))
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    was, now = (Counter(operator.family for operator in one) for one in (before, after))
    assert (was["Conv"], was["Gemm"], was["quantize/dequantize"]) == (4, 1, 0)
    assert (now["Conv"], now["Gemm"]) == (4, 1)
    assert now["quantize/dequantize"] >= 2
    assert len({(operator.name, operator.kind) for operator in after}) == len(after)
    assert all(operator.time_us >= 0 for operator in (*before, *after))


def test_a_program_beside_itself_is_explained_or_not_but_never_fails(fp32: Program, int8: Program) -> None:
    found = explain_slower_int8(fp32, int8, BATCHES, repetitions=3)
    assert not found or "quantizing and dequantizing" in found


def test_trees_have_one_operator() -> None:
    fp32, _ = export(trees_model(fitted_trees()))
    batches = [{"features": rows(5, seed=2)[0]}]
    int8, _ = quantize(fp32, QuantizeStep(), batches)
    assert [operator.family for operator in measure_operators(int8, batches, repetitions=2)] == ["TreeEnsemble"]
    found = explain_slower_int8(fp32, int8, batches, repetitions=2)
    assert not found or found.endswith("the runtime does the same work.")


def test_what_cannot_be_measured_is_refused(fp32: Program) -> None:
    with pytest.raises(UsageError, match="no batch"):
        measure_operators(fp32, [])
    with pytest.raises(TensorError):
        measure_operators(fp32, [{"image": CASES[:1].astype(np.float64)}])
    bf16, _ = quantize(fp32, QuantizeStep("bf16"), [])
    with pytest.raises(UsageError, match="bf16"):
        measure_operators(bf16, BATCHES)


def operators(*given: tuple[str, float]) -> list[OperatorTime]:
    return [OperatorTime(f"node_{index}", kind, time_us) for index, (kind, time_us) in enumerate(given)]


def test_the_sentence_names_the_slower_operators_and_the_price_of_converting() -> None:
    before = operators(("Conv", 20.0), ("Conv", 20.0), ("HardSigmoid", 1.0), ("Gemm", 9.0))
    after = operators(
        ("QuantizeLinear", 10.0), ("QLinearConv", 30.0), ("NhwcFusedConv", 30.0), ("QLinearMul", 15.0),
        ("HardSigmoid", 1.0), ("QGemm", 4.0), ("DequantizeLinear", 10.0),
    )  # fmt: skip
    assert render_explanation(before, after) == (
        "int8 takes 100 us in ONNX Runtime's operators, fp32 50 us; slower: Conv (2x) 40 -> 60 us, "
        "Mul (1x) 0 -> 15 us. 20% of the int8 time goes into quantizing and dequantizing (2x)."
    )
    assert render_explanation(after, before) == ""
    same = operators(("Conv", 40.0))
    assert "no operator is slower by itself. 20%" in render_explanation(
        same, operators(("QLinearConv", 40.0), ("QuantizeLinear", 10.0))
    )


kinds = st.sampled_from(["Conv", "QLinearConv", "QuantizeLinear", "ReorderInput", "Softmax"])
profiles = st.lists(st.tuples(kinds, st.floats(0, 1e6)), max_size=6)


@given(profiles, profiles)
def test_only_a_slower_program_is_explained(before: list[tuple[str, float]], after: list[tuple[str, float]]) -> None:
    slower = sum(time for _, time in after) > sum(time for _, time in before) * (1 + 1e-9)
    text = render_explanation(operators(*before), operators(*after))
    assert bool(text) == slower or not slower
    assert "QLinear" not in text


@pytest.mark.parametrize(
    "text", ["", "{", "{}", '[{"cat": "Node", "name": "a_kernel_time"}]', "[" * 100_000, "null", "[" + "1" * 5000]
)
def test_a_damaged_profile_is_a_backend_error(text: str) -> None:
    with pytest.raises(BackendError, match="profile"):
        parse_profile(text)


def test_only_kernels_count() -> None:
    text = """[{"cat": "Session", "name": "model_run", "dur": 9}, 7,
        {"cat": "Node", "name": "conv_kernel_time", "dur": 5, "args": {"op_name": "Conv"}},
        {"cat": "Node", "name": "conv_fence_before", "dur": 1, "args": {"op_name": "Conv"}}]"""
    assert parse_profile(text) == [("conv", "Conv", 5.0)]
