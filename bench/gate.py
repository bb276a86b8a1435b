"""How good the gate is, beside what others' gates would say: planted faults of scores, each of them judged on three
draws of the cases by every gate.

    python -m bench.gate [--seeds 3] [--recipe FILE]... [--record bench/results/gate.json]
    python -m bench.gate --programs core/evidence/program_faults.json

The second puts programs that are really broken (`tests.planted_programs`) through the gate, and writes what the pages
of evidence quote.

The gates:

* ours: the limits of the recipe, by `core.evidence.judge`;
* accuracy, 0.01: the accuracy falls by no more than 0.01, as NNCF's `quantize_with_accuracy_control` asks by default
  (`max_drop=0.01`, absolute);
* accuracy, 1%: it falls by no more than 1% of itself, as Intel Neural Compressor asks by default
  (`tolerable_loss=0.01`, relative);
* ranking, 0.01: the same of the figure of the ranking that the recipe limits (AUC or average precision), which their
  users may hand over in its place;
* DeLong: the one-sided 95% bound of the difference of the AUC by DeLong's variance (by Obuchowski's with clusters),
  against the recipe's margin of the ranking;
* estimate: the recipe's limits, without any bound.

The cases are drawn: 1,500 images of 700 patients, and 3,000 transactions of cards with a desk of alerts. --recipe adds
those of a recipe whose model is trained: its own limits, on the baseline's answers on its validation cases; no test
case is judged, and in the place of other cases other seeds choose faults and draws. A fault counts whose true harm to
these cases is beyond a limit of the recipe.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from bench.timing import record, show
from featherweight.core.backends.opening import installed_version
from featherweight.core.backends.registry import DEFAULT, find_backend
from featherweight.core.evidence.class_predictions import predictions_on
from featherweight.core.evidence.judge import all_passed
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import ACCURACY, AUC, AVERAGE_PRECISION, METRICS, Limits
from featherweight.core.evidence.planted_result import GateTrial
from featherweight.core.evidence.planted_trial import Refuses, true_loss, try_gate
from featherweight.core.evidence.predictions import Predictions
from featherweight.core.evidence.program_faults import AppFaults, ProgramFaults
from featherweight.core.recipe import read_recipe
from featherweight.core.request import open_task
from featherweight.core.search.candidates import CandidateBuilder
from featherweight.core.search.measurements import run_scores
from featherweight.core.statistics import intervals as s
from featherweight.core.task import Alerts, Outcomes

IMAGES = Limits(auc_loss=0.01, sensitivity_loss=0.05, specificity_loss=0.05, flip_ratio_max=0.05)
CARDS = Limits(average_precision_loss=0.02, card_precision_loss=0.06, flip_ratio_max=0.01)
"""Of card precision six of the 100 alerts: with one that changed, and one that was not seen, four would be too few."""
COLUMNS = (
    "gate",
    "faults beyond a limit",
    "passed at least once",
    "passed in most draws",
    "judgements that passed",
    "of those just beyond",
    "harmless refused",
)


def images(seed: int, cases: int = 1500) -> Predictions:
    """Patients of one image and more; of two sites and three devices."""
    generator = np.random.default_rng([seed, 1])
    patients = np.sort(generator.integers(0, cases // 2, cases))
    labels = (generator.random(cases // 2) < 0.4).astype(np.int64)[patients]
    own, shared = generator.normal(size=cases), generator.normal(size=cases // 2)[patients]
    groups = {
        "site": np.array(["north", "south"])[(generator.random(cases) < 0.2).astype(int)],
        "device": np.array(["A", "B", "C"])[generator.integers(0, 3, cases)],
    }
    return _predictions(0.7 * (own + shared) + 3 * labels - 1.5, labels, 0.2, groups, patients)


def cards(seed: int, cases: int = 3000) -> Predictions:
    """Transactions of cards, 5% fraud, of three bands of amounts, with a desk of alerts."""
    generator = np.random.default_rng([seed, 2])
    fraud = generator.random(cases) < 0.05
    card = np.where(fraud, generator.integers(0, 120, cases), 120 + generator.integers(0, 1200, cases))
    scores = generator.normal(size=cases) + 3.5 * fraud - 3
    groups = {"amount band": np.array(["low", "middle", "high"])[generator.choice(3, cases, p=[0.6, 0.3, 0.1])]}
    alerts = Alerts(np.arange(cases) * 5 // cases, np.ones(cases, bool), 20)
    found = _predictions(scores, fraud.astype(np.int64), -0.7, groups, card, alerts)
    return replace(found, outcomes=Outcomes(("approve", "review", "decline"), (-0.7, 0.8)))


def _predictions(
    scores: np.ndarray,
    labels: np.ndarray,
    threshold: float,
    groups: Mapping[str, np.ndarray],
    clusters: np.ndarray,
    alerts: Alerts | None = None,
) -> Predictions:
    ids = tuple(f"case {index}" for index in range(len(labels)))
    return Predictions(ids, labels, scores, threshold, 1 / (1 + np.exp(-1.5 * scores)), groups, clusters, alerts)


APPS: dict[str, tuple[Callable[[int], Predictions], Limits]] = {"images": (images, IMAGES), "cards": (cards, CARDS)}


def others(limits: Limits) -> dict[str, Refuses | None]:
    """Name -> the gate; None is ours."""
    ranking = next(metric for metric in (AUC, AVERAGE_PRECISION) if limits.of(metric) is not None)
    return {
        "ours": None,
        "accuracy, 0.01 (NNCF)": lambda before, after: _drop(ACCURACY, before, after) > 0.01,
        "accuracy, 1% (Neural Compressor)": lambda before, after: (
            _drop(ACCURACY, before, after) > 0.01 * (_estimate(ACCURACY, before))
        ),
        "the ranking's figure, 0.01": lambda before, after: _drop(ranking, before, after) > 0.01,
        "DeLong alone": lambda before, after: _delong(before, after, limits),
        "the limits without bounds": lambda before, after: _beyond_as_seen(before, after, limits),
    }


def _estimate(metric: Metric, of: Predictions) -> float:
    found = None if metric.estimate is None else metric.estimate(of)
    return 0.0 if found is None else found


def _drop(metric: Metric, before: Predictions, after: Predictions) -> float:
    return _estimate(metric, before) - _estimate(metric, after)


def _delong(before: Predictions, after: Predictions, limits: Limits) -> bool:
    margin = limits.of(AUC) or limits.of(AVERAGE_PRECISION) or 0.0
    found = s.roc_auc_difference(before.scores, after.scores, before.labels, before.clusters)
    return found is None or -found.low > margin


def _beyond_as_seen(before: Predictions, after: Predictions, limits: Limits) -> bool:
    for metric in METRICS:
        limit, rule = limits.of(metric), metric.limit
        if limit is None or rule is None or metric.reads == "running":
            continue
        loss = true_loss(metric, rule, limits, before, after)
        if loss is not None and loss > limit:
            return True
    return False


def row(gate: str, trials: Sequence[GateTrial]) -> tuple[str, ...]:
    faults = [one for trial in trials for one in trial.beyond]
    near = [one for trial in trials for one in trial.just_beyond]
    passed, judged = sum(one.draws - one.refused for one in faults), sum(one.draws for one in faults)
    close, of = sum(one.draws - one.refused for one in near), sum(one.draws for one in near)
    refused, harmless = (sum(getattr(one, name) for one in trials) for name in ("false_refusals", "harmless_draws"))
    return (
        gate,
        f"{len(faults)}",
        f"{sum(one.refused < one.draws for one in faults)}",
        f"{sum(2 * one.refused < one.draws for one in faults)}",
        f"{passed} of {judged} ({passed / judged:.1%})",
        f"{close} of {of} ({close / of:.0%})",
        f"{refused} of {harmless} ({refused / harmless:.0%})",
    )


Rows = list[tuple[str, ...]]
Tables = dict[str, tuple[Sequence[str], Rows]]


def of_recipe(path: Path) -> tuple[str, Predictions, Limits]:
    """The recipe's name, its baseline's answers on the validation cases, and its limits on answers."""
    recipe = read_recipe(path)
    task = open_task(recipe.source)
    cases, sealed = task.validation_cases(), task.seal_unchanged()
    with tempfile.TemporaryDirectory() as work:
        program = CandidateBuilder(task, recipe, Path(work)).baseline()
        with find_backend(DEFAULT).open(program) as session:
            scores = run_scores(session, cases, task)
    found = predictions_on(cases, scores, task.positive_threshold, sealed.probability, sealed.outcomes)
    return recipe.name, found, recipe.limits


def _the_same(answers: Predictions, seed: int) -> Predictions:
    return answers


def compare_gates(app: str, cases: Callable[[int], Predictions], limits: Limits, seeds: int) -> tuple[Tables, Rows]:
    """The table of all gates, and what ours let through."""
    rows: Rows = []
    through: Rows = []
    for gate, refuses in others(limits).items():
        trials = []
        for seed in range(seeds):
            found = try_gate(cases(seed), limits, seed=seed, refuses=refuses)
            if not isinstance(found, GateTrial):
                raise SystemExit(f"{app}: {found.reason}")
            trials.append(found)
        rows.append(row(gate, trials))
        if refuses is None:
            through += [
                (app, str(seed), one.name, one.limit, f"{one.times:.2f}", f"{one.refused} of {one.draws}")
                for seed, trial in enumerate(trials)
                for one in trial.found("let through")
            ]
    return {f"{app}: planted faults, {seeds} sets of cases, 3 to 6 draws of each": (COLUMNS, rows)}, through


def try_programs(seeds: int) -> ProgramFaults:
    """Every broken program of `tests.planted_programs`, on cases of so many seeds."""
    from tests import planted_programs as planted

    apps = []
    for app, faults in planted.APPS.items():
        passed: list[str] = []
        honest = 0
        for drawn in range(seeds):
            with tempfile.TemporaryDirectory() as work:
                gate = planted.open_app(app, drawn, Path(work))
                honest += not all_passed(gate.judge(gate.built.program))
                passed += [
                    name
                    for name, (into, fault) in faults.items()
                    if not planted.refused(gate, gate.plant(fault, into=into))
                ]
                passed += [
                    name for name, shift in planted.SHIFTS.items() if all_passed(planted.judge_shifted(gate, shift))
                ]
        number = len(faults) + len(planted.SHIFTS)
        apps.append(
            AppFaults(
                app={"network": "networks", "trees": "tree ensembles"}[app],
                faults=number,
                seeds=seeds,
                judged=number * seeds,
                refused=number * seeds - len(passed),
                honest_judged=seeds,
                honest_refused=honest,
                passed=tuple(sorted(set(passed))),
            )
        )
    return ProgramFaults(
        featherweight=installed_version("featherweight"),
        command="python -m bench.gate --programs core/evidence/program_faults.json",
        date=datetime.now(UTC).date().isoformat(),
        apps=tuple(apps),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--seeds", type=int, default=3, help="Sets of cases that are drawn.")
    parser.add_argument("--recipe", type=Path, action="append", default=[], help="Also on its validation cases.")
    parser.add_argument("--record", type=Path, help="Write the tables as JSON.")
    parser.add_argument("--programs", type=Path, help="Judge broken programs only, and write what was found as JSON.")
    chosen = parser.parse_args()
    if chosen.programs:
        found = try_programs(chosen.seeds)
        chosen.programs.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
        print(found.describe())
        return
    tables: Tables = {}
    through: Rows = []
    apps = dict(APPS)
    for path in chosen.recipe:
        name, answers, limits = of_recipe(path)
        apps[f"{name} ({len(answers.ids):,} validation cases)"] = partial(_the_same, answers), limits
    for app, (cases, limits) in apps.items():
        table, passed = compare_gates(app, cases, limits, chosen.seeds)
        through += passed
        for title, (columns, rows) in table.items():
            tables[title] = (columns, rows)
            show(title, columns, rows)
    columns = ("app", "set", "fault", "limit", "times the limit", "refused")
    tables["what our gate let through at least once"] = (columns, through)
    show("what our gate let through at least once", columns, through)
    if chosen.record:
        record(chosen.record, tables)


if __name__ == "__main__":
    main()
