"""The one place where test cases are looked at: what is checked before, written down around it, and told afterwards."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from featherweight.core.errors import DataError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.enough import check_cases_suffice
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.evidence.reports.copies import write_copies
from featherweight.core.evidence.runtime_figures import RuntimeFigures
from featherweight.core.recipe import Measure, Recipe, describe
from featherweight.core.record.chain import Chain, read_chain
from featherweight.core.record.plan import Margin, Plan, PlanFollowed, plan_differences, read_plan
from featherweight.core.record.splits import SplitsFound, check_apart, compare_splits, mark_known, without_copies
from featherweight.core.record.uses import Begun, CaseUses, History, Verdict, begin_use, check_record, end_use, now
from featherweight.core.search.trial import Evaluator, Trial
from featherweight.core.task import HeldOut, KeepsFirstModel, Task, check_held_out
from featherweight.core.terminal import counted


@dataclass(frozen=True)
class LookRequest:
    """record: the file of uses; plan: a file of `featherweight evidence plan`; show: tell the figures of test cases on
    which limits were missed; anyway: though the cases are too few to show that the limits are kept."""

    record: Path
    plan: Path | None = None
    show: bool = False
    anyway: bool = False


@dataclass(frozen=True)
class Look:
    """What one look at the test cases gave."""

    trial: Trial
    test: Comparison
    runtimes: tuple[RuntimeFigures, ...]
    uses: CaseUses
    chain: Chain | None


@dataclass(frozen=True)
class Looks:
    """What is known before any test case is run."""

    recipe: Recipe
    request: LookRequest
    artifact: str
    splits: SplitsFound
    plan: PlanFollowed | None
    chain: Chain | None

    def look(self, bench: Evaluator, best: Trial, *, forced: bool) -> Look:
        """Run the test cases for the chosen candidate. That they are used is on the disk before, and what came of it
        before it is returned. forced: whether it is sealed though it misses limits. Raises as `Evaluator.report`
        does."""
        begun = self._begin(best, forced=forced)
        try:
            trial, test, runtimes = bench.report(best, begun.cases)
            chain = None if self.chain is None else replace(self.chain, direct=self._direct(bench.task, test))
        except BaseException as error:
            if isinstance(error, Exception):
                end_use(self.request.record, begun, "could not be run")
            raise
        missed = [check.name for check in test.checks if check.status != "passed"]
        before = [check.name for check in best.checks if check.status != "passed"]
        is_forced = forced and bool(missed or before)
        verdict: Verdict = "forced" if is_forced else "missed" if missed else "kept"
        uses = end_use(self.request.record, begun, verdict, missed, forced=is_forced, missed_before=before)
        return Look(trial, test, runtimes, uses, chain)

    def _direct(self, task: Task, test: Comparison) -> dict[str, float | None]:
        """Limit -> bound of the loss against the first model, on the same cases; none where the task does not have its
        scores. Raises DataError for scores of other cases."""
        if not isinstance(task, KeepsFirstModel):
            return {}
        scores, threshold = task.first_scores()
        before = test.baseline.predictions
        places = np.arange(len(scores)) if test.places is None else np.array(test.places)
        if len(scores) <= places.max(initial=-1) or len(places) != len(before.ids):
            raise DataError(
                f"the first model's scores are {len(scores)} for {counted(len(before.ids), 'test cases')}, expected "
                "one for each"
            )
        first = replace(
            before,
            scores=np.asarray(scores, np.float64)[places],
            threshold=threshold,
            probabilities=None,
            outcomes=None,
        )
        asked: dict[str, Any] = {name: limit for name, limit in self.recipe.limits.items() if name in _loss_limits()}
        limits = self.recipe.limits
        losses = Limits(
            unseen_case=limits.unseen_case,
            group_columns=limits.group_columns,
            prevalence=limits.prevalence,
            **asked,
        )
        # By the decision's threshold alone: of further ones the first model has none.
        now = replace(test.candidate, predictions=replace(test.candidate.predictions, outcomes=None))
        checks = judge(Measured("first model", first), now, losses, seed=self.recipe.seed)
        return {check.name: check.found for check in checks}

    def _begin(self, best: Trial, *, forced: bool) -> Begun:
        begun = Begun(
            at=now(),
            use=uuid.uuid4().hex[:16],
            cases=self.splits.sets["test"],
            recipe=self.recipe.name,
            recipe_sha256=self.recipe.sha256,
            limits=self.recipe.limits.settings(),
            candidate=best.measured.name,
            artifact=self.artifact,
            plan="" if self.plan is None else self.plan.sha256,
            shown=self.request.show or forced,
        )
        begin_use(self.request.record, begun)
        return begun

    def add_to(self, evidence: Evidence, look: Look | None, *, sealing: bool) -> Evidence:
        """The evidence with what is known of the cases; without the figures of test cases on which limits were missed,
        unless they are to be shown or the candidate is sealed all the same."""
        uses = None if look is None else look.uses
        chain = self.chain if look is None else look.chain
        if chain is not None:
            chain = replace(chain, baseline=evidence.validation.baseline.program_sha256)
        evidence = replace(
            evidence,
            uses=uses,
            splits=self.splits,
            plan=self.plan,
            chain=chain,
            reasons=self.recipe.reasons,
            runtimes=() if look is None else look.runtimes,
        )
        if uses is None or not uses.this.missed or sealing or self.request.show:
            return evidence
        return replace(evidence, test=None, runtimes=(), withheld=uses.this.missed)


def prepare_looks(
    recipe: Recipe, task: Task, validation: HeldOut, request: LookRequest, artifact: str, work: Path
) -> Looks:
    """Check all that would be found wrong hours later. work: where the page of copies is written.

    Raises LimitError for limits that so few cases cannot show, DataError for cases that are in two splits, and for a
    plan that cannot be read; JournalError for a record that is damaged; OutputError for one that could not be written;
    UsageError for a chain without evidence.
    """
    history = check_record(request.record)
    chain = read_chain(Path(recipe.previous), _loss_limits()) if recipe.previous else None
    planned = None if request.plan is None else read_plan(request.plan)
    test = _test_cases(task)
    if not request.anyway:
        counted_once = {"validation": validation, "test": without_copies(test, task)[0]}
        check_cases_suffice(counted_once, recipe.limits, seed=recipe.seed)
    splits = _check_splits(recipe, task, validation, test, work)
    followed = None
    if planned is not None:
        plan, digest = planned
        differences = plan_differences(plan, make_plan(recipe, splits, history))
        in_time = history.planned_before_use(digest, splits.sets["test"])
        before = history.plans_before_use(splits.sets["test"])
        place = before.index(digest) + 1 if digest in before else 1
        followed = PlanFollowed(plan, digest, in_time, differences, place, max(1, len(before)))
    return Looks(recipe, request, artifact, splits, followed, chain)


def _test_cases(task: Task) -> HeldOut:
    """Looked at for their number and for copies; nothing is run on them."""
    found = task.test_cases()
    check_held_out(found, task.baseline.inputs, "test")
    return found


def _check_splits(recipe: Recipe, task: Task, validation: HeldOut, test: HeldOut, work: Path) -> SplitsFound:
    """Whether the splits are different cases; a page shows those that are not. Raises DataError."""
    rules = recipe.cases
    found = mark_known(compare_splits(task, validation, test), rules.known_copies, rules.known_shared_clusters)
    page = write_copies(work, recipe.name, found, task, validation, test)
    shown = "" if page is None else f"They are listed on {page} (holds patients' or cardholders' data). "
    return check_apart(found, rules.known_copies, rules.known_shared_clusters, shown)


def describe_plan(recipe: Recipe, task: Task, record: Path) -> tuple[SplitsFound, History]:
    """What a plan says of the cases, and what is on record of them. Raises DataError for cases in two splits."""
    cases = task.validation_cases()
    check_held_out(cases, task.baseline.inputs, "validation")
    work = Path("runs") / recipe.name / "work"
    return _check_splits(recipe, task, cases, _test_cases(task), work), check_record(record)


def make_plan(recipe: Recipe, splits: SplitsFound, history: History) -> Plan:
    """The plan of what the recipe says, on these cases."""
    reasons, known, limits = dict(recipe.reasons), metrics.limits(), recipe.limits
    measure = replace(recipe.measure, backends=Measure().backends)
    rest = replace(recipe, steps=(), measure=measure, limits=Limits(), seed=0, reasons=())
    return Plan(
        created=now(),
        recipe=recipe.name,
        recipe_sha256=recipe.sha256,
        task=recipe.source.task,
        steps=tuple(
            ", ".join([describe(choices.step), *(f"{name}: {list(values)}" for name, values in choices.lists)])
            for choices in recipe.steps
        ),
        backends=recipe.measure.backends,
        seed=recipe.seed,
        limits={name: Margin(limit, known[name][1].title, reasons.get(name, "")) for name, limit in limits.items()},
        unseen_case=limits.unseen_case,
        settings={
            name: value for name, value in limits.settings().items() if name not in limits and name != "unseen_case"
        },
        rest_sha256=rest.sha256,
        splits={split: found.shown for split, found in splits.sets.items()},
        earlier_uses=sum(use.count for use in history.uses_of(splits.sets["test"])),
    )


def withheld_limits(uses: CaseUses) -> str:
    """What a refusal on test cases says in place of what was found: a candidate that is changed until it passes is
    chosen on the test cases, and their bounds hold no more."""
    limits = uses.this.limits or {}
    return ", ".join(f"{name} (limit {limits[name]})" if name in limits else name for name in uses.this.missed)


def _loss_limits() -> tuple[str, ...]:
    return tuple(name for name, (_, limit) in metrics.limits().items() if limit.kind == "loss")
