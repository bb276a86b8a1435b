"""The generator draws what the handbook's chapter 3 describes."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from featherweight.apps.fraud.cli import app
from featherweight.apps.fraud.files.readers import read_rows
from featherweight.apps.fraud.labels import label_later
from featherweight.apps.fraud.synthetic import DAY_MS, START_MS, draw_day, draw_profiles, synthesize
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.errors import OutputError

Pairs = list[tuple[Transaction, bool]]


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return list(synthesize(2000, 4000, 40, seed=1))


def test_profiles_are_those_described() -> None:
    profiles = draw_profiles(5000, 10_000, seed=3)
    for drawn, low, high in ((profiles.mean_amount, 5, 100), (profiles.mean_count, 0, 4)):
        assert low <= drawn.min() < low + 0.1 * high
        assert high * 0.99 < drawn.max() <= high
        assert abs(drawn.mean() - (low + high) / 2) < 0.02 * high
        assert abs(drawn.std() - (high - low) / 12**0.5) < 0.02 * high
    # 10,000 terminals on 100 x 100, radius 5: pi * 25 away from the border, fewer near it
    near = np.diff(profiles.first)
    assert 68 < near.mean() < 78.6
    assert 75 < np.median(near) < 81


def test_a_days_transactions_are_those_described() -> None:
    profiles, generator = draw_profiles(5000, 2000, seed=3), np.random.default_rng(0)
    days = [draw_day(profiles, generator) for _ in range(40)]
    who, where, times, amounts = (np.concatenate(columns) for columns in zip(*days, strict=True))
    kept = 0.9692  # of a normal distribution within 2.16 deviations
    active = np.diff(profiles.first) > 0
    assert abs(len(who) / (40 * (profiles.mean_count * active).sum() * kept) - 1) < 0.01
    assert abs(times.mean() / 1000 - 43_200) < 150
    assert abs(times.std() / 1000 - 20_000 * 0.9097) < 200  # the tails are cut off
    assert times.min() >= 0
    assert times.max() < DAY_MS
    ratio = amounts / profiles.mean_amount[who]
    # mean 1, deviation 1/2; below 0 (2.3 %) drawn again from 0..2
    assert abs(ratio.mean() - 1.027) < 0.01
    assert ratio.min() >= 0
    assert all(np.all(np.diff(day[2]) >= 0) for day in days)
    for customer in who[:50]:
        used = np.unique(where[who == customer])
        assert set(used) <= set(profiles.near[profiles.first[customer] : profiles.first[customer + 1]])


def test_the_stream_is_in_order_and_labelled_days_later(pairs: Pairs) -> None:
    times = [transaction.time_ms for transaction, _ in pairs]
    assert times == sorted(times)
    assert times[0] >= START_MS
    assert times[-1] < START_MS + 40 * DAY_MS
    assert len({transaction.transaction_id for transaction, _ in pairs}) == len(pairs)
    assert all(round(transaction.amount, 2) == transaction.amount for transaction, _ in pairs)
    events = list(label_later(pairs))
    assert sum(isinstance(event, Label) and event.is_fraud for event in events) == sum(fraud for _, fraud in pairs)


def test_scenario_1_every_high_amount_is_a_fraud(pairs: Pairs) -> None:
    high = [fraud for transaction, fraud in pairs if transaction.amount > 220]
    assert len(high) > 10
    assert all(high)


def test_scenario_2_compromised_terminals_for_28_days(pairs: Pairs) -> None:
    """Day by day, terminals all of whose transactions are frauds; two more each day, up to 28 days."""
    by_day: list[dict[str, list[bool]]] = [{} for _ in range(40)]
    for transaction, fraud in pairs:
        day = (transaction.time_ms - START_MS) // DAY_MS
        by_day[day].setdefault(transaction.terminal_id, []).append(fraud)
    only_frauds = [{key for key, frauds in day.items() if all(frauds) and len(frauds) > 1} for day in by_day]
    assert len(only_frauds[0]) <= 5
    assert 5 < len(only_frauds[39]) < 2 * 28 + 10
    lasting = {key: [day for day in range(40) if key in only_frauds[day]] for key in set.union(*only_frauds)}
    spans = [days[-1] - days[0] for days in lasting.values() if len(days) > 3]
    assert len(spans) > 10
    assert max(spans) < 28


def test_scenario_3_every_third_of_a_compromised_customer_times_five(pairs: Pairs) -> None:
    """Amounts above five times what a customer can pay otherwise are frauds; their share is that of the scenario."""
    means = draw_profiles(2000, 4000, seed=1).mean_amount
    above = [
        (transaction, fraud)
        for transaction, fraud in pairs
        if transaction.amount > 3 * means[int(transaction.customer_id[1:])]
    ]
    assert all(fraud for _, fraud in above)
    compromised = 3 * 13  # customers at a time, from the 14th day on
    expected = compromised * 2 * 0.97 / 3 * (40 - 7)
    assert 0.5 * expected < len(above) < 1.3 * expected


def test_the_same_seed_gives_the_same_stream() -> None:
    def begin(seed: int) -> Pairs:
        return list(islice(synthesize(100, 3000, 20, seed), 300))

    assert begin(5) == begin(5)
    assert begin(5) != begin(6)
    assert begin(5) == list(islice(synthesize(100, 3000, 200, 5), 300)), "a longer stream begins otherwise"


def test_tiny_populations() -> None:
    assert list(synthesize(3, 1, 5, 0)) == list(synthesize(3, 1, 5, 0))
    assert len(list(synthesize(1, 1000, 5, 0))) < 40


@pytest.mark.parametrize("jsonl", [True, False])
def test_the_command_writes_what_the_readers_read(tmp_path: Path, jsonl: bool) -> None:
    words = ["synthesize", str(tmp_path / "new"), "--customers", "60", "--terminals", "2000", "--days", "10"]
    result = CliRunner().invoke(app, words + ["--jsonl"] * jsonl)
    assert result.exit_code == 0, result.output
    form = "jsonl" if jsonl else "parquet"
    events = list(label_later(synthesize(60, 2000, 10)))
    transactions = list(read_rows(tmp_path / "new" / f"transactions.{form}", Transaction))
    labels = list(read_rows(tmp_path / "new" / f"labels.{form}", Label))
    assert transactions == [event for event in events if isinstance(event, Transaction)]
    assert labels == [event for event in events if isinstance(event, Label)]
    assert (
        f"{len(transactions):,} transactions, {sum(label.is_fraud for label in labels)} of them fraud:" in result.output
    )


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    from featherweight.apps.fraud.synthetic import write_synthetic

    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="cannot be written"):
        write_synthetic(tmp_path / "file", 1, 1, 1)
