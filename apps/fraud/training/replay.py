"""Training rows: a past stream runs through the same FeatureEngine that scores the live one."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import CONFLICT, identify
from featherweight.apps.fraud.transactions import Label, Transaction
from featherweight.core.arrays import FeatureRows, Floats, PartialLabels, Words

PROGRESS_EVERY = 10_000


@dataclass(frozen=True)
class Rows:
    """One row a transaction, in the order of arrival; N rows. ids, customers, terminals: `identify` of them. labels: 1
    fraud, 0 not, -1 none came. A label counts for the features from its arrival on, and in `labels` in any case."""

    features: FeatureRows
    """[N, len(CATALOGUE)]"""
    ids: Words
    customers: Words
    terminals: Words
    time_ms: Words
    amounts: Floats
    labels: PartialLabels
    conflicts: int = 0
    """Transactions without a row, because another one has their id."""

    def __len__(self) -> int:
        return len(self.ids)


def replay(
    events: Iterable[Transaction | Label],
    delay_days: float = 7.0,
    *,
    on_progress: Callable[[int], None] = lambda done: None,
) -> Rows:
    """Run the events, in order of arrival (`labels.label_later` puts labels where they come), through a new engine.
    A transaction that had been seen gives no second row. `on_progress` hears now and then how many are done."""
    engine = FeatureEngine(delay_days)
    features = np.empty((PROGRESS_EVERY, len(CATALOGUE)), np.float32)
    ids, customers, terminals, times, amounts = array("q"), array("q"), array("q"), array("q"), array("d")
    labelled, owners, frauds = array("q"), array("q"), array("b")
    count = conflicts = 0
    for event in events:
        if isinstance(event, Label):
            identity = identify(event.transaction_id)
            engine.apply_customer_label(event, identity)
            engine.apply_terminal_label(event, identity)
            labelled.append(identity)
            owners.append(identify(event.customer_id))
            frauds.append(event.is_fraud)
            continue
        if known := engine.advance(event):
            conflicts += known == CONFLICT
            continue
        if count == len(features):
            features.resize((2 * count, len(CATALOGUE)), refcheck=False)
        features[count] = engine.row
        _, identity, customer, terminal = engine.unpacked
        ids.append(identity)
        customers.append(customer)
        terminals.append(terminal)
        times.append(event.time_ms)
        amounts.append(event.amount)
        count += 1
        if count % PROGRESS_EVERY == 0:
            on_progress(count)
    on_progress(count)
    features.resize((count, len(CATALOGUE)), refcheck=False)
    return Rows(
        features=features,
        ids=np.array(ids, np.int64),
        customers=np.array(customers, np.int64),
        terminals=np.array(terminals, np.int64),
        time_ms=np.array(times, np.int64),
        amounts=np.array(amounts, np.float64),
        labels=_join(_pair(ids, customers), _pair(labelled, owners), np.array(frauds, np.int8)),
        conflicts=conflicts,
    )


def _pair(ids: array[int], customers: array[int]) -> Words:
    """One hash of both: others' transactions may have the same id, as where ids begin anew every day."""
    return np.array(ids, np.int64) ^ np.array(customers, np.int64) * np.int64(0x1E3779B97F4A7C15)


def _join(ids: Words, labelled: Words, frauds: PartialLabels) -> PartialLabels:
    """The last label of every id, -1 without."""
    if not len(labelled):
        return np.full(len(ids), -1, np.int8)
    order = np.argsort(labelled, kind="stable")
    place = np.searchsorted(labelled[order], ids, side="right") - 1
    last = order[np.maximum(place, 0)]
    return np.where(labelled[last] == ids, frauds[last], -1).astype(np.int8)
