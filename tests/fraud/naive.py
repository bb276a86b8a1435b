"""The histories once more, written for reading: what the kernels are compared with. No arrays, no order of arrival, one
sum a feature."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from fractions import Fraction

from featherweight.apps.fraud.features.histories import CONFLICT, DUPLICATE, NEW
from featherweight.apps.fraud.transactions import Label, Transaction

HOUR = 3_600_000
DAY = 24 * HOUR
NAN = math.nan


@dataclass
class Event:
    id: str
    time: int
    cents: int
    other: str
    fraud: bool = False


@dataclass
class History:
    horizon: int
    events: list[Event] = field(default_factory=list)
    bound: int = 1024

    def add(self, event: Event, order: Callable[[str], int]) -> None:
        """order: breaks ties of time, as the bound needs it."""
        self.events.append(event)
        self.events.sort(key=lambda each: (each.time, order(each.id)))
        until = [each.time for each in self.events if each.time <= event.time]
        limit = until[-3] - self.horizon - DAY if len(until) >= 3 else -1
        self.events = [each for each in self.events if each.time > limit][-self.bound :]

    def find(self, identity: str) -> Event | None:
        return next((event for event in self.events if event.id == identity), None)

    def earlier(self, transaction: Transaction, oldest_age: int, newest_age: int = 0) -> list[Event]:
        """The others of an age in [newest, oldest), oldest first."""
        return [
            event
            for event in self.events
            if event.id != transaction.transaction_id and newest_age <= transaction.time_ms - event.time < oldest_age
        ]


def mean(amounts: list[int]) -> float:
    return float(Fraction(sum(amounts), 100 * len(amounts))) if amounts else NAN


def over(above: float, below: float) -> float:
    return above / below if below > 0 else NAN


def deviation(cents: list[int]) -> float:
    """Of the population, in cents."""
    if not cents:
        return NAN
    centre = Fraction(sum(cents), len(cents))
    return math.sqrt(sum((each - centre) ** 2 for each in cents) / len(cents))


def usual_amount(others: list[int]) -> Fraction:
    usual = [each for each in others if 2 * each * len(others) <= 5 * sum(others)]
    return Fraction(sum(usual), 100 * len(usual)) if usual else Fraction(0)


def customer_features(history: History, now: Transaction) -> dict[str, float]:
    amount = now.cents / 100

    def cents(days: float, *, itself: bool = True) -> list[int]:
        return [event.cents for event in history.earlier(now, int(days * DAY))] + [now.cents] * itself

    month = history.earlier(now, 30 * DAY)
    others = cents(30, itself=False)
    moment = datetime.fromtimestamp(now.time_ms / 1000, UTC)
    centre = mean(others)
    spread = deviation(others)
    usual = usual_amount(others)
    fortnight = history.earlier(now, 14 * DAY)
    high = [event for event in fortnight if Fraction(event.cents, 100) > Fraction(5, 2) * usual]
    return {
        "amount": amount,
        "is_weekend": moment.weekday() >= 5,
        "is_night": moment.hour <= 6,
        "hour": moment.hour + moment.minute / 60 + (moment.second + moment.microsecond / 1e6) / 3600,
        "customer_count_10m": len(cents(10 / 1440)),
        "customer_count_1h": len(cents(1 / 24)),
        "customer_count_1d": len(cents(1)),
        "customer_count_7d": len(cents(7)),
        "customer_count_30d": len(cents(30)),
        "customer_mean_amount_1d": mean(cents(1)),
        "customer_mean_amount_7d": mean(cents(7)),
        "customer_mean_amount_30d": mean(cents(30)),
        "customer_sum_amount_1d": sum(cents(1)) / 100,
        "customer_seconds_since_last": (now.time_ms - month[-1].time) / 1000 if month else NAN,
        "customer_terminal_count_30d": len({event.other for event in month} | {now.terminal_id}),
        "customer_frauds_30d_known": sum(event.fraud for event in month),
        "customer_amount_ratio_30d": over(amount, centre),
        "customer_amount_z_30d": (amount - centre) / max(spread / 100, 1.0) if len(others) > 1 else NAN,
        "customer_max_ratio_30d": over(now.cents, max(others, default=0)),
        "customer_usual_amount_30d": float(usual) if others else NAN,
        "customer_usual_ratio_30d": over(amount, float(usual)),
        "customer_high_count_14d": len(high) if others else NAN,
        "customer_high_ratio_14d": over(max((event.cents for event in fortnight), default=0) / 100, float(usual)),
        "customer_days_since_first_high_14d": (now.time_ms - high[0].time) / DAY if high else NAN,
    }


def terminal_features(history: History, now: Transaction, delay: int) -> dict[str, float]:
    def count(days: int) -> int:
        return len(history.earlier(now, days * DAY)) + 1

    def delayed(days: int) -> list[Event]:
        return history.earlier(now, delay + days * DAY, delay)

    def share(events: list[Event]) -> float:
        return sum(event.fraud for event in events) / total(events) if total(events) else 0.0

    def total(events: list[Event]) -> int:
        return len(events) + (delay == 0)

    week = [event.cents for event in history.earlier(now, 7 * DAY)] + [now.cents]
    frauds = [event for event in history.earlier(now, 30 * DAY + delay) if event.fraud]
    known = delayed(30)
    legitimate = [event for event in known if not event.fraud]
    streak = known[known.index(legitimate[-1]) + 1 :] if legitimate else known
    return {
        "terminal_count_1d_delayed": total(delayed(1)),
        "terminal_risk_1d_delayed": share(delayed(1)),
        "terminal_count_7d_delayed": total(delayed(7)),
        "terminal_risk_7d_delayed": share(delayed(7)),
        "terminal_count_30d_delayed": total(delayed(30)),
        "terminal_risk_30d_delayed": share(delayed(30)),
        "terminal_count_1d": count(1),
        "terminal_count_7d": count(7),
        "terminal_mean_amount_7d": mean(week),
        "terminal_amount_ratio_7d": over(now.cents / 100, mean(week)),
        "terminal_frauds_30d_known": sum(event.fraud for event in history.earlier(now, 30 * DAY)),
        "terminal_days_since_known_fraud": (now.time_ms - frauds[-1].time) / DAY if frauds else NAN,
        "terminal_fraud_streak": len(streak),
        "terminal_fraud_streak_days": (now.time_ms - streak[0].time) / DAY if streak else NAN,
        "terminal_fraud_streak_mean_amount": mean([event.cents for event in streak]),
        "terminal_days_since_known_legitimate": (now.time_ms - legitimate[-1].time) / DAY if legitimate else NAN,
    }


class NaiveEngine:
    """FeatureEngine's twin. order: how events of the same time are ordered."""

    def __init__(self, delay_days: float, order: Callable[[str], int]) -> None:
        self.delay = round(delay_days * DAY)
        self.order = order
        self.customers: dict[str, History] = {}
        self.terminals: dict[str, History] = {}

    def advance(self, now: Transaction) -> tuple[bool, dict[str, float]]:
        customer = self.customers.setdefault(now.customer_id, History(30 * DAY))
        terminal = self.terminals.setdefault(now.terminal_id, History(30 * DAY + self.delay))
        row = customer_features(customer, now) | terminal_features(terminal, now, self.delay)
        return self.absorb(now), row

    def absorb(self, now: Transaction) -> bool:
        """`advance` without the features."""
        customer = self.customers.setdefault(now.customer_id, History(30 * DAY))
        terminal = self.terminals.setdefault(now.terminal_id, History(30 * DAY + self.delay))
        seen = customer.find(now.transaction_id) is not None
        for history, other in ((customer, now.terminal_id), (terminal, now.customer_id)):
            if history.find(now.transaction_id) is None:
                history.add(Event(now.transaction_id, now.time_ms, now.cents, other), self.order)
        return seen

    def apply_label(self, label: Label) -> int:
        found = list[Event]()
        for histories, key in ((self.customers, label.customer_id), (self.terminals, label.terminal_id)):
            event = histories[key].find(label.transaction_id) if key in histories else None
            if event is not None:
                event.fraud = label.is_fraud
                found.append(event)
        if not found:
            return NEW
        return DUPLICATE if [event.time for event in found] == [label.time_ms] * 2 else CONFLICT
