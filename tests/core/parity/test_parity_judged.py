"""Parity with the very scores by which a candidate was judged."""

from __future__ import annotations

import numpy as np

from featherweight.core.backends.onnxruntime import OnnxRuntime
from featherweight.core.export import export
from featherweight.core.parity.measured import measure_parity
from featherweight.core.parity.reproduction import run_batches
from tests.fakes import SquaresTask


def test_a_program_that_scores_otherwise_than_when_it_was_judged_is_refused() -> None:
    """It was judged in other batches than any of parity's, or what was kept of a run before is not of this program."""
    task = SquaresTask()
    program, held_out = export(task.baseline)[0], task.validation_cases()
    with OnnxRuntime().open(program) as session:
        scores = task.scores(run_batches(session, held_out.tensors, 16))
    backends = {"onnxruntime": OnnxRuntime()}
    kept = measure_parity(
        task, held_out, program, "onnxruntime", scores=scores, threshold=0.0, backends=backends, seed=0
    )
    assert kept.check.status == "passed"
    scores[np.abs(scores).argmin()] *= -1
    other = measure_parity(
        task, held_out, program, "onnxruntime", scores=scores, threshold=0.0, backends=backends, seed=0
    )
    assert (other.check.status, other.check.found) == ("failed", 1.0)
    assert "1 decision changed since the program was judged" in other.check.explanation
