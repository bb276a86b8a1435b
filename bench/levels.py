"""How often the gate's bounds fail, and what they can show: simulated comparisons whose true loss is known.

In each study the bound is compared with the true loss: a bound below it would have passed a candidate that loses more
than the margin, which should happen in at most 5% of studies. `shown` is the smallest margin that four of five
harmless candidates keep (as good as the baseline, with scores that differ a little): the smaller, the more powerful.

    python -m bench.levels [--studies 2000] [--only auc] [--record bench/results/levels.json]

Scores are normal, of unit variance in both classes; what a change does to a class is a mixture of normals and of cases
lost altogether, so that AUC and average precision of the population are known without simulation.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.special import ndtr, ndtri

from bench.class_levels import simulate as simulate_classes
from bench.limit_levels import simulate_all
from bench.timing import record, show
from featherweight.core.arrays import Floats, Labels
from featherweight.core.statistics import intervals as s
from featherweight.core.statistics.average_precision import precision_influence
from featherweight.core.statistics.loss_bounds import OwnLosses, Unseen, loss_upper_bound
from featherweight.core.statistics.own_losses import auc_own_losses, average_precision_own_losses
from featherweight.core.statistics.paired import exact_bound, paired_share_difference
from featherweight.core.statistics.reliability import calibration_error_interval
from featherweight.core.statistics.sample_size import cases_needed_of_own_losses, cases_needed_of_share

Mixture = Sequence[tuple[float, float, float]]
"""Of the scores of a class: weight, mean and standard deviation of each part; the mean may be infinite."""
COLUMNS = ("cases", "AUC", "change", "true loss", "as seen", "lost", "other", "shown: as seen", "shown: lost")


@dataclass(frozen=True)
class Change:
    """What becomes of the candidate's scores: of a share of a class's cases, noise of a standard deviation (`noise`), a
    fall (`sink`, of positives), a rise (`rise`, of negatives); infinite where they are lost altogether. whole: whole
    clusters change together."""

    name: str
    positives: float = 0.0
    negatives: float = 0.0
    noise: float = 0.0
    sink: float = 0.0
    rise: float = 0.0
    whole: bool = False

    def mixtures(self, distance: float) -> tuple[Mixture, Mixture]:
        """Of the positives and the negatives of the population, after the change."""
        spread = math.hypot(1, self.noise)
        return (
            ((1 - self.positives, distance, 1), (self.positives, distance - self.sink, spread)),
            ((1 - self.negatives, 0, 1), (self.negatives, self.rise, spread)),
        )

    def apply(self, scores: Floats, labels: Labels, clusters: Labels, draw: np.random.Generator) -> Floats:
        share = np.where(labels == 1, self.positives, self.negatives)
        chance = draw.random(int(clusters.max()) + 1)[clusters] if self.whole else draw.random(len(scores))
        moved = np.clip(np.where(labels == 1, -self.sink, self.rise), -1e3, 1e3)
        noise = self.noise * draw.normal(size=len(scores)) if self.noise else 0.0
        return np.where(chance < share, scores + moved + noise, scores)


CHANGES = (
    Change("slight, all", 1, 1, noise=0.1),
    Change("strong, 2%", 0.02, 0.02, noise=3),
    Change("2% of positives sink", 0.02, sink=3),
    Change("2% of negatives rise", negatives=0.02, rise=3),
    Change("1% of positives lost", 0.01, sink=math.inf),
    Change(".3% of positives lost", 0.003, sink=math.inf),
    Change("1% of negatives lost", negatives=0.01, rise=math.inf),
    Change(".1% of negatives lost", negatives=0.001, rise=math.inf),
)
WHOLE = (
    Change("slight, all", 1, 1, noise=0.1),
    Change("strong, 2%", 0.02, 0.02, noise=3),
    Change("1% of clusters with positives lost", 0.01, sink=math.inf, whole=True),
    Change("1% of clusters with negatives lost", negatives=0.01, rise=math.inf, whole=True),
)


@dataclass(frozen=True)
class Setting:
    """positives, negatives: cases, or where largest is above 1 clusters, of 1 to `largest` cases each."""

    positives: int
    negatives: int
    auc: float
    change: Change
    largest: int = 1

    @property
    def distance(self) -> float:
        """Between the means of the classes."""
        return math.sqrt(2) * float(ndtri(self.auc))

    @property
    def cases(self) -> str:
        kind = f" clusters of 1 to {self.largest}" if self.largest > 1 else ""
        return f"{self.positives:,} and {self.negatives:,}{kind}"

    def draw(self, generator: np.random.Generator) -> tuple[Floats, Floats, Labels, Labels]:
        """Scores of baseline and candidate, labels and clusters of one study. Cases of a cluster share their label and
        half of the variance of their scores."""
        count = self.positives + self.negatives
        sizes = generator.integers(1, self.largest + 1, count)
        clusters = np.repeat(np.arange(count), sizes)
        labels = np.repeat((np.arange(count) < self.positives).astype(np.int64), sizes)
        shared = 0.5 if self.largest > 1 else 0.0
        scores = math.sqrt(shared) * generator.normal(size=count)[clusters]
        scores = scores + math.sqrt(1 - shared) * generator.normal(size=len(labels)) + self.distance * labels
        return scores, self.change.apply(scores, labels, clusters, generator), labels, clusters

    def harmless(self, generator: np.random.Generator) -> tuple[Floats, Floats, Labels, Labels]:
        """The same with a candidate that is as good, its scores correlated by .99 with the baseline's."""
        scores, _, labels, clusters = self.draw(generator)
        apart = scores - self.distance * labels
        other = 0.99 * apart + math.sqrt(1 - 0.99**2) * generator.normal(size=len(scores))
        return scores, other + self.distance * labels, labels, clusters


