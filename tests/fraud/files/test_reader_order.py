"""The ULB cards come in the order of time, every row whole, whatever the order in their file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featherweight.apps.fraud.files.readers import CARD_FEATURES, read_cards

TIMES = (50.0, 10.0, 40.0, 10.0, 0.0)
SORTED = (4, 1, 3, 2, 0)
"""Rows of the file in the order of time; the two of one time stay as they stand there."""


def test_every_column_goes_with_its_row(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(len(TIMES), len(CARD_FEATURES))).astype(np.float32)
    values[:, 0], labels = TIMES, np.array([1, 0, 0, 1, 0])
    columns = {name: values[:, at].astype(np.float64) for at, name in enumerate(CARD_FEATURES)}
    pq.write_table(pa.table({**columns, "Class": labels}), tmp_path / "cards.parquet")
    cards, order = read_cards(tmp_path / "cards.parquet"), list(SORTED)
    np.testing.assert_array_equal(cards.time_s, [0, 10, 10, 40, 50])
    np.testing.assert_array_equal(cards.features, values[order])
    np.testing.assert_array_equal(cards.labels, labels[order])
    np.testing.assert_array_equal(cards.amounts, columns["Amount"][order])
