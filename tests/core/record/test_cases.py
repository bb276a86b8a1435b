"""Cases are known again by what they are: whatever their order and names, and after some were added or left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from featherweight.core.record.cases import CaseSet, describe_held_out, digest_inputs
from featherweight.core.record.uses import SAME
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


@pytest.mark.parametrize("part_of", [100, 200, 1000])
def test_a_small_part_of_a_large_set_is_known_again(part_of: int) -> None:
    large = np.random.default_rng(0).random((20_000, 3)).astype(np.float32)
    whole, some = (describe_rows(rows) for rows in (large, large[:part_of]))
    assert whole.overlaps(some)["inputs"] == some.overlaps(whole)["inputs"] == 1.0
    others = describe_rows(np.random.default_rng(1).random((20_000, 3)).astype(np.float32))
    assert whole.overlap(others) == 0
    half = describe_rows(np.concatenate([large[:2000], np.random.default_rng(2).random((2000, 3)).astype(np.float32)]))
    assert whole.overlaps(half)["inputs"] == pytest.approx(0.5, abs=0.15)


def describe_rows(rows: np.ndarray, name: str = "x", names: Sequence[str] | None = None) -> CaseSet:
    ids = tuple(names or map(str, range(len(rows))))
    return describe_held_out(HeldOut(ids, {name: rows}, np.zeros(len(rows), np.int64)))


ROWS = np.random.default_rng(0).normal(0, 100, (500, 6)).astype(np.float32)


@pytest.mark.parametrize(
    "prepared",
    [
        lambda: describe_rows(ROWS, "renamed"),
        lambda: describe_rows(ROWS + np.float32(1e-7)),
        lambda: describe_rows(ROWS.astype(np.float64) * (1 + 1e-7)),
        lambda: describe_rows(ROWS[::-1]),
    ],
)
def test_rows_that_were_prepared_otherwise_are_known_by_their_values(prepared: Callable[[], CaseSet]) -> None:
    before, after = describe_rows(ROWS), prepared()
    assert before.overlaps(after)["looks"] > 0.95
    assert before.overlap(describe_rows(ROWS[:, ::-1])) == 0


def test_cases_with_other_features_are_known_by_their_names() -> None:
    names = [f"transaction {number}" for number in range(7000, 7500)]
    before, after = describe_rows(ROWS, names=names), describe_rows(ROWS[:, :3] * 2, names=names)
    assert before.overlaps(after) == {"inputs": 0.0, "names": 1.0, "looks": 0.0, "scores": 0.0}
    some = describe_rows(ROWS[:250, :3] * 2, names=[*names[:125], *(f"other {number}" for number in range(125))])
    assert before.overlaps(some)["names"] == pytest.approx(0.5)


@pytest.mark.parametrize("form", ["{}", "t{}", "case-{:05d}"])
@pytest.mark.parametrize("first", [0, 1])
def test_numbers_that_count_the_cases_are_no_names(form: str, first: int) -> None:
    names = [form.format(number) for number in range(first, first + 500)]
    assert describe_rows(ROWS, names=names).overlap(describe_rows(ROWS * 2, names=names)) == 0


def smooth_pictures(count: int, side: int, seed: int = 0) -> np.ndarray:
    """Blobs, the same at every size."""
    draw, at = np.random.default_rng(seed), np.linspace(0, 1, side)
    found = np.zeros((count, 1, side, side), np.float32)
    for picture in found:
        for x, y, width, height in draw.random((12, 4)):
            far = (at[None, :] - x) ** 2 + (at[:, None] - y) ** 2
            picture[0] += height * np.exp(-far / (0.01 + 0.03 * width))
    return found


def test_pictures_of_another_size_are_known_by_what_they_look_like() -> None:
    before = describe_rows(smooth_pictures(100, 96), "image")
    assert before.overlaps(describe_rows(smooth_pictures(100, 64), "pixels"))["looks"] > SAME
    assert before.overlaps(describe_rows(smooth_pictures(100, 96) * 0.9 + 0.05, "image"))["looks"] > 0.8
    assert before.overlap(describe_rows(smooth_pictures(100, 96, seed=1), "image")) < SAME / 2


def test_a_set_of_an_older_record_is_compared_by_its_sketch() -> None:
    whole = describe_held_out(CASES)
    old = whole.shown
    assert (old.inputs, old.names, old.looks) == ("", "", "")
    assert old.overlap(whole) == whole.overlap(old) == 1.0
    assert old.overlap(part(np.arange(1000))) == 1.0
    assert part(np.arange(1000)).shown.overlap(part(np.arange(1000, 2000))) == 0


def test_the_name_and_the_type_of_an_input_are_part_of_it() -> None:
    array = CASES.tensors["features"][:2]
    assert digest_inputs({"a": array}) != digest_inputs({"b": array})
    assert digest_inputs({"a": array}) != digest_inputs({"a": array.view(np.int32)})
    assert digest_inputs({"a": array, "b": array}) == digest_inputs({"b": array, "a": array})
    assert digest_inputs({"a": array[:, ::-1]}) == digest_inputs({"a": array[:, ::-1].copy()})
