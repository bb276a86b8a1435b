"""Several classes: a decision is the class of the largest score, and one that rounding makes is not counted."""

from __future__ import annotations

import numpy as np
import pytest

from featherweight.core.artifact.manifest import DecisionPoint
from featherweight.core.parity.measured import _find_decision, _pick_cases, _Reference
from featherweight.core.program import Program
from tests.fakes import SquaresTask

SCORES = np.array([[3.0, 1.0, 0.0], [0.0, 2.0, 2.0 - 1e-9], [0.0, -1.0, 4.0]])


def reference() -> _Reference:
    program = Program(b"", "network", "fp32", (), ())
    return _Reference(SquaresTask(), program, "onnxruntime", {}, {"y": SCORES.astype(np.float32)}, SCORES, 0.0)


def test_a_change_of_class_is_a_flip_and_one_by_rounding_is_told_apart() -> None:
    other = SCORES.copy()
    assert reference().count_flips(SCORES, other) == (0, 0)
    other[1] = [0.0, 2.0 - 1e-9, 2.0]
    assert reference().count_flips(SCORES, other) == (0, 1)
    other[0] = [0.0, 1.0, 3.0]
    assert reference().count_flips(SCORES, other) == (1, 1)


def test_the_output_of_the_decision_is_sealed() -> None:
    found = _find_decision(reference())
    assert found == DecisionPoint(output="y", column=0, threshold=0.0, largest=True)
    assert found.decide(np.array([[1, 3, 2], [5, 0, 0]], np.float32)).tolist() == [1, 0]
    plain = DecisionPoint(output="y", column=1, threshold=2.5)
    assert plain.decide(np.array([[1, 3], [5, 0]], np.float32)).tolist() == [True, False]


def test_the_cases_that_flip_first_are_picked() -> None:
    draw = np.random.default_rng(0)
    scores = draw.normal(size=(1000, 3))
    picked = _pick_cases(scores, 0.0)
    assert len(set(picked.tolist())) == 200
    lead = np.diff(np.sort(scores, axis=1)[:, -2:], axis=1)[:, 0]
    assert set(np.argsort(lead)[:100].tolist()) <= set(picked.tolist())
    assert lead[picked].max() == pytest.approx(lead.max())
