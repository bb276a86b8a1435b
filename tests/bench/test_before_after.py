"""The comparison of two checkouts: tables are read as printed, and the interval is that of order statistics."""

from __future__ import annotations

import numpy as np
import pytest

from bench.before_after import median_interval, parse_rows, paths
from bench.timing import show


def test_rows_are_read_from_what_show_prints(capsys: pytest.CaptureFixture[str]) -> None:
    show(
        "a title", ["service", "requests/s", "against plain"], [["plain", "4,650", "1.00x"], ["ours", "17,600", "3.8x"]]
    )
    assert parse_rows(capsys.readouterr().out) == {"plain": ["4,650", "1.00x"], "ours": ["17,600", "3.8x"]}


def test_the_figure_of_a_path_is_the_ratio_to_its_peer() -> None:
    rows = {"native": ["2.5", "4.9", "1.0x"], "ONNX Runtime": ["25.0", "68", "10x"], "ONNX Runtime, sealed": ["9", "9"]}
    assert paths(None)["single row"].read(rows) == pytest.approx(10)
    rows = {"whole, of the 12 alerts": ["37", "90"], "whole": ["1,008.9", "37"]}
    assert paths(None)["transaction"].read(rows) == pytest.approx(1008.9)


@pytest.mark.parametrize(("count", "lowest"), [(5, 0), (6, 0), (9, 1), (15, 3), (25, 7)])
def test_the_interval_is_the_narrowest_that_holds_its_confidence(count: int, lowest: int) -> None:
    """Ranks from the tables of the sign test, e.g. Conover's table A3."""
    low, high, coverage = median_interval([float(value) for value in range(count)])
    assert (low, high) == (lowest, count - 1 - lowest)
    assert coverage >= 0.95 or lowest == 0


def test_the_interval_covers_the_median_as_often_as_it_says() -> None:
    draws = np.random.default_rng(0).normal(size=(4000, 11))
    found = [median_interval(list(row)) for row in draws]
    covered = np.mean([low <= 0 <= high for low, high, _ in found])
    assert covered == pytest.approx(found[0][2], abs=0.01)
