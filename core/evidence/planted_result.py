"""What the trial of a gate found: each planted fault, what it truly costs, and how often it was refused."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from featherweight.core.evidence import metrics
from featherweight.core.evidence.metric import Limit

Finding = Literal["caught", "let through", "allowed", "refused though allowed", "no limit looks at it"]


@dataclass(frozen=True)
class PlantedResult:
    """name, imitates: as in the table; limit: the one that the fault harms most, in proportion ("" for none);
    loss: its true damage there, in the limit's unit; allowed: the limit; beyond: whether that is more than the limit
    allows; refused: in so many of `draws` judgements; unlimited: the metric without a limit that is worse by most, by
    `unlimited_loss` ("" where none is); just_beyond: its size was chosen by the limits."""

    name: str
    imitates: str
    limit: str
    loss: float
    allowed: float
    beyond: bool
    refused: int
    draws: int
    unlimited: str = ""
    unlimited_loss: float = 0.0
    just_beyond: bool = False

    @property
    def times(self) -> float:
        """The harm, as so many times what the limit allows."""
        return share_of_limit(metrics.limits()[self.limit][1], self.loss, self.allowed) if self.limit else 0.0

    @property
    def finding(self) -> Finding:
        if self.beyond:
            return "caught" if self.refused == self.draws else "let through"
        if self.refused:
            return "refused though allowed"
        return "no limit looks at it" if self.unlimited else "allowed"


@dataclass(frozen=True)
class GateTrial:
    """cases: of `of` validation cases, so many were used; faults: in the order of the table; harmless: candidates
    that do no harm worth half a limit; not_planted: names of the faults that such cases cannot have, or that change
    nothing in them."""

    cases: int
    of: int
    faults: tuple[PlantedResult, ...]
    harmless: tuple[PlantedResult, ...]
    not_planted: tuple[str, ...]

    @property
    def just_beyond(self) -> tuple[PlantedResult, ...]:
        """Those whose size was chosen by the limits."""
        return tuple(one for one in self.faults if one.just_beyond)

    def found(self, *findings: Finding) -> tuple[PlantedResult, ...]:
        return tuple(one for one in self.faults if one.finding in findings)

    @property
    def beyond(self) -> tuple[PlantedResult, ...]:
        """Those that harm more than a limit allows."""
        return tuple(one for one in self.faults if one.beyond)

    @property
    def caught(self) -> int:
        """Refused judgements, of those of `beyond`."""
        return sum(one.refused for one in self.beyond)

    @property
    def should_be_caught(self) -> int:
        return sum(one.draws for one in self.beyond)

    @property
    def false_refusals(self) -> int:
        """Refused judgements, of those of `harmless`."""
        return sum(one.refused for one in self.harmless)

    @property
    def harmless_draws(self) -> int:
        return sum(one.draws for one in self.harmless)

    @property
    def refuses_a_copy(self) -> bool:
        """Whether even the baseline itself is refused: the cases are too few to show anything."""
        return bool(self.harmless) and self.harmless[0].refused > 0


@dataclass(frozen=True)
class NoTrial:
    """reason: why no fault was planted, in the middle of a sentence."""

    reason: str


def share_of_limit(rule: Limit, loss: float, limit: float) -> float:
    """Of what the limit allows; above 1 it is missed."""
    part, whole = (limit, loss) if rule.kind == "min" else (loss, limit)
    if whole <= 0:
        return 0.0 if part <= 0 else np.inf
    return part / whole
