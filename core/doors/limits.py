"""Limits for who states none: the narrowest that the cases at hand can show, and why they are what they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from featherweight.core.errors import LimitError
from featherweight.core.evidence.enough import check_cases_suffice
from featherweight.core.recipe.limits import parse_limits
from featherweight.core.target import Binary
from featherweight.core.task import HeldOut
from featherweight.core.terminal import counted

_MARGINS: Final = (0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.08, 0.12, 0.2, 0.3, 0.5)
_NARROWEST: Final[Mapping[str, float]] = {
    "auc_loss": 0.005,
    "sensitivity_loss": 0.02,
    "specificity_loss": 0.02,
    "flip_ratio_max": 0.02,
}
"""No narrower one is proposed, however many cases there are: nobody acts on less."""
_OF_CLASSES: Final[Mapping[str, float]] = {
    "macro_auc_loss": 0.005,
    "accuracy_loss": 0.01,
    "sensitivity_loss": 0.02,
    "flip_ratio_max": 0.02,
}
"""The same of several classes; that on sensitivity holds in each."""
_MEANINGS: Final[Mapping[str, str]] = {
    "auc_loss": "the order of the cases hardly changes",
    "sensitivity_loss": "of the positive cases found before, so many may be missed",
    "specificity_loss": "of the negative cases left alone before, so many may be alarms",
    "flip_ratio_max": "of all decisions, so many may change",
    "macro_auc_loss": "the order of the cases hardly changes, in the mean of the classes",
    "accuracy_loss": "of all cases, so many right decisions may be lost",
}


@dataclass(frozen=True)
class ProposedLimit:
    """A margin and, in words, why it is what it is."""

    name: str
    margin: float
    reason: str


def propose_limits(parts: Mapping[str, HeldOut], seed: int = 0) -> tuple[ProposedLimit, ...]:
    """Of each limit the narrowest margin that these cases can show, with one step of room for what does change; left
    out where they can show none. parts: split -> its cases."""
    found = []
    binary = all(isinstance(part.target, Binary) for part in parts.values())
    for name, narrowest in (_NARROWEST if binary else _OF_CLASSES).items():
        steps = [margin for margin in _MARGINS if margin >= narrowest]
        shown = next((place for place, margin in enumerate(steps) if _can_show(parts, name, margin, seed)), None)
        if shown is None:
            continue
        margin = steps[min(shown + 1, len(steps) - 1)] if shown or len(steps) == 1 else steps[0]
        why = "as narrow as anybody acts on" if margin == narrowest else f"what {_sizes(parts)} can show"
        found.append(ProposedLimit(name, margin, f"{_MEANINGS[name]}; {why}"))
    return tuple(found)


def _can_show(parts: Mapping[str, HeldOut], name: str, margin: float, seed: int) -> bool:
    try:
        check_cases_suffice(parts, parse_limits({name: margin})[0], seed=seed)
    except LimitError:
        return False
    return True


def _sizes(parts: Mapping[str, HeldOut]) -> str:
    told = [
        counted(int(part.labels.sum()), f"positive {split} cases")
        if isinstance(part.target, Binary)
        else f"{counted(int(np.bincount(part.labels).min()), f'{split} cases')} of the rarest class"
        for split, part in parts.items()
    ]
    return " and ".join(told)
