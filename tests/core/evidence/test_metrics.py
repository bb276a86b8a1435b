"""The table of metrics and limits: it is the only place that knows one, and one seed stands behind all figures."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from jsonschema import Draft202012Validator
from sklearn.metrics import matthews_corrcoef

from featherweight.core.console import show_outcome
from featherweight.core.errors import LimitError, RecipeError
from featherweight.core.evidence import figures, metrics, subgroups
from featherweight.core.evidence.figures import BOUND_SAMPLES
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metric import Limit, Metric, Pair, Side, pair
from featherweight.core.evidence.metrics import AUC, BRIER_SCORE, Limits
from featherweight.core.evidence.predictions import Measured, Predictions
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports import json as document
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.html import render_html
from featherweight.core.evidence.reports.json import encode_evidence
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.optimize import Outcome, optimize
from featherweight.core.recipe import parse_recipe, render_recipe
from featherweight.core.statistics.intervals import Difference, Interval
from featherweight.core.statistics.resampling import lowest_percentile, percentile_interval
from featherweight.core.task import Alerts
from tests.core import evidence_cases as made
from tests.fakes import SquaresTask

ROOT = Path(__file__).parents[3]
SCHEMA = json.loads((Path(document.__file__).parent / "evidence.schema.json").read_text())


# ------------------------------------------------------------------------------------------ a metric is one entry


def _of_counts(counts: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """Matthews' correlation of [rows, (label, decision)] counts."""
    tn, fp, fn, tp = counts.reshape(-1, 4).astype(np.float64).T
    product = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return np.asarray((tp * tn - fp * fn) / np.sqrt(np.maximum(product, 1)))


def _draws(both: Pair) -> dict[Side, npt.NDArray[np.float64]]:
    """Of both programs [1 + samples], the cases themselves first; drawn class by class."""
    generator, before, after = np.random.default_rng(both.seed), both.baseline, both.candidate
    rows = []
    for label in (0, 1):
        mine = before.labels == label
        cells = np.bincount(2 * before.decisions[mine] + after.decisions[mine], minlength=4)
        drawn = generator.multinomial(mine.sum(), cells / max(1, mine.sum()), size=both.samples)
        rows.append(np.concatenate([cells[None], drawn]).reshape(-1, 2, 2))
    table = np.stack(rows, axis=1)  # [rows, label, decision before, decision after]
    return {"baseline": _of_counts(table.sum(axis=3)), "candidate": _of_counts(table.sum(axis=2))}


def _estimate(of: Predictions) -> float | None:
    found = of.confusion
    counts = [found.true_negatives, found.false_positives, found.false_negatives, found.true_positives]
    return float(_of_counts(np.array(counts))[0])


def _interval(both: Pair, side: Side) -> Interval | None:
    drawn = _draws(both)[side]
    return percentile_interval(float(drawn[0]), drawn[1:])


def _difference(both: Pair) -> Difference | None:
    drawn = _draws(both)
    return lowest_percentile(drawn["candidate"] - drawn["baseline"])


MATTHEWS = Metric(
    name="matthews_correlation",
    title="Matthews' correlation",
    phrase="Matthews' correlation",
    unit="from -1 to 1",
    reads="decisions",
    labels=metrics.BINARY,
    estimate=_estimate,
    interval=_interval,
    difference=_difference,
    method=lambda of, samples: f"percentiles of {samples:,} bootstrap resamples of the cases, class by class",
    limit=Limit("matthews_loss", "loss", "Loss of Matthews' correlation"),
)


@pytest.fixture
def _matthews() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(metrics, "METRICS", (*metrics.METRICS, MATTHEWS))
        clear()
        yield
    clear()


def clear() -> None:
    """Nothing is remembered from another table or seed."""
    for cached in (figures.compare, pair, subgroups.compare_subgroups):
        cached.cache_clear()


RECIPE = """
version = 1
name = "squares"
seed = 11
[source]
task = "squares"
[[step]]
kind = "prune-weights"
sparsity = 0.9
[measure]
backends = ["onnxruntime"]
repetitions = 5
[limits]
matthews_loss = 0.001
"""


