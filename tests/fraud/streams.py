"""Streams that have everything in them: late, twice, at the same time, labels of all kinds."""

from __future__ import annotations

import random

from hypothesis import strategies as st

from featherweight.apps.fraud.labels import label_of
from featherweight.apps.fraud.transactions import Label, Transaction

DAY = 86_400_000
START = 1_522_540_800_000  # 2018-04-01, a Sunday
CUSTOMERS, TERMINALS = ("anna", "berta"), ("kiosk", "post", "web")
Event = Transaction | Label

gaps = st.one_of(st.sampled_from([0, 0, 1, 600_000, 3_600_000, DAY, 7 * DAY, 30 * DAY]), st.integers(0, 9 * DAY))
cents = st.one_of(st.sampled_from([0, 1, 1000, 1_000_000_000]), st.integers(0, 20_000))


@st.composite
def streams(draw: st.DrawFn) -> list[Event]:
    """Transactions of a few keys, mostly forward in time, with late ones, duplicates, equal times and labels of all
    kinds (early, late, twice, of nothing, changed)."""
    now, events = START, []
    made: list[Transaction] = []
    for number in range(draw(st.integers(1, 30))):
        now += draw(gaps)
        what = draw(st.sampled_from(["new", "new", "new", "late", "again", "label", "label", "lost"]))
        if what in ("again", "label") and made:
            old = draw(st.sampled_from(made))
            events.append(old if what == "again" else label_of(old, draw(st.booleans())))
            continue
        late = draw(gaps) if what == "late" else 0
        made.append(
            Transaction(
                transaction_id=f"t{number}",
                customer_id=draw(st.sampled_from(CUSTOMERS)),
                terminal_id=draw(st.sampled_from(TERMINALS)),
                time_ms=max(0, now - late),
                amount=draw(cents) / 100,
            )
        )
        events.append(label_of(made[-1], True) if what == "lost" else made[-1])
    return events


def long_stream(seed: int, count: int = 1500, *, lateness: int = 2 * DAY) -> list[Event]:
    """A few months of few keys: histories over many pages, some events late, twice or of a clock that is years ahead,
    most labels a week later."""
    generator = random.Random(seed)
    events: list[tuple[float, Event]] = []
    for number in range(count):
        time = START + int(generator.uniform(0, 100 * DAY))
        ahead = 3000 * DAY * (lateness > 0 and generator.random() < 0.005)
        transaction = Transaction(
            transaction_id=f"{seed}-{number}",
            customer_id=generator.choice(CUSTOMERS),
            terminal_id=generator.choice(TERMINALS),
            time_ms=time + ahead,
            amount=round(generator.gammavariate(1, 50), 2),
        )
        late = generator.random() ** 20 * lateness
        events.append((time + late, transaction))
        if generator.random() < 0.02:
            events.append((time + late + generator.uniform(0, DAY), transaction))
        if generator.random() < 0.9:
            events.append((time + generator.gauss(7, 2) * DAY, label_of(transaction, generator.random() < 0.4)))
    return [event for _, event in sorted(events, key=lambda pair: pair[0])]


def transaction(name: str, time_ms: int, *, amount: float = 12.5) -> Transaction:
    return Transaction(transaction_id=name, customer_id="anna", terminal_id="kiosk", time_ms=time_ms, amount=amount)
