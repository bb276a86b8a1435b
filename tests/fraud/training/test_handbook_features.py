"""The 15 features of the Fraud Detection Handbook on its own data, as its chapter 3 defines them."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq
import pytest

from featherweight.apps.fraud.features.catalogue import CATALOGUE, HANDBOOK
from featherweight.apps.fraud.features.histories import identify
from featherweight.apps.fraud.files.readers import HANDBOOK_COLUMNS, read_handbook
from featherweight.apps.fraud.labels import label_later
from featherweight.apps.fraud.training.replay import Rows, replay
from featherweight.apps.fraud.transactions import Transaction
from tests.datasets import local_copy

DAY = np.timedelta64(1, "D")
CUSTOMERS, TERMINALS = range(3, 5000, 97), range(5, 10_000, 89)
Columns = dict[str, npt.NDArray[np.generic]]


@pytest.fixture(scope="module")
def data() -> Columns:
    table = pq.read_table(local_copy("fraud_handbook"), columns=list(HANDBOOK_COLUMNS))
    columns: Columns = {name: table.column(name).to_numpy() for name in HANDBOOK_COLUMNS}
    chosen = np.isin(columns["CUSTOMER_ID"], CUSTOMERS) | np.isin(columns["TERMINAL_ID"], TERMINALS)
    return {name: column[chosen] for name, column in columns.items()}


@pytest.fixture(scope="module")
def rows() -> Rows:
    customers, terminals = ({str(key) for key in keys} for keys in (CUSTOMERS, TERMINALS))

    def chosen() -> Iterator[tuple[Transaction, bool]]:
        for transaction, is_fraud in read_handbook(local_copy("fraud_handbook")):
            if transaction.customer_id in customers or transaction.terminal_id in terminals:
                yield transaction, is_fraud

    return replay(label_later(chosen()))


def rolling(
    times: npt.NDArray[np.generic], values: npt.NDArray[np.generic], window: np.timedelta64
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """(number, sum) of the rows in (t - window, t] up to the row itself, as pandas' rolling(window) has them."""
    begin = np.searchsorted(times, times - window, side="right")
    end = np.arange(1, len(times) + 1)
    total = np.concatenate(([0.0], np.cumsum(values, dtype=np.float64)))
    return end - begin, total[end] - total[begin]


def expected(data: Columns) -> dict[str, npt.NDArray[np.float64]]:
    """What the handbook computes; NaN where the subset has not all of a customer's or terminal's transactions."""
    times = data["TX_DATETIME"].astype("datetime64[ms]")
    found = {name: np.full(len(times), np.nan) for name in HANDBOOK}
    found["amount"] = data["TX_AMOUNT"].astype(np.float64)
    days = times.astype("datetime64[D]")
    found["is_weekend"] = ((days.astype(np.int64) + 3) % 7 >= 5).astype(np.float64)
    found["is_night"] = ((times - days).astype("timedelta64[h]").astype(np.int64) <= 6).astype(np.float64)
    for customer in CUSTOMERS:
        at = np.flatnonzero(data["CUSTOMER_ID"] == customer)
        for window in (1, 7, 30):
            count, total = rolling(times[at], data["TX_AMOUNT"][at], window * DAY)
            found[f"customer_count_{window}d"][at] = count
            found[f"customer_mean_amount_{window}d"][at] = total / count
    for terminal in TERMINALS:
        at = np.flatnonzero(data["TERMINAL_ID"] == terminal)
        delayed, delayed_frauds = rolling(times[at], data["TX_FRAUD"][at], 7 * DAY)
        for window in (1, 7, 30):
            count, frauds = rolling(times[at], data["TX_FRAUD"][at], (7 + window) * DAY)
            count, frauds = count - delayed, frauds - delayed_frauds
            found[f"terminal_count_{window}d_delayed"][at] = count
            found[f"terminal_risk_{window}d_delayed"][at] = np.where(count > 0, frauds / np.maximum(count, 1), 0)
    return found


def test_the_15_features_of_the_handbook_are_its_own(data: Columns, rows: Rows) -> None:
    assert len(rows) == len(data["TRANSACTION_ID"]) > 30_000
    assert rows.ids[:100].tolist() == [identify(str(each)) for each in data["TRANSACTION_ID"][:100]]
    assert rows.labels.tolist() == data["TX_FRAUD"].tolist()
    for name, values in expected(data).items():
        computed = rows.features[:, CATALOGUE.index(name)]
        known = ~np.isnan(values)
        assert np.count_nonzero(known) > 10_000
        if "amount" in name:
            np.testing.assert_allclose(computed[known], values[known], rtol=1e-6, err_msg=name)
        else:
            np.testing.assert_array_equal(computed[known], values[known].astype(np.float32), err_msg=name)
    assert rows.features[:, CATALOGUE.index("terminal_risk_7d_delayed")].max() == 1