def auc_loss(setting: Setting) -> float:
    """Of the population."""
    positive, negative = setting.change.mixtures(setting.distance)
    return setting.auc - _auc(positive, negative)


def _auc(positives: Mixture, negatives: Mixture) -> float:
    found = 0.0
    for weight, mean, spread in positives:
        for other, against, width in negatives:
            found += weight * other * float(ndtr((mean - against) / math.hypot(spread, width)))
    return found


def average_precision_loss(setting: Setting) -> float:
    """Of the population."""
    prevalence = setting.positives / (setting.positives + setting.negatives)
    before = Change("none").mixtures(setting.distance)
    after = setting.change.mixtures(setting.distance)
    return _average_precision(*before, prevalence) - _average_precision(*after, prevalence)


def _average_precision(positives: Mixture, negatives: Mixture, prevalence: float) -> float:
    scores = np.linspace(-30, 40, 400_001)
    found, alarms = (
        sum(weight * ndtr((mean - scores) / spread) for weight, mean, spread in part) for part in (positives, negatives)
    )
    precision = prevalence * found / np.maximum(prevalence * found + (1 - prevalence) * alarms, 1e-300)
    steps = -np.diff(found)
    sunk = 1 - float(steps.sum())  # lost positives come last, where the precision is the prevalence
    return float(((precision[1:] + precision[:-1]) / 2 * steps).sum()) + sunk * prevalence


def jackknife_upper(own: OwnLosses, influence: Floats) -> float:
    """What might be used instead for average precision: infinitesimal jackknife with Hall's transformation for skew
    (Annals of Statistics 1992) and Student's quantile."""
    parts = influence
    for clusters in own.clusters:
        parts = np.bincount(clusters, influence)
    variance = float(parts @ parts)
    if variance == 0:
        return own.loss
    skew = float((parts**3).sum()) / variance**1.5
    low = float(ndtri(0.05))
    if abs(skew) > 1e-9:
        low = 3 / skew * (float(np.cbrt(1 + skew * (low - skew / 6))) - 1)
    return own.loss - math.sqrt(variance) * low


