"""What each operator of a program costs, from ONNX Runtime's own profiler: why int8 may be slower than fp32.

The profile is of ONNX Runtime, whichever backend the program is sealed for: OpenVINO fuses other operators, but what
makes int8 slow (conversions between the operators, kernels without vector code, layers too small to win) is the same.
"""

from __future__ import annotations

import json
import tempfile
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.errors import BackendError, UsageError
from featherweight.core.files import read_errors
from featherweight.core.program import Program
from featherweight.core.tensors import Tensors, check_tensors

_CONVERSIONS = frozenset({"QuantizeLinear", "DequantizeLinear"})
_LAYOUTS = frozenset({"ReorderInput", "ReorderOutput", "Transpose"})
_FAMILIES = {
    "FusedConv": "Conv", "NhwcFusedConv": "Conv", "QLinearConv": "Conv", "ConvInteger": "Conv",
    "FusedGemm": "Gemm", "QGemm": "Gemm",
    "FusedMatMul": "MatMul", "QLinearMatMul": "MatMul", "MatMulInteger": "MatMul", "MatMulIntegerToFloat": "MatMul",
    "QLinearGlobalAveragePool": "GlobalAveragePool", "NhwcMaxPool": "MaxPool",
    "TreeEnsembleClassifier": "TreeEnsemble", "TreeEnsembleRegressor": "TreeEnsemble",
}  # fmt: skip
"""The runtime's kernels that do one operator's work in other precisions or layouts."""

_WARMUP = 3
"""Runs that are not counted: the first ones lay out memory."""


@dataclass(frozen=True)
class OperatorTime:
    """One node of the graph as the runtime runs it, after its fusions. time_us: mean of the faster half of the runs."""

    name: str
    kind: str
    time_us: float

    @property
    def family(self) -> str:
        """The ONNX operator whose work it does: QLinearConv does a Conv's; "quantize/dequantize" and "layout" are what
        stands between operators."""
        if self.kind in _CONVERSIONS:
            return "quantize/dequantize"
        if self.kind in _LAYOUTS:
            return "layout"
        return _FAMILIES.get(self.kind, self.kind.removeprefix("QLinear"))


def measure_operators(
    program: Program, batches: Sequence[Tensors], *, threads: int = 1, repetitions: int = 30
) -> tuple[OperatorTime, ...]:
    """The program's operators in the order in which they run, timed by ONNX Runtime on this host's CPU.

    Raises UsageError for nothing to run and for bf16, which ONNX Runtime has not; TensorError for wrong inputs;
    BackendError when the runtime leaves no profile that can be read.
    """
    return _measure((program,), batches, threads, repetitions)[0]


def explain_slower_int8(
    fp32: Program, int8: Program, batches: Sequence[Tensors], *, threads: int = 1, repetitions: int = 30
) -> str:
    """Which operators are slower in int8 and what converting costs, in a sentence or two for a report.

    Empty when ONNX Runtime's operators take no longer in int8 than in fp32: then the difference that somebody saw lies
    in another backend, or within the noise. Raises what `measure_operators` raises.
    """
    before, after = _measure((fp32, int8), batches, threads, repetitions)
    return render_explanation(before, after, trees=int8.kind == "trees")


def render_explanation(before: Sequence[OperatorTime], after: Sequence[OperatorTime], *, trees: bool = False) -> str:
    """The sentences of `explain_slower_int8` from two profiles."""
    was, now = _by_family(before), _by_family(after)
    total_was, total_now = sum(was.values()), sum(now.values())
    if total_now <= total_was:
        return ""
    text = f"int8 takes {total_now:.0f} us in ONNX Runtime's operators, fp32 {total_was:.0f} us"
    if trees:
        return f"{text}: trees with int8 leaves are a smaller file, but the runtime does the same work."
    counts = Counter(operator.family for operator in after)
    converting = now.get("quantize/dequantize", 0.0)
    slower = [
        (now[family] - was.get(family, 0.0), family)
        for family in now
        if family != "quantize/dequantize" and now[family] > was.get(family, 0.0)
    ]
    named = [
        f"{family} ({counts[family]}x) {was.get(family, 0.0):.0f} -> {now[family]:.0f} us"
        for gain, family in sorted(slower, reverse=True)[:3]
        if gain >= 0.05 * (total_now - total_was)
    ]
    text += f"; slower: {', '.join(named)}." if named else "; no operator is slower by itself."
    if converting:
        share, steps = converting / total_now, counts["quantize/dequantize"]
        text += f" {share:.0%} of the int8 time goes into quantizing and dequantizing ({steps}x)."
    return text


def parse_profile(text: str) -> list[tuple[str, str, float]]:
    """(name, operator, microseconds) of every kernel run in an ONNX Runtime profile, in order. Raises BackendError."""
    try:
        events = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BackendError(f"ONNX Runtime's profile is not JSON: {error}") from error
    if not isinstance(events, list):
        raise BackendError(f"ONNX Runtime's profile: found {type(events).__name__}, expected a list of events")
    return [_kernel(event) for event in events if _is_kernel(event)]


def _is_kernel(event: Any) -> bool:
    return isinstance(event, dict) and event.get("cat") == "Node" and str(event.get("name")).endswith("_kernel_time")


def _kernel(event: Mapping[str, Any]) -> tuple[str, str, float]:
    try:
        return event["name"].removesuffix("_kernel_time"), str(event["args"]["op_name"]), float(event["dur"])
    except (KeyError, TypeError, ValueError) as error:
        raise BackendError(f"ONNX Runtime's profile: an event without operator or duration: {event}") from error


def _by_family(operators: Sequence[OperatorTime]) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for operator in operators:
        found[operator.family] += operator.time_us
    return dict(found)


def _measure(
    programs: Sequence[Program], batches: Sequence[Tensors], threads: int, repetitions: int
) -> list[tuple[OperatorTime, ...]]:
    """The programs run in turn, so that what else the host does hits all alike."""
    import onnxruntime

    if not batches or repetitions < 1:
        raise UsageError("operators: found no batch or no repetition to run, expected at least one")
    for program in programs:
        if program.precision == "bf16":
            raise UsageError("operators: ONNX Runtime's CPU kernels do not run bf16 programs; pass fp32 or int8")
        for batch in batches:
            check_tensors(batch, program.inputs)
    with tempfile.TemporaryDirectory(prefix="featherweight-") as folder:
        sessions = []
        for index, program in enumerate(programs):
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
            options.log_severity_level = 4
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / f"program-{index}")
            sessions.append(onnxruntime.InferenceSession(program.content, options, providers=["CPUExecutionProvider"]))
        for run in range(repetitions + _WARMUP):
            for session in sessions:
                session.run(None, dict(batches[run % len(batches)]))
        return [_summed(_read_profile(Path(session.end_profiling()))) for session in sessions]


def _read_profile(path: Path) -> list[tuple[str, str, float]]:
    with read_errors(path, "ONNX Runtime's profile cannot be read", raises=BackendError):
        return parse_profile(path.read_text(encoding="utf-8", errors="replace"))


def _summed(kernels: Sequence[tuple[str, str, float]]) -> tuple[OperatorTime, ...]:
    samples: dict[tuple[str, str], list[float]] = defaultdict(list)
    for name, kind, time_us in kernels:
        samples[name, kind].append(time_us)
    found = []
    for (name, kind), times in samples.items():
        counted = sorted(times[_WARMUP:] or times)
        found.append(OperatorTime(name, kind, float(np.mean(counted[: (len(counted) + 1) // 2]))))
    return tuple(found)
