"""At which thresholds each of two models is judged: those that were asked for, or those that it brings. An app may act
on several, and all of them are judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from featherweight.core.compare.request import Threshold
from featherweight.core.errors import UsageError
from featherweight.core.thresholds import Outcomes

NEGATIVE, POSITIVE = "negative", "positive"


@dataclass(frozen=True)
class Decides:
    """threshold: a case is positive from this score on; outcomes: all that is done by thresholds, that one the lowest
    of them; None where it is the only one."""

    threshold: float
    outcomes: Outcomes | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return (NEGATIVE, POSITIVE) if self.outcomes is None else self.outcomes.names


def choose_thresholds(
    model: str, option: str, given: Threshold, in_force: float | None, own: Decides | None
) -> Decides:
    """What was asked for, else what the model brings if it acts on several, else the threshold in force, else the
    model's own. option: that would give it, for the message. Raises UsageError for none, and for some of those that the
    model acts on."""
    needed = () if own is None or own.outcomes is None else own.outcomes.names[1:]
    if isinstance(given, Mapping):
        if needed and set(given) != set(needed):
            raise UsageError(_lacks(model, option, needed))
        return _named(given, NEGATIVE if own is None else own.names[0])
    if given is not None:
        if needed:
            raise UsageError(_lacks(model, option, needed))
        return Decides(given)
    if own is not None and needed:
        return own
    if in_force is not None:
        return Decides(in_force)
    if own is not None:
        return own
    raise UsageError(
        f"{model}: nothing says from which score on a case is positive; give --threshold for both models, or {option}; "
        f"where the app acts on several, each with its name: {option} review=0.5 {option} decline=0.9"
    )


def _lacks(model: str, option: str, needed: tuple[str, ...]) -> str:
    return (
        f"{model}: acts on {len(needed)} thresholds, and all of them are judged; leave {option} out, or give it as "
        + " ".join(f"{option} {name}=..." for name in needed)
    )


def _named(given: Mapping[str, float], lowest: str) -> Decides:
    rising = sorted(given.items(), key=lambda named: named[1])
    names = tuple(str(name) for name, _ in rising)
    if not rising or lowest in names or not all(names) or len(set(names)) < len(names):
        raise UsageError(
            f"thresholds: expected a different name for every outcome that begins at one, none of them {lowest!r}, "
            "which is what lies below all of them"
        )
    return Decides(rising[0][1], Outcomes((lowest, *names), tuple(value for _, value in rising)))


def make_alike(first: Decides, second: Decides, models: tuple[str, str]) -> tuple[Decides, Decides]:
    """With one name for what lies below all thresholds. Raises UsageError for models that act on different outcomes."""
    if first.names[1:] != second.names[1:]:
        told = " and ".join(
            f"{model} on {', '.join(one.names[1:])}" for model, one in zip(models, (first, second), strict=True)
        )
        raise UsageError(
            f"the models act on different outcomes ({told}), which cannot be compared; give the thresholds of both by "
            "the same names, rising in the same order: --threshold-a NAME=VALUE and --threshold-b NAME=VALUE"
        )
    lowest = next((one.names[0] for one in (first, second) if one.names[0] != NEGATIVE), NEGATIVE)
    return _from(first, lowest), _from(second, lowest)


def _from(one: Decides, lowest: str) -> Decides:
    if one.outcomes is None:
        return one if lowest == NEGATIVE else replace(one, outcomes=Outcomes((lowest, POSITIVE), (one.threshold,)))
    return replace(one, outcomes=replace(one.outcomes, names=(lowest, *one.outcomes.names[1:])))
