"""How long the evidence of a comparison takes, in one process: every figure with its interval, the paired differences,
the bands, the subgroups, and the JSON and the page. The cases are synthetic.

    python -m bench.evidence [--cases 10000] [--samples 2000] [--record bench/results/evidence.json]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench.timing import record, show
from featherweight.core.evidence import figures, metric, subgroups
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison, Evidence, compared
from featherweight.core.evidence.report import subgroups as tabulated
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.statistics import paired
from featherweight.core.task import Alerts

LIMITS = Limits(
    auc_loss=0.01, average_precision_loss=0.01, sensitivity_loss=0.02, specificity_loss=0.02, flip_ratio_max=0.05
)
COLUMNS = ("stage", "seconds")


def comparison(cases: int, positives: float, *, clustered: bool) -> Comparison:
    """A classifier and one that is nearly as good; five columns of groups. clustered: transactions of cards, with a
    desk that looks at 100 a day."""
    generator = np.random.default_rng(0)
    labels = (generator.random(cases) < positives).astype(np.int64)
    scores = generator.normal(size=cases) + 2 * labels
    names = {"site": 4, "device": 3, "sex": 2, "age band": 6, "kind": 12}
    groups = {name: np.array([f"{i}" for i in range(n)])[generator.integers(0, n, cases)] for name, n in names.items()}
    clusters = alerts = None
    if clustered:
        clusters = np.where(labels == 1, generator.integers(0, 150, cases), generator.integers(0, 5000, cases))
        alerts = Alerts(generator.integers(0, 7, cases), np.ones(cases, bool), 100)
    ids = tuple(f"case {index}" for index in range(cases))
    before = Predictions(ids, labels, scores, 1.0, 1 / (1 + np.exp(-scores)), groups, clusters, alerts)
    changed = scores + 0.05 * generator.normal(size=cases)
    after = replace(before, scores=changed, probabilities=1 / (1 + np.exp(-changed)))
    one, other = Measured("baseline", before), Measured("candidate", after)
    return Comparison("test", one, other, ())


def stages(cases: int, positives: float, samples: int, *, clustered: bool) -> list[tuple[str, float]]:
    """Each stage with its seconds; later ones find what earlier ones have computed, as in a run."""
    for cached in (figures.compare, metric.pair):
        cached.cache_clear()
    for other in (paired.exact_bound, paired.exact_p_value, subgroups.compare_subgroups):
        other.cache_clear()
    part = comparison(cases, positives, clustered=clustered)
    evidence = Evidence("made up", "2026-01-31T12:00:00Z", LIMITS, part, part, (), bootstrap_samples=samples)
    found = []

    def timed(name: str, action: Callable[[], object]) -> None:
        start = time.perf_counter()
        action()
        found.append((name, time.perf_counter() - start))

    timed("limits judged", lambda: judge(part.baseline, part.candidate, LIMITS, seed=0))
    timed("figures, differences and bands", lambda: compared(evidence, part))
    timed("subgroups", lambda: tabulated(evidence, part))
    timed("evidence.json", lambda: encode_evidence(evidence))
    timed("evidence.html", lambda: render_html(evidence))
    return [*found, ("all", sum(seconds for _, seconds in found))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--samples", type=int, default=2_000)
    parser.add_argument("--record", type=Path)
    arguments = parser.parse_args()
    tables = {}
    for title, share, clustered in (
        ("images, 40% positive", 0.4, False),
        ("transactions of cards, 0.7% fraud", 0.007, True),
    ):
        rows = stages(arguments.cases, share, arguments.samples, clustered=clustered)
        name = f"{title}: {arguments.cases:,} cases, {arguments.samples:,} resamples"
        tables[name] = (COLUMNS, [[stage, f"{seconds:.2f}"] for stage, seconds in rows])
        show(name, *tables[name])
    if arguments.record:
        record(arguments.record, tables)


if __name__ == "__main__":
    main()
