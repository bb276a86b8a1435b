"""The stream survives kill -9, a broker that goes away, members that come and go: one decision for each transaction,
and the one that an undisturbed run gives.

FEATHERWEIGHT_STREAM_TRANSACTIONS=100000 makes the run with the kills as long as the project's goal asks for."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import pytest

from featherweight.apps.fraud.labels import label_of
from tests.fraud.broker import needs_kafka, restarts_kafka, start_broker
from tests.fraud.streaming import Bench, decide_embedded, draw_transactions, end, kill, wait_restored, wait_until

KILLS = 20
TRANSACTIONS = int(os.environ.get("FEATHERWEIGHT_STREAM_TRANSACTIONS", "20000"))

# kafka-python leaves a socket behind when a client is closed while it connects; these are clients of the test.
pytestmark = pytest.mark.filterwarnings("ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning")


@pytest.mark.timeout(1800)
def test_killed_twenty_times_each_transaction_has_the_one_decision_of_an_undisturbed_run(
    bench: Bench, fraud_model: Path
) -> None:
    """Half of the kills come while it starts or restores, half while it works through what has come meanwhile."""
    transactions = draw_transactions(TRANSACTIONS, bench.partitions, seed=11)
    labels = [label_of(transaction, index % 4 == 0) for index, transaction in enumerate(transactions[:1000])]
    bench.feed(transactions[:1000])
    process = bench.start(fraud_model)
    wait_restored(process, bench.partitions)
    wait_until(lambda: bench.committed(bench.topics.transactions) == 1000, "the first thousand")
    bench.feed(labels)
    wait_until(lambda: bench.committed(bench.topics.labels) == len(labels), "labels read")
    chance = random.Random(5)
    progress = []
    step = -(-len(transactions[1000:]) // KILLS)
    for number in range(KILLS):
        before = bench.end_offset(bench.topics.decisions)
        bench.feed(transactions[1000:][number * step : (number + 1) * step])
        if number % 2:
            time.sleep(chance.uniform(0.1, 2.5))
        else:
            try:
                wait_until(lambda: _has_worked(bench, before, len(transactions)), "it works")  # noqa: B023
            except AssertionError as error:
                raise AssertionError(f"{error}, kill {number}: {kill([process])}") from None
            time.sleep(chance.uniform(0, 1.0))
        kill([process])
        progress.append(bench.committed(bench.topics.transactions))
        process = bench.start(fraud_model)
    try:
        wait_restored(process, bench.partitions)
        decisions = bench.decisions(len(transactions), seconds=300)
        end(process)
    finally:
        kill([process])
    assert len(decisions) == len(transactions)
    assert {found.transaction_id: found for found in decisions} == decide_embedded(
        fraud_model, [*transactions[:1000], *labels, *transactions[1000:]]
    )
    assert len(set(progress)) > KILLS // 4, f"the kills must have come while it worked: {progress}"


def _has_worked(bench: Bench, before: int, wanted: int) -> bool:
    """Whether there are more decisions than `before`, committed or not, or everything is done."""
    return bench.end_offset(bench.topics.decisions) > before or bench.committed(bench.topics.transactions) == wanted


@restarts_kafka
@pytest.mark.slow
def test_a_broker_that_comes_and_goes_changes_no_decision(fraud_model: Path) -> None:
    """Stopped in order and killed, at random moments: while the stream commits, takes over, restores and starts."""
    chance = random.Random(6)
    transactions = draw_transactions(6000, 2, seed=12)
    broker = start_broker()
    processes = []
    try:
        bench = Bench(broker.address)
        processes.append(bench.start(fraud_model))
        wait_restored(processes[0], bench.partitions)
        for number in range(3):
            bench.feed(transactions[2000 * number : 2000 * (number + 1)])
            bench.close()
            time.sleep(chance.uniform(0, 2.5))
            (broker.stop if number % 2 else broker.kill)()
            if number == 1:
                kill(processes)
                processes = [bench.start(fraud_model)]
            time.sleep(chance.uniform(0, 2))
            broker.start()
            bench = Bench(bench.address, bench.partitions, bench.prefix)
        decisions = bench.decisions(len(transactions), seconds=90)
        bench.close()
        assert len(decisions) == len(transactions), kill(processes)
        end(processes[0])
    finally:
        kill(processes)
        broker.remove()
    assert {found.transaction_id: found for found in decisions} == decide_embedded(fraud_model, transactions)


def test_members_join_and_leave_and_each_transaction_has_one_decision(bench: Bench, fraud_model: Path) -> None:
    """Two processes share the partitions; terminals' histories are where the other one is, too."""
    transactions = draw_transactions(4000, bench.partitions, seed=13)
    first = bench.start(fraud_model, instance=None)
    second = None
    try:
        wait_restored(first, bench.partitions)
        bench.feed(transactions[:1000])
        second = bench.start(fraud_model, instance=None)
        wait_restored(second, 1)
        bench.feed(transactions[1000:2000])
        bench.decisions(2000)
        messages = end(second)
        assert not messages.startswith("0 messages"), "the second one must have had a part of the work"
        bench.feed(transactions[2000:])
        decisions = bench.decisions(len(transactions))
        end(first)
    finally:
        kill([process for process in (first, second) if process])
    assert sorted(found.transaction_id for found in decisions) == sorted(found.transaction_id for found in transactions)
    assert not any(found.duplicate for found in decisions)


@needs_kafka
@pytest.mark.slow
def test_a_member_that_is_killed_is_evicted_and_the_other_one_goes_on(bench: Bench, fraud_model: Path) -> None:
    """Without instance ids: the group waits for the session to end, then the partitions go to who is left."""
    transactions = draw_transactions(2000, bench.partitions, seed=14)
    processes = [bench.start(fraud_model, instance=None) for _ in range(2)]
    try:
        for process in processes:
            wait_restored(process, 1)
        bench.feed(transactions[:1000])
        bench.decisions(1000)
        kill(processes[1:])
        bench.feed(transactions[1000:])
        decisions = bench.decisions(len(transactions), seconds=120)
        end(processes[0])
    finally:
        kill(processes)
    assert sorted(found.transaction_id for found in decisions) == sorted(found.transaction_id for found in transactions)
    assert not any(found.duplicate for found in decisions)