@pytest.mark.usefixtures("_matthews")
def test_a_new_metric_is_one_entry_from_recipe_to_console(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = parse_recipe(RECIPE)
    assert parse_recipe(render_recipe(recipe)) == recipe
    assert "matthews_loss = 0.001" in render_recipe(recipe)
    with pytest.raises(RecipeError, match=r'limits.mathews_loss.*did you mean "matthews_loss"'):
        parse_recipe(RECIPE.replace("matthews_loss", "mathews_loss"))
    with pytest.raises(RecipeError, match=r"limits.matthews_loss: found 7.0, expected a number from 0 to 1"):
        parse_recipe(RECIPE.replace("0.001", "7"))
    with pytest.raises(LimitError, match=r"nearest of 1: c1 .*Matthews' correlation fell by"):
        optimize(recipe, SquaresTask(), tmp_path / "refused", work=tmp_path / "work")
    outcome = optimize(recipe, SquaresTask(), tmp_path / "artifact", work=tmp_path / "work", force=True)
    told = json.loads(outcome.artifact.evidence["evidence.json"])
    assert [fault.message for fault in Draft202012Validator(SCHEMA).iter_errors(told)] == []
    assert told["limits"]["matthews_loss"] == 0.001
    (check,) = told["validation"]["checks"]
    assert (check["name"], check["status"]) == ("matthews_loss", "failed")
    part = outcome.evidence.validation
    gain = told["validation"]["differences"]["matthews_correlation"]
    assert check["found"] == pytest.approx(-gain["low"], abs=1e-5)
    assert gain["low"] < gain["estimate"] < 0
    for side, program in (("baseline", part.baseline.predictions), ("candidate", part.candidate.predictions)):
        found = told["validation"][side]["metrics"]["matthews_correlation"]
        assert found["estimate"] == pytest.approx(matthews_corrcoef(program.labels, program.decisions), abs=1e-5)
        assert found["low"] <= found["estimate"] <= found["high"]
    assert "class by class" in told["method"]["figures"]["matthews_correlation"]
    page = outcome.artifact.evidence["evidence.html"].decode()
    for text in ("Loss of Matthews&#39; correlation", "Matthews&#39; correlation fell by", "≤ 0.0010"):
        assert text in page
    assert "| Loss of Matthews' correlation | 0.0010 |" in outcome.artifact.documents["CHANGE_RECORD.md"].decode()
    assert "| matthews correlation | " in render_figures(outcome.evidence)
    show_outcome(outcome)
    shown = " ".join(capsys.readouterr().out.split())
    assert "missed matthews_loss" in shown
    assert "matthews_loss on the validation cases: Matthews' correlation fell by" in shown


@pytest.mark.usefixtures("_matthews")
def test_a_new_metric_is_compared_in_the_groups_and_drawn_there() -> None:
    limits = Limits(matthews_loss=0.2)
    before, after = (made.costly(one, 0.4) for one in (made.baseline(1), made.candidate(1, 0.3)))
    part = Comparison("validation", before, after, judge(before, after, limits, seed=3))
    evidence = Evidence("x", "2026-01-31T12:00:00Z", limits, part, None, (), seed=3, bootstrap_samples=200)
    rows = json.loads(encode_evidence(evidence))["validation"]["subgroups"]["rows"]
    assert all("matthews_correlation" in {one["name"] for one in row["figures"]} for row in rows)
    assert "Difference of Matthews&#39; correlation in each group of cases" in render_html(evidence)
    assert "Matthews' correlation" in render_change_record(evidence)


def test_without_its_entry_nobody_knows_it() -> None:
    with pytest.raises(RecipeError, match=r"limits.matthews_loss: unknown key"):
        parse_recipe(RECIPE)
    with pytest.raises(TypeError, match="no limit matthews_loss; known: auc_loss, "):
        Limits(matthews_loss=0.1)


# ------------------------------------------------------------------------------------------ the table


def test_names_are_told_apart_and_every_loss_can_be_judged() -> None:
    for names in ([one.name for one in metrics.METRICS], list(metrics.limits())):
        assert len(set(names)) == len(names)
    assert len(metrics.limits()) == sum(one.limit is not None and one.limit.in_recipes for one in metrics.METRICS) > 0
    for name, (metric, limit) in metrics.limits().items():
        assert metric.limit is limit
        assert limit.name == name
        # By its paired difference, by a judge of its own, or as another's in every group.
        assert [metric.is_compared, limit.judge is not None, metric.whole is not None].count(True) == 1
        assert limit.kind == "loss" or limit.judge is not None
    for metric in (*metrics.figures("binary"), *metrics.figures("multi-class")):
        assert metric.method is not None
    for metric in metrics.METRICS:
        assert not metric.each & metric.labels


def test_estimates_are_the_middle_of_their_intervals() -> None:
    alerts = Alerts(np.arange(624) % 5, np.ones(624, bool), per_day=20)
    before, after = (
        replace(one.predictions, clusters=np.arange(624) // 4, alerts=alerts)
        for one in (made.baseline(1), made.candidate(1))
    )
    both, seen = Pair(before, after, 100, 0), 0
    for metric in metrics.figures("binary"):
        for side in ("baseline", "candidate"):
            assert metric.interval is not None
            found = metric.interval(both, side)
            assert found is not None
            assert found.low <= found.estimate <= found.high
            if metric.estimate is not None:
                assert metric.estimate(both.side(side)) == pytest.approx(found.estimate, abs=1e-12)
                seen += 1
        if metric.is_compared:
            gain, estimates = (
                both.difference(metric, "as-seen"),
                [metric.interval(both, side) for side in ("baseline", "candidate")],
            )
            assert gain is not None
            change = estimates[1].estimate - estimates[0].estimate  # type: ignore[union-attr]
            assert gain.estimate == pytest.approx(change if metric.direction == "higher" else -change, abs=1e-12)
    assert seen == 16


def test_a_metric_is_not_judged_on_labels_that_it_is_not_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "METRICS", (replace(AUC, labels=frozenset({"regression"})), *metrics.METRICS[1:]))
    clear()
    before, after = made.baseline(1), made.candidate(1)
    auc, flips = judge(before, after, Limits(auc_loss=0.1, flip_ratio_max=0.1), seed=0)
    assert (auc.status, auc.found, auc.explanation) == ("not measured", None, "AUC is not for binary labels.")
    assert flips.status == "passed"
    found = figures.compare(before.predictions, after.predictions, samples=50, seed=0)
    assert "auc" not in found.candidate.metrics
    assert "accuracy" in found.candidate.metrics
    clear()


def test_a_loss_of_a_metric_of_which_less_is_better_is_told_the_right_way_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limited = replace(BRIER_SCORE, limit=Limit("brier_loss", "loss", "Loss of the Brier score"))
    table = tuple(limited if one is BRIER_SCORE else one for one in metrics.METRICS)
    monkeypatch.setattr(metrics, "METRICS", table)
    clear()
    right = made.baseline(1)
    wrong = replace(right.predictions, probabilities=1 - right.predictions.probabilities)  # type: ignore[operator]
    worse = Measured("worse", made.grouped(wrong))
    right = replace(right, predictions=made.grouped(right.predictions))
    (check,) = judge(right, worse, Limits(brier_loss=0.1), seed=0)
    assert check.status == "failed"
    assert check.explanation.startswith("Brier score rose by")
    assert check.seen is not None
    assert check.seen > 0.1
    found = subgroups.compare_subgroups(right.predictions, worse.predictions, Limits(brier_loss=0.1), seed=0)
    assert {one.status for row in found.rows for one in row.figures if one.name == "brier_score"} == {"shown worse"}
    clear()


def test_no_code_but_the_table_knows_a_limit_by_its_name() -> None:
    """Nor asks how a name begins or ends."""
    names = "|".join(["_loss", "_ratio_min", "_ratio_max", *metrics.limits()])
    quoted = re.compile(rf"""["'}}](?:{names})["']""")
    sources = [path for room in ("core", "apps") for end in ("*.py", "*.j2") for path in (ROOT / room).rglob(end)]
    found = [str(path.relative_to(ROOT)) for path in sources if quoted.search(path.read_text())]
    # The examples of `compare` name one, doors propose some to who states none; the others are parts of the table.
    choosing = ["core/api/comparing.py", "core/compare/comparison.py", "core/doors/limits.py"]
    entries = [f"core/evidence/{name}.py" for name in ("absolute", "class_metrics", "metrics", "running")]
    assert sorted(found) == [*choosing, *entries]


def test_the_documented_table_is_the_table() -> None:
    text = (ROOT / "docs/evidence.md").read_text().split("## Metrics and limits")[1].split("\n## ")[0]
    rows = [
        [cell.strip(" `") for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("| `")
    ]
    assert rows == [
        [
            one.name,
            one.title,
            one.unit,
            one.direction,
            one.limit.name if one.limit else "",
            ", ".join(sorted(one.labels)) + (f"; each class of {', '.join(sorted(one.each))}" if one.each else ""),
        ]
        for one in metrics.METRICS
    ]


# ------------------------------------------------------------------------------------------ one seed


@dataclass(frozen=True)
class Recorder:
    """Seeds of the random generators that modules of these packages make."""

    seeds: list[tuple[str, Any]]
    packages = ("core.evidence", "core.statistics", "core.search", "core.sealing", "core.optimize", "core.parity")

    def install(self, patch: pytest.MonkeyPatch) -> None:
        plain = np.random.default_rng

        def noted(seed: Any = None) -> np.random.Generator:
            module = str(sys._getframe(1).f_globals["__name__"])
            if module.startswith(tuple(f"featherweight.{package}" for package in self.packages)):
                self.seeds.append((module, seed))
            return plain(seed)

        patch.setattr(np.random, "default_rng", noted)


SEEDED = """
version = 1
name = "squares"
seed = 11
[source]
task = "squares"
[[step]]
kind = "prune-weights"
sparsity = [0.2, 0.3]
[measure]
backends = ["onnxruntime"]
repetitions = 5
[limits]
average_precision_loss = 0.5
latency_ratio_min = 0.01
"""


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Outcome, list[tuple[str, Any]]]:
    folder, recorder = tmp_path_factory.mktemp("seeded"), Recorder([])
    clear()
    with pytest.MonkeyPatch.context() as patch:
        recorder.install(patch)
        outcome = optimize(parse_recipe(SEEDED), SquaresTask(), folder / "artifact", work=folder / "work")
    return outcome, recorder.seeds


def test_the_seed_of_the_recipe_is_the_one_seed_of_a_whole_run(
    seeded: tuple[Outcome, list[tuple[str, Any]]],
) -> None:
    outcome, seeds = seeded
    assert json.loads(outcome.artifact.evidence["evidence.json"])["method"]["seed"] == 11
    # Draws that must not be the same draw have a number beside the seed.
    firsts = {seed[0] if isinstance(seed, list) else seed for _, seed in seeds}
    assert firsts == {11}, sorted({(module, repr(seed)) for module, seed in seeds})
    assert {"featherweight.core.statistics.resampling"} <= {module for module, _ in seeds}


def test_the_stated_seed_alone_gives_every_figure_again(seeded: tuple[Outcome, list[tuple[str, Any]]]) -> None:
    outcome, _ = seeded
    sealed = outcome.artifact.evidence["evidence.json"]
    stated = json.loads(sealed)["method"]

    def again(seed: int) -> Evidence:
        """From raw samples and predictions, with nothing remembered."""
        clear()
        raw = outcome.evidence
        assert raw.test is not None
        parts = [
            replace(part, checks=judge(part.baseline, part.candidate, raw.limits, seed=seed))
            for part in (raw.validation, raw.test)
        ]
        parity = [check for check in raw.validation.checks if check.metric is metrics.PARITY]
        validation = replace(parts[0], checks=(*parts[0].checks, *parity))
        samples = stated["bootstrap_samples"]
        return replace(raw, validation=validation, test=parts[1], seed=seed, bootstrap_samples=samples)

    assert encode_evidence(again(stated["seed"])) == sealed
    assert render_html(again(stated["seed"])).encode() == outcome.artifact.evidence["evidence.html"]
    # Of a few samples two seeds may draw the same percentiles.
    others = (encode_evidence(again(seed)).replace(b'"seed": %d' % seed, b'"seed": 11') for seed in range(12, 24))
    assert any(other != sealed for other in others), "no figure was drawn with the seed"


@pytest.mark.parametrize("limits", [Limits(average_precision_loss=0.1), Limits(auc_loss=0.1, latency_ratio_min=2)])
def test_every_draw_of_the_groups_the_page_and_the_record_has_the_stated_seed(
    limits: Limits, monkeypatch: pytest.MonkeyPatch
) -> None:
    clear()
    alerts = Alerts(np.arange(624) % 5, np.ones(624, bool), per_day=20)
    before, after = (
        replace(one, predictions=replace(made.grouped(one.predictions), clusters=np.arange(624) // 4, alerts=alerts))
        for one in (made.baseline(1), made.candidate(1))
    )
    recorder = Recorder([])
    recorder.install(monkeypatch)
    part = Comparison("validation", before, after, judge(before, after, limits, seed=7))
    evidence = Evidence("x", "2026-01-31T12:00:00Z", limits, part, None, (), seed=7, bootstrap_samples=50)
    for render in (encode_evidence, render_html, render_change_record, render_figures):
        render(evidence)
    assert {seed for _, seed in recorder.seeds} == {7}
    assert BOUND_SAMPLES == 2000
    clear()
