"""How often limits pass a candidate that is exactly as bad as they allow: the Brier loss, floors, calibration limits,
predictive values, changed decisions and groups, simulated with a truth that is known. Part of `bench.levels`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, ndtr, ndtri

from featherweight.core.arrays import Bools, Clusters, Floats, Labels
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.subgroups import compare_subgroups
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics.average_precision import average_precision_interval
from featherweight.core.statistics.card_precision import Desk
from featherweight.core.statistics.loss_bounds import Unseen, least_bound, loss_upper_bound
from featherweight.core.statistics.own_losses import brier_own_losses, card_precision_own_losses
from featherweight.core.statistics.predictive_values import (
    PairedDecisions,
    Sign,
    predictive_value,
    predictive_value_difference,
)
from featherweight.core.statistics.reliability import calibration_in_the_large, calibration_line
from featherweight.core.statistics.share_bounds import share_upper_bound

Row = tuple[str, ...]
UNSEEN: tuple[Unseen, ...] = ("as-seen", "lost")
_MANY = 2_000_000


def _owners(draw: np.random.Generator, units: int, largest: int) -> Clusters:
    return np.repeat(np.arange(units), draw.integers(1, largest + 1, units))


def _named(units: int, largest: int) -> str:
    return f"{units:,}" if largest == 1 else f"{units:,} clusters of 1 to {largest}"


# ---------------------------------------------------------------------------------------------------- Brier score


@dataclass(frozen=True)
class _BrierChange:
    """What becomes of the logits: noise of all, or a share that is turned, of cases or whole clusters."""

    name: str
    noise: float = 0.0
    turned: float = 0.0
    whole: bool = False

    def apply(self, logits: Floats, owner: Clusters, draw: np.random.Generator) -> Floats:
        after = logits + self.noise * draw.normal(size=len(logits))
        chance = draw.random(int(owner.max()) + 1)[owner] if self.whole else draw.random(len(logits))
        return np.where(chance < self.turned, -after, after)


BRIER_CHANGES = (
    _BrierChange("slight, all", noise=0.2),
    _BrierChange("2% turned", turned=0.02),
    _BrierChange("1% turned", turned=0.01),
    _BrierChange(".3% turned", turned=0.003),
)


def brier(units: int, largest: int, prevalence: float, change: _BrierChange, studies: int, seed: int) -> Row:
    """Logits of the truth with a spread of 4: most probabilities are nearly certain."""
    draw, middle = np.random.default_rng(seed), 4 * float(ndtri(prevalence))

    def study(owner: Clusters) -> tuple[Floats, Floats, Labels]:
        own = draw.normal(size=len(owner))
        shared = draw.normal(size=int(owner.max()) + 1)[owner] if largest > 1 else own
        logits = middle + 4 * (own + shared) / (math.sqrt(2) if largest > 1 else 2)
        labels = (draw.random(len(owner)) < expit(logits)).astype(np.int64)
        return expit(logits), expit(change.apply(logits, owner, draw)), labels

    # The expected loss of known probabilities, without the noise of the labels.
    before, after, _ = study(np.arange(_MANY))
    true = float(np.mean((after - before) ** 2))
    passed, shown = np.zeros(3), []
    for _ in range(studies):
        owner = _owners(draw, units, largest)
        kinds = [owner] if largest > 1 else []
        before, after, labels = study(owner)
        own = brier_own_losses(before, after, labels, kinds)
        normal = own.loss + s.Z_ONE_SIDED * s.standard_error(own.parts * len(labels), kinds)
        passed += [loss_upper_bound(own, "as-seen") <= true, loss_upper_bound(own, "lost") <= true, normal <= true]
        other = expit(np.log(before / (1 - before)) + 0.01 * draw.normal(size=len(before)))
        same = brier_own_losses(before, other, labels, kinds)
        shown.append([loss_upper_bound(same, "as-seen"), loss_upper_bound(same, "lost")])
    margins = np.percentile(np.array(shown), 80, axis=0)
    return (
        _named(units, largest),
        f"{prevalence:g}",
        change.name,
        f"{true:.4f}",
        *(f"{share:.1%}" for share in passed / studies),
        *(f"{margin:.4f}" for margin in margins),
    )


def _brier_settings() -> Iterator[tuple[int, int, float, _BrierChange]]:
    for units, prevalence in ((390, 0.5), (2000, 0.5), (5000, 0.03)):
        for change in BRIER_CHANGES:
            yield units, 1, prevalence, change
    for units, largest in ((425, 20), (60, 10)):
        yield units, largest, 0.5, BRIER_CHANGES[0]
        yield units, largest, 0.5, BRIER_CHANGES[1]
        yield units, largest, 0.5, _BrierChange("2% of clusters turned", turned=0.02, whole=True)


# ---------------------------------------------------------------------------------------------------- floors


def floors(positives: int, negatives: int, auc: float, sunk: float, largest: int, studies: int, seed: int) -> Row:
    """The floor is the true figure. sunk: share of the positives, or of their clusters, that lie below all others."""
    draw, distance = np.random.default_rng(seed), math.sqrt(2) * float(ndtri(auc))
    prevalence = positives / (positives + negatives)
    truth = (1 - sunk) * auc, _true_precision(distance, sunk, prevalence)
    reached = np.zeros(2)
    for _ in range(studies):
        owner = _owners(draw, positives + negatives, largest)
        labels = (owner < positives).astype(np.int64)
        kinds = owner if largest > 1 else None
        own, shared = draw.normal(size=len(owner)), draw.normal(size=positives + negatives)[owner]
        scores = (own if largest == 1 else (own + shared) / math.sqrt(2)) + distance * labels
        gone = draw.random(positives + negatives)[owner] < sunk
        scores = np.where(gone & (labels == 1), scores - 50, scores)
        found = s.roc_auc_floor(scores, labels, kinds), average_precision_interval(scores, labels, kinds)
        reached += [one is not None and one.low >= true for one, true in zip(found, truth, strict=True)]
    cases = f"{positives:,} and {negatives:,}" + (f" clusters of 1 to {largest}" if largest > 1 else "")
    shares = reached / studies
    return (
        cases,
        f"{auc:g}",
        f"{sunk:.0%}",
        f"{truth[0]:.4f}",
        f"{shares[0]:.1%}",
        f"{truth[1]:.4f}",
        f"{shares[1]:.1%}",
    )


def _true_precision(distance: float, sunk: float, prevalence: float) -> float:
    scores = np.linspace(-12, 25, 200_001)
    found, alarms = (1 - sunk) * ndtr(distance - scores), ndtr(-scores)
    precision = prevalence * found / np.maximum(prevalence * found + (1 - prevalence) * alarms, 1e-300)
    return float(((precision[1:] + precision[:-1]) / 2 * -np.diff(found)).sum()) + sunk * prevalence


def _floor_settings() -> Iterator[tuple[int, int, float, float, int]]:
    for positives, negatives in ((20, 600), (20, 20), (30, 900), (100, 3000), (390, 234)):
        for auc in (0.8, 0.95, 0.995):
            for sunk in (0.0, 0.03):
                yield positives, negatives, auc, sunk, 1
    for positives, negatives, largest in ((60, 60, 10), (250, 250, 4)):
        for sunk in (0.0, 0.03):
            yield positives, negatives, 0.95, sunk, largest


# ---------------------------------------------------------------------------------------------------- calibration


def calibration_limits(units: int, largest: int, prevalence: float, studies: int, seed: int) -> Row:
    """Limits of .2 at candidates that are off by .2: in the large, and in the slope either way. The cases of a cluster
    share their label and their probability."""
    draw, middle = np.random.default_rng(seed), math.log(prevalence / (1 - prevalence))
    kept = np.zeros(3)
    for _ in range(studies):
        owner = _owners(draw, units, largest)
        logits = (middle + 1.5 * draw.normal(size=units))[owner]
        labels = (draw.random(units)[owner] < expit(logits)).astype(np.int64)
        kinds = owner if largest > 1 else None
        found = (
            (calibration_in_the_large(expit(logits - 0.2), labels, kinds), 0.0),
            (calibration_line(expit(logits / 0.8), labels, kinds)[0], 1.0),
            (calibration_line(expit(logits / 1.2), labels, kinds)[0], 1.0),
        )
        kept += [
            one is not None and max(abs(one.low - perfect), abs(one.high - perfect)) <= 0.2 for one, perfect in found
        ]
    return _named(units, largest), f"{prevalence:g}", *(f"{share:.1%}" for share in kept / studies)


# ---------------------------------------------------------------------------------------------------- decisions


def predictive(
    sign: Sign, positives: int, negatives: int, lost: float, prevalence: float, largest: int, studies: int, seed: int
) -> Row:
    """Sensitivity .9 and specificity .95, of which the candidate loses a share: right decisions of the class that the
    value suffers by become wrong, of cases or, where there are any, of whole clusters."""
    draw, was = np.random.default_rng(seed), (0.9, 0.95)
    now = (was[0], was[1] * (1 - lost)) if sign == "positive" else (was[0] * (1 - lost), was[1])
    before, after = (predictive_value(sign, *shares, prevalence) for shares in (was, now))
    margin, passed = (before or 0.0) - (after or 0.0), 0
    for _ in range(studies):
        owner = _owners(draw, positives + negatives, largest)
        positive = owner < positives
        right = draw.random(len(owner)) < np.where(positive, *was)
        hurt = (draw.random(positives + negatives)[owner] < lost) & (positive != (sign == "positive"))
        kinds = [owner] if largest > 1 else []
        decisions = PairedDecisions(positive, right == positive, (right & ~hurt) == positive, kinds)
        found = predictive_value_difference(sign, decisions, prevalence)
        passed += found is not None and -found.low <= margin
    cases = f"{positives:,} and {negatives:,}" + (f" clusters of 1 to {largest}" if largest > 1 else "")
    return sign, cases, f"{prevalence:g}", f"{lost:.1%}", f"{margin:.4f}", f"{passed / studies:.1%}"


def flips(units: int, largest: int, share: float, whole: bool, studies: int, seed: int) -> Row:
    """Of decisions a share changes, of cases or of whole clusters."""
    draw, passed = np.random.default_rng(seed), 0
    for _ in range(studies):
        owner = _owners(draw, units, largest)
        changed = (draw.random(units)[owner] if whole else draw.random(len(owner))) < share
        passed += share_upper_bound(changed, owner) <= share
    return _named(units, largest), f"{share:.0%} of {'clusters' if whole else 'cases'}", f"{passed / studies:.1%}"


def crossed_flips(cards: int, terminals: int, effect: float, studies: int, seed: int) -> Row:
    """3,000 decisions that change with a probability of card and terminal."""
    draw, passed = np.random.default_rng(seed), 0

    def study(card: Floats, terminal: Floats) -> Bools:
        return np.asarray(draw.random(len(card)) < expit(effect * (card + terminal) - 4))

    share = float(study(*draw.normal(size=(2, _MANY))).mean())
    for _ in range(studies):
        card, terminal = draw.integers(0, cards, 3000), draw.integers(0, terminals, 3000)
        changed = study(draw.normal(size=cards)[card], draw.normal(size=terminals)[terminal])
        passed += share_upper_bound(changed, (card, terminal)) <= share
    return f"3,000 of {cards} cards and {terminals} terminals", f"{share:.1%}, by both", f"{passed / studies:.1%}"


# ---------------------------------------------------------------------------------------------------- card precision


@dataclass(frozen=True)
class _DeskChange:
    """What becomes of the scores: noise of all, compromised cards that are lost, others that rise above all."""

    name: str
    noise: float = 0.0
    lost: float = 0.0
    rising: float = 0.0


DESK_CHANGES = (
    _DeskChange("slight, all", noise=0.2),
    _DeskChange("10% of the compromised cards lost", lost=0.1),
    _DeskChange("3% of the compromised cards lost", lost=0.03),
    _DeskChange(".3% of the others rise", rising=0.003),
    _DeskChange(".03% of the others rise", rising=0.0003),
)
DESKS = ((2000, 100, 7, 20), (2000, 400, 14, 50))
"""Cards, those of them that are compromised, days, alerts a day."""


def card_precision(
    cards: int, compromised: int, days: int, per_day: int, change: _DeskChange, studies: int, seed: int
) -> Row:
    """A card has a transaction a day on three days of four, and a compromised one is so from a random day on. The true
    loss is the mean of all studies, which are their own population."""
    draw = np.random.default_rng(seed)
    losses, bounds, least, none = [], {"as-seen": list[float](), "lost": list[float]()}, 0.0, 0
    for _ in range(studies):
        card, day = np.nonzero(draw.random((cards, days)) < 0.75)
        start = np.where(np.arange(cards) < compromised, draw.integers(0, days, cards), days)
        labels = (day >= start[card]).astype(np.int64)
        before = draw.normal(size=len(card)) + draw.normal(size=cards)[card] + 4.0 * labels
        chance, bad = draw.random(cards)[card], (np.arange(cards) < compromised)[card]
        after = before + change.noise * draw.normal(size=len(card))
        after = np.where(bad & (chance < change.lost), -50.0, np.where(~bad & (chance < change.rising), 50.0, after))
        desk = Desk(labels, card, days=day, eligible=np.ones(len(card), bool), per_day=per_day)
        own = card_precision_own_losses(desk, before, after, labels, (card,))
        losses.append(own.loss)
        none += not own.parts.any()
        least = least_bound(own)
        for unseen in UNSEEN:
            bounds[unseen].append(loss_upper_bound(own, unseen))
    true = float(np.mean(losses))
    passed = [f"{np.mean(np.array(bounds[unseen]) <= true):.1%}" for unseen in UNSEEN]
    return (
        f"{compromised} of {cards:,} compromised, {days} days of {per_day}",
        change.name,
        f"{true:.4f}",
        *passed,
        f"{none / studies:.1%}",
        f"{least:.3f}",
    )


# ---------------------------------------------------------------------------------------------------- groups


def groups(cases: int, number: int, studies: int, seed: int) -> Row:
    """Groups of `cases` positives and as many negatives. passed: one loses the margin, the others nothing, and all
    limits are kept; shown: every group loses just the margin, and one is shown to lose more. Of sensitivity (a tenth of
    the decisions lost) and of AUC (noise in all scores)."""
    draw, distance, noise = np.random.default_rng(seed), math.sqrt(2) * float(ndtri(0.95)), 0.6
    margin = 0.95 - float(ndtr(distance / math.sqrt(2 + 2 * noise**2)))
    count = 2 * cases * number
    site, labels = np.arange(count) % number, (np.arange(count) // number % 2).astype(np.int64)
    columns = {"site": np.array([f"s{place:02d}" for place in range(number)])[site]}
    limits = Limits(**{"groups.sensitivity_loss": 0.1}), Limits(**{"groups.auc_loss": margin})
    found = np.zeros(4)
    for _ in range(studies):
        scores = draw.normal(size=count) + distance * labels
        decided = Predictions(tuple(map(str, range(count))), labels, 2.0 * labels - 1, 0.0, groups=columns)
        ranked = Predictions(decided.ids, labels, scores, 0.0, groups=columns)
        lost, moved = (draw.random(count) < 0.1) & (labels == 1), noise * draw.normal(size=count)
        for place, everywhere in ((0, False), (1, True)):
            inside = everywhere | (site == 0)
            worse = _statuses(decided, np.where(lost & inside, -1.0, decided.scores), limits[0], "sensitivity")
            noisy = _statuses(ranked, np.where(inside, scores + moved, scores), limits[1], "auc")
            for offset, statuses in ((0, worse), (2, noisy)):
                found[place + offset] += "shown worse" in statuses if everywhere else statuses[0] == "not worse"
    return f"{number} of {cases} and {cases}", *(f"{share:.1%}" for share in found / studies)


def _statuses(before: Predictions, scores: Floats, limits: Limits, name: str) -> list[str]:
    after = Predictions(before.ids, before.labels, scores, before.threshold, groups=before.groups)
    table = compare_subgroups(before, after, limits, seed=0)
    return [one.status for row in table.rows for one in row.figures if one.name == name]


# ---------------------------------------------------------------------------------------------------- all of them

Table = tuple[str, Sequence[str], Callable[..., Row], Sequence[tuple[object, ...]], int]


def tables(studies: int) -> Iterator[Table]:
    """title, columns, what simulates a setting, the settings, and how many studies of each."""
    yield (
        "Brier score: passed at the margin",
        ("cases", "prevalence", "change", "true loss", "as seen", "lost", "normal", "shown: as seen", "shown: lost"),
        brier,
        list(_brier_settings()),
        studies,
    )
    yield (
        "floors: reached by a candidate that is just there",
        ("cases", "AUC", "lost", "true AUC", "AUC reached", "true AP", "AP reached"),
        floors,
        list(_floor_settings()),
        studies,
    )
    yield (
        "calibration limits: kept by a candidate that is off by just so much",
        ("cases", "prevalence", "in the large", "slope .8", "slope 1.2"),
        calibration_limits,
        [
            *((units, 1, prevalence) for units in (600, 3000, 10000) for prevalence in (0.5, 0.05)),
            (425, 20, 0.5),
            (60, 10, 0.5),
        ],
        studies,
    )
    yield (
        "predictive values: passed at the margin",
        ("value", "cases", "at prevalence", "lost", "margin", "passed"),
        predictive,
        [
            ("positive", 390, 234, 0.02, 0.02, 1),
            ("positive", 100, 2000, 0.01, 0.02, 1),
            ("negative", 390, 234, 0.02, 0.1, 1),
            ("negative", 60, 600, 0.05, 0.1, 1),
            ("positive", 60, 60, 0.05, 0.1, 10),
            ("negative", 60, 60, 0.05, 0.1, 10),
        ],
        studies // 5,
    )
    yield (
        "changed decisions in clusters: passed at the limit",
        ("cases", "changed", "passed"),
        flips,
        [
            (units, largest, share, whole)
            for units, largest in ((425, 20), (60, 10), (30, 20))
            for share, whole in ((0.02, False), (0.02, True), (0.1, True))
        ],
        studies,
    )
    yield (
        "changed decisions of cards and terminals: passed at the limit",
        ("cases", "changed", "passed"),
        crossed_flips,
        [(100, 100, 1.2), (2000, 100, 0.5), (2000, 20, 1.0)],
        studies,
    )
    yield (
        "card precision: passed at the margin",
        ("cards", "change", "true loss", "as seen", "lost", "no change seen", "least margin: lost"),
        card_precision,
        [(*desk, change) for desk in DESKS for change in DESK_CHANGES],
        studies,
    )
    yield (
        "groups: a limit kept though one loses the margin; called worse though all lose just the margin",
        ("groups", "sensitivity passed", "sensitivity called worse", "AUC passed", "AUC called worse"),
        groups,
        [(8, 8), (20, 6), (100, 4)],
        studies // 5,
    )


def simulate_all(studies: int, pool: ProcessPoolExecutor) -> dict[str, tuple[Sequence[str], Sequence[Row]]]:
    waiting = {
        f"{title}, {count} studies": (
            columns,
            [pool.submit(of, *setting, count, seed) for seed, setting in enumerate(settings)],
        )
        for title, columns, of, settings, count in tables(studies)
    }
    return {title: (columns, [one.result() for one in found]) for title, (columns, found) in waiting.items()}
