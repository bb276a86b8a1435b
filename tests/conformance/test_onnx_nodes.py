"""ONNX's own tests of each operator on every backend: each gives what ONNX says, or is refused before it runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

pytest.importorskip("torch", reason="the torch backend needs torch")

from featherweight.core.backends.registry import find_backend
from featherweight.core.backends.torch_ops import OPERATORS
from featherweight.core.errors import FeatherweightError
from tests.conformance.onnx_nodes import NodeCase, cases_of, operators
from tests.conformance.test_torch_operators import EXAMPLES

KNOWN: dict[str, dict[str, str]] = {
    "torch": {},
    "onnxruntime": {},
    "openvino": {"test_dynamicquantizelinear": "a tie is rounded away from the even number"},
}
"""Backend -> case that it does otherwise, with what differs."""
LENGTHS = "all runtimes take the scale that the new length makes, not the one that is told"
for _known in KNOWN.values():
    _known |= {f"test_resize_downsample_scales_{kind}_align_corners": LENGTHS for kind in ("linear", "cubic")}
LATE = {
    "test_mod_float32_mixed_sign_fmod_0": "Mod of floats with a sign of the divisor",
    "test_mod_float_edge_cases_fmod_0_float32": "Mod of floats with a sign of the divisor",
    "test_convinteger_with_padding": "ConvInteger with a zero point that is an input",
}
"""Cases that ONNX Runtime refuses only when they run: it looks at its inputs then."""
LEFT_OUT = frozenset({"Attention", "DeformConv", "LpPool", "RotaryEmbedding"})
"""Their many cases take longer than those of all others together."""


def verdict(backend: str, case: NodeCase) -> str:
    """right, refused, or what is wrong."""
    try:
        session = find_backend(backend).open(case.program)
    except FeatherweightError:
        return "refused"
    with session:
        try:
            outputs = session.run(case.inputs)
        except FeatherweightError as error:
            return "refused" if backend == "onnxruntime" and case.name in LATE else f"{case.name} fails late: {error}"
    relative, absolute = case.tolerance
    for name, wanted in case.outputs.items():
        found = outputs[name]
        close = found.shape == wanted.shape and np.allclose(
            found, wanted, rtol=max(relative, 1e-3), atol=max(absolute, 1e-5), equal_nan=True
        )
        if not close:
            return "known" if case.name in KNOWN[backend] else f"{case.name}: {name} is wrong"
    return "right"


def verdicts(backend: str, cases: Sequence[NodeCase]) -> Counter[str]:
    available = find_backend(backend).probe()
    if not available.available:
        pytest.skip(f"{backend}: {available.reason}")
    found = Counter(verdict(backend, case) for case in cases)
    faults = [told for told in found if told not in ("right", "refused", "known")]
    assert not faults, faults
    return found


@pytest.mark.parametrize("operator", [name for name in operators() if name not in LEFT_OUT])
@pytest.mark.parametrize("backend", ["torch", "onnxruntime"])
def test_right_or_refused(backend: str, operator: str) -> None:
    cases, _ = cases_of(operator)
    found = verdicts(backend, cases)
    if cases and backend == "torch" and operator in OPERATORS:
        assert found["right"] or operator == "GRU", "none of its forms runs, though the table has it"


@pytest.mark.parametrize("operator", [name for name in operators() if name not in LEFT_OUT])
def test_right_or_refused_by_openvino(operator: str) -> None:
    """The first case alone: OpenVINO compiles each for 60 ms."""
    verdicts("openvino", cases_of(operator)[0][:1])


@pytest.mark.slow
@pytest.mark.parametrize("operator", operators())
@pytest.mark.parametrize("backend", ["torch", "onnxruntime", "openvino"])
def test_all_cases(backend: str, operator: str) -> None:
    verdicts(backend, cases_of(operator)[0])


def test_every_operator_of_the_table_was_tried() -> None:
    tried = {name for name in operators() if cases_of(name)[0]} | {example.operator for example in EXAMPLES}
    tried |= {
        "Constant",
        "ConstantOfShape",
        "MeanVarianceNormalization",
        "Range",
    }  # which have tests of their own there
    assert OPERATORS.keys() - tried == set()
