"""Cases are known again by what they are: whatever their order and names, and after some were added or left out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featherweight.core.record.cases import CaseSet, describe_held_out, digest_inputs
from featherweight.core.task import HeldOut
from tests.fakes import TreesTask

CASES = TreesTask(2000).test_cases()


def part(places: np.ndarray, labels: np.ndarray | None = None) -> CaseSet:
    tensors = {name: array[places] for name, array in CASES.tensors.items()}
    truth = CASES.labels[places] if labels is None else labels
    return describe_held_out(HeldOut(tuple(map(str, places)), tensors, truth))


def test_order_and_names_do_not_matter_but_inputs_and_labels_do() -> None:
    whole = describe_held_out(CASES)
    order = np.random.default_rng(0).permutation(2000)
    assert part(order) == whole
    assert (whole.cases, whole.positives) == (2000, int(CASES.labels.sum()))
    flipped = CASES.labels.copy()
    flipped[7] = 1 - flipped[7]
    other = describe_held_out(replace(CASES, labels=flipped))
    assert other.sha256 != whole.sha256
    assert other.sketch == whole.sketch
    changed = CASES.tensors["features"].copy()
    changed[3, 0] += 1
    assert describe_held_out(replace(CASES, tensors={"features": changed})).sha256 != whole.sha256


@pytest.mark.parametrize("share", [0.98, 0.9, 0.5, 0.25])
def test_a_part_of_the_cases_is_known_again(share: float) -> None:
    """Leaving a case out does not make new test cases of them."""
    some = part(np.arange(round(2000 * share)))
    assert some.sha256 != describe_held_out(CASES).sha256
    assert some.overlap(describe_held_out(CASES)) > 0.6
    assert describe_held_out(CASES).overlap(some) > 0.6


def test_half_of_each_in_common_and_none_in_common() -> None:
    assert part(np.arange(1000)).overlap(part(np.arange(500, 1500))) == pytest.approx(0.5, abs=0.2)
    assert part(np.arange(1000)).overlap(part(np.arange(1000, 2000))) == 0
    assert part(np.arange(20)).overlap(part(np.arange(10, 30))) == pytest.approx(0.5)  # small sets exactly


def test_the_name_and_the_type_of_an_input_are_part_of_it() -> None:
    array = CASES.tensors["features"][:2]
    assert digest_inputs({"a": array}) != digest_inputs({"b": array})
    assert digest_inputs({"a": array}) != digest_inputs({"a": array.view(np.int32)})
    assert digest_inputs({"a": array, "b": array}) == digest_inputs({"b": array, "a": array})
    assert digest_inputs({"a": array[:, ::-1]}) == digest_inputs({"a": array[:, ::-1].copy()})