def bounds(metric: str, study: tuple[Floats, Floats, Labels, Labels]) -> tuple[float, float, float]:
    """As seen, lost, and what others use: DeLong's or Obuchowski's for AUC, the jackknife for average precision."""
    before, after, labels, clusters = study
    kinds = [clusters] if len(np.unique(clusters)) < len(labels) else []
    if metric == "auc":
        own = auc_own_losses(before, after, labels, kinds)
        usual = s.roc_auc_difference(before, after, labels, clusters if kinds else None)
        other = math.inf if usual is None else -usual.low
    else:
        own = average_precision_own_losses(before, after, labels, kinds)
        other = jackknife_upper(own, precision_influence(before, labels) - precision_influence(after, labels))
    return loss_upper_bound(own, "as-seen"), loss_upper_bound(own, "lost"), other


def simulate(metric: str, setting: Setting, studies: int, seed: int) -> tuple[str, ...]:
    true = auc_loss(setting) if metric == "auc" else average_precision_loss(setting)
    generator = np.random.default_rng(seed)
    found = np.array([bounds(metric, setting.draw(generator)) for _ in range(studies)])
    failed = (found <= true).mean(axis=0)
    harmless = [bounds(metric, setting.harmless(generator)) for _ in range(max(50, studies // 10))]
    shown = np.percentile(np.array(harmless), 80, axis=0)
    return (
        setting.cases,
        f"{setting.auc:g}",
        setting.change.name,
        f"{true:.4f}",
        *(f"{share:.1%}" for share in failed),
        *(f"{margin:.4f}" for margin in shown[:2]),
    )


CASES = ((390, 234), (1000, 1000), (150, 5000), (100, 3000), (30, 3000), (8, 2000))
CLUSTERED = ((300, 125, 20), (250, 250, 4), (60, 60, 10), (20, 20, 20), (150, 3000, 5))


def ranking_settings() -> Iterator[Setting]:
    for auc in (0.9, 0.975, 0.995):
        for positives, negatives in CASES:
            for change in CHANGES:
                yield Setting(positives, negatives, auc, change)
    for positives, negatives, largest in CLUSTERED:
        for change in WHOLE:
            yield Setting(positives, negatives, 0.95, change, largest)


def table(metric: str, studies: int, pool: ProcessPoolExecutor) -> list[tuple[str, ...]]:
    settings = list(ranking_settings())
    waiting = [pool.submit(simulate, metric, one, studies, seed) for seed, one in enumerate(settings)]
    return [one.result() for one in waiting]


def crossed(cards: int, terminals: int, cases: int, noise: float, studies: int, seed: int) -> tuple[str, ...]:
    """Cases of cards at terminals, a tenth positive; the candidate's scores get noise of the card and of the terminal.
    The bound of cases alone, of cards alone and of both kinds."""
    generator = np.random.default_rng(seed)
    setting = Setting(cases // 10, cases - cases // 10, 0.95, Change("", 1, 1, noise=math.sqrt(2) * noise))
    true, failed = auc_loss(setting), np.zeros(3)
    for _ in range(studies):
        card, terminal = generator.integers(0, cards, cases), generator.integers(0, terminals, cases)
        labels = (generator.random(cases) < 0.1).astype(np.int64)
        before = generator.normal(size=cases) + setting.distance * labels
        after = before + noise * (generator.normal(size=cards)[card] + generator.normal(size=terminals)[terminal])
        for place, kinds in enumerate(((), (card,), (card, terminal))):
            failed[place] += loss_upper_bound(auc_own_losses(before, after, labels, kinds), "as-seen") <= true
    return f"{cases:,} of {cards} and {terminals}", f"{noise:g}", *(f"{share:.1%}" for share in failed / studies)


# ---------------------------------------------------------------------------------------------------- sample sizes


def power_of_share(changed: float, loss: float, margin: float, studies: int, seed: int) -> tuple[str, ...]:
    """Studies with as many cases as are said to be needed, of decisions of which a share changes."""
    generator, at_hand = np.random.default_rng(seed), 4000
    gained, lost = (round(at_hand * (changed + sign * loss) / 2) for sign in (-1, 1))
    changes = np.repeat([1.0, -1.0, 0.0], [gained, lost, at_hand - gained - lost])
    needed = cases_needed_of_share(changes, margin).as_seen
    if needed is None:
        raise ValueError(f"a loss of {loss} cannot be shown to be inside {margin}")
    share = (gained + lost + 1) / (at_hand + 1)
    drawn = generator.multinomial(needed, [(share - loss) / 2, (share + loss) / 2, 1 - share], size=studies)
    kept = [exact_bound(needed, int(gains), int(losses)) >= -margin for gains, losses, _ in drawn]
    return "share", f"{changed:.1%} change", f"{loss:g}", f"{margin:g}", f"{needed:,}", f"{np.mean(kept):.1%}"


def power_of_ranking(
    metric: str, setting: Setting, margin: float, unseen: Unseen, studies: int, seed: int
) -> tuple[str, ...]:
    """Studies of harmless candidates with the median of what twenty studies say is needed."""
    generator = np.random.default_rng(seed)
    own = auc_own_losses if metric == "auc" else average_precision_own_losses

    def draw(positives: int, negatives: int) -> OwnLosses:
        before, after, labels, clusters = replace(setting, positives=positives, negatives=negatives).harmless(generator)
        return own(before, after, labels, [clusters] if setting.largest > 1 else [])

    at_hand = [draw(setting.positives, setting.negatives) for _ in range(20)]
    found = [
        (needed, one) for one in at_hand if (needed := cases_needed_of_own_losses(one, unseen, margin).without_loss)
    ]
    times = float(np.median([needed / len(one.parts) for needed, one in found]))
    more = math.ceil(setting.positives * times), math.ceil(setting.negatives * times)
    kept = [loss_upper_bound(draw(*more), unseen) <= margin for _ in range(studies)]
    kind = f"{metric}, {unseen}, {setting.cases}"
    return kind, "all, slightly", "0", f"{margin:g}", f"{more[0]:,} and {more[1]:,}", f"{np.mean(kept):.1%}"


def powers(studies: int, pool: ProcessPoolExecutor) -> list[tuple[str, ...]]:
    shares = ((0.0, 0.0, 0.03), (0.01, 0.0, 0.02), (0.01, 0.004, 0.02), (0.05, 0.0, 0.02), (0.05, 0.01, 0.02))
    waiting = [pool.submit(power_of_share, *one, studies, seed) for seed, one in enumerate(shares)]
    slight, asked = CHANGES[0], []
    for metric in ("auc", "average_precision"):
        asked += [
            (metric, Setting(390, 234, 0.975, slight), 0.004, "as-seen"),
            (metric, Setting(390, 234, 0.975, slight), 0.02, "lost"),
            (metric, Setting(150, 5000, 0.95, slight), 0.01, "as-seen"),
            (metric, Setting(250, 250, 0.95, slight, 4), 0.004, "as-seen"),
        ]
    waiting += [pool.submit(power_of_ranking, *one, studies, seed) for seed, one in enumerate(asked)]
    return [one.result() for one in waiting]


# ---------------------------------------------------------------------------------------------------- shares


def clustered_share(clusters: int, largest: int, lost: float, whole: bool, studies: int, seed: int) -> tuple[str, ...]:
    """Of right decisions: a share `lost` becomes wrong, by cases or by whole clusters."""
    generator = np.random.default_rng(seed)
    failed, shown = 0, []
    for _ in range(studies):
        sizes = generator.integers(1, largest + 1, clusters)
        owner = np.repeat(np.arange(clusters), sizes)
        hurt = generator.random(clusters)[owner] < lost if whole else generator.random(len(owner)) < lost
        right = np.ones(len(owner), bool)
        found = paired_share_difference(right, right & ~hurt, [owner])
        failed += found is not None and -found.low <= lost
        shown.append(0.0 if found is None else -found.low)
    kind = "whole clusters" if whole else "single cases"
    return (
        f"{clusters} clusters of 1 to {largest}",
        f"{lost:.1%} of {kind}",
        f"{failed / studies:.1%}",
        f"{np.mean(shown):.4f}",
    )


# ---------------------------------------------------------------------------------------------------- calibration


def calibration(cases: int, slope: float, prevalence: float, studies: int, seed: int) -> tuple[str, ...]:
    """Probabilities whose logit is `slope` times too steep; coverage of the two-sided 95% interval of their error."""
    generator = np.random.default_rng(seed)
    middle = math.log(prevalence / (1 - prevalence))

    def draw(count: int) -> tuple[Floats, Floats]:
        logits = middle + 1.5 * generator.normal(size=count)
        return 1 / (1 + np.exp(-slope * logits)), 1 / (1 + np.exp(-logits))

    stated, true = draw(4_000_000)
    bins = np.clip((stated * 10).astype(int), 0, 9)
    error = float(np.abs(np.bincount(bins, stated - true, 10)).sum()) / len(stated)
    held = 0
    for index in range(studies):
        probabilities, chances = draw(cases)
        labels = (generator.random(cases) < chances).astype(np.int64)
        found = calibration_error_interval(probabilities, labels, samples=500, seed=index)
        held += found.low <= error <= found.high
    return f"{cases:,}", f"{prevalence:g}", f"{slope:g}", f"{error:.4f}", f"{held / studies:.1%}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--studies", type=int, default=2000, help="Simulated comparisons in each setting.")
    parser.add_argument(
        "--only", choices=("auc", "average_precision", "crossed", "power", "shares", "calibration", "limits", "classes")
    )
    parser.add_argument("--record", type=Path, help="Write the tables as JSON.")
    parser.add_argument("--workers", type=int, default=2)
    chosen = parser.parse_args()
    studies: int = chosen.studies
    tables: dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]] = {}
    with ProcessPoolExecutor(chosen.workers) as pool:
        for metric in ("auc", "average_precision"):
            if chosen.only in (None, metric):
                tables[f"{metric}: passed at the margin, {studies} studies"] = (COLUMNS, table(metric, studies, pool))
        if chosen.only in (None, "crossed"):
            crossings = [(500, 100, 5000, noise) for noise in (0.1, 0.5)] + [
                (2000, 20, 5000, noise) for noise in (0.1, 0.5)
            ]
            found = [pool.submit(crossed, *one, studies // 2, seed) for seed, one in enumerate(crossings)]
            tables["AUC, clusters of two kinds: passed at the margin"] = (
                ("cases of cards and terminals", "noise of each", "cases alone", "cards", "both"),
                [one.result() for one in found],
            )
        if chosen.only in (None, "power"):
            tables["power with the cases that are said to be needed: 80% promised"] = (
                ("bound", "change", "loss", "margin", "needed", "power"),
                powers(studies // 2, pool),
            )
        if chosen.only in (None, "shares"):
            settings = [
                (clusters, largest, lost, whole)
                for clusters, largest in ((425, 20), (200, 4), (60, 10), (30, 20))
                for lost, whole in ((0.02, False), (0.02, True), (0.1, True))
            ]
            waiting = [pool.submit(clustered_share, *one, studies // 4, seed) for seed, one in enumerate(settings)]
            tables["shares in clusters"] = (
                ("cases", "lost", "passed", "mean bound"),
                [one.result() for one in waiting],
            )
        if chosen.only in (None, "calibration"):
            asked = [
                (cases, slope, prevalence)
                for cases in (200, 600, 3000)
                for slope in (1.0, 1.2, 2.0)
                for prevalence in (0.5, 0.05)
            ]
            waiting = [pool.submit(calibration, *one, studies // 4, seed) for seed, one in enumerate(asked)]
            columns = ("cases", "prevalence", "slope", "true error", "held")
            tables["interval of the calibration error"] = (columns, [one.result() for one in waiting])
        if chosen.only in (None, "limits"):
            tables.update(simulate_all(studies // 2, pool))
        if chosen.only in (None, "classes"):
            tables.update(simulate_classes(studies // 2, pool))
    for title, (columns, rows) in tables.items():
        show(title, columns, rows)
    if chosen.record:
        earlier = known_tables(chosen.record) if chosen.only else {}
        record(chosen.record, {**earlier, **tables})


def known_tables(path: Path) -> dict[str, tuple[Sequence[str], Sequence[Sequence[str]]]]:
    """Of a record of which a part is simulated again."""
    known = json.loads(path.read_text())["tables"] if path.is_file() else {}
    return {title: (list(rows[0]), [list(row.values()) for row in rows]) for title, rows in known.items() if rows}


if __name__ == "__main__":
    main()
