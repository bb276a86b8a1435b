"""What happened to the test cases before and around a comparison, in words: earlier uses, the plan, cases in two
splits, earlier changes. The page, evidence.json, the change record and the console take their sentences from here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import msgspec

from featherweight.core.evidence import metrics
from featherweight.core.evidence.report import Evidence
from featherweight.core.record.chain import Chain
from featherweight.core.record.plan import PlanFollowed
from featherweight.core.record.splits import SPLITS, SplitsFound, split_notes
from featherweight.core.record.uses import CaseUses, Use
from featherweight.core.terminal import counted

MAX_TOLD = 3
"""Earlier uses that a sentence names, the last ones; the table has more."""
MAX_USES = 100
"""Earlier uses in the table and in evidence.json, the last ones."""
_ORDINALS = ("First", "Second", "Third", "Fourth", "Fifth", "Sixth", "Seventh", "Eighth", "Ninth", "Tenth")


def history_notes(evidence: Evidence) -> tuple[str, ...]:
    """What a reader must be told before anything else, as sentences."""
    lines = [] if evidence.uses is None else use_notes(evidence.uses, cases_noun(evidence))
    lines += [] if evidence.plan is None else plan_notes(evidence.plan)
    lines += [] if evidence.splits is None else split_notes(evidence.splits)
    lines += [] if evidence.chain is None else _chain_notes(evidence, evidence.chain)
    return tuple(lines)


def cases_noun(evidence: Evidence) -> str:
    """What the cases are called whose uses are on record."""
    return "cases" if evidence.kind == "comparison" else "test cases"


def use_notes(found: CaseUses, noun: str = "test cases") -> list[str]:
    """Nothing for the first use. noun: what the cases are called."""
    if not found.earlier:
        return []
    told = [describe_use(use) for use in found.earlier[-MAX_TOLD:]]
    left = len(found.earlier) - len(told)
    before = f"{'before them others; ' if left else ''}{'; '.join(told)}"
    changed = _changed_limits(found)
    return [
        f"{ordinal(found.number)} use of these {noun} on record: {before}.{changed} The bounds hold for a "
        "candidate that was not chosen on these cases; whoever changes something after a look chooses on them."
    ]


def ordinal(number: int) -> str:
    """In words up to ten."""
    if number <= len(_ORDINALS):
        return _ORDINALS[number - 1]
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def describe_use(use: Use) -> str:
    """When, of what, and what came of it."""
    if use.verdict == "entered by hand":
        words = f"{use.at}: {counted(use.count, 'uses')} entered by hand ({use.words.rstrip('.')})"
    else:
        by = f"by the recipe {use.recipe}" if use.recipe else f"to compare {use.candidate}"
        words = f"{use.at} {by}: {describe_verdict(use)}"
    return words if use.same_labels else f"{words} [{describe_share(use)}]"


def describe_share(use: Use) -> str:
    """How many of the cases it was of, and how that is known."""
    if use.same_labels:
        return "all, same labels"
    how = {
        "inputs": f"about {use.shared:.0%} of the cases, or with other labels",
        "names": f"about {use.shared:.0%} of the cases by their names; their inputs are others",
        "looks": f"{use.shared:.0%} or more of the cases by what they look like; their inputs are others",
        "scores": f"about {use.shared:.0%} of the cases by the scores that A gives them; other ids or labels",
    }
    return how[use.known_by]


def describe_verdict(use: Use) -> str:
    """What came of it, with the limits that were missed as they were then."""
    if use.forced:
        parts = [_at(use, use.missed)] if use.missed else []
        parts += [f"{_at(use, use.missed_before)} on the validation cases"] if use.missed_before else []
        return f"sealed by force though it missed {', and '.join(parts) or 'a limit'}"
    if use.verdict == "missed":
        return f"refused at {_at(use, use.missed)}{', and its figures were shown' if use.shown else ''}"
    return {"kept": "limits kept", "not finished": "begun and not finished"}.get(use.verdict, use.verdict)


def _at(use: Use, missed: Sequence[str]) -> str:
    limits = use.limits or {}
    return ", ".join(f"{name} at {limits[name]}" if name in limits else name for name in missed)


def _changed_limits(found: CaseUses) -> str:
    """Limits that were missed before and are others now."""
    now, changed = found.this.limits or {}, dict[str, str]()
    for use in found.earlier:
        for name in (*use.missed, *use.missed_before):
            before = (use.limits or {}).get(name)
            if before is not None and before != now.get(name):
                after = now.get(name)
                changed[name] = (
                    f" The limit {name} was changed since: {before} then, {'none' if after is None else after} now."
                )
    return "".join(changed.values())


def plan_notes(found: PlanFollowed) -> list[str]:
    """Nothing for a plan that is older than the results and was followed."""
    lines = []
    if found.in_time is False:
        lines.append(
            f"The plan is younger than the results: the record has uses of these test cases before the plan "
            f"{found.sha256[:12]} was written down ({found.plan.created})."
        )
    elif found.in_time is None:
        lines.append(
            f"The record of uses does not have the plan {found.sha256[:12]}, so that its age rests on what it says of "
            "itself."
        )
    if found.of > 1:
        lines.append(
            f"{found.of} plans were written for these test cases before their first use on record; this is the "
            f"{ordinal(found.place).lower()} of them."
            if found.in_time
            else f"{found.of} plans were written for these test cases before their first use on record."
        )
    if found.differences:
        lines.append(f"The plan differs from what was run: {'; '.join(found.differences)}.")
    return lines


def chain_losses(evidence: Evidence, chain: Chain) -> dict[str, tuple[float | None, float]]:
    """Limit on a loss -> the bound against the first model, and the limit of one change."""
    checks = {check.name: check for check in evidence.deciding.checks if check.rule.kind == "loss"}
    summed = chain.summed({name: check.found for name, check in checks.items()})
    bounds = {name: chain.direct.get(name, bound) for name, bound in summed.items()}
    return {name: (bounds[name], check.limit) for name, check in checks.items()}


def _chain_notes(evidence: Evidence, chain: Chain) -> list[str]:
    if evidence.withheld:
        return []
    lines = unlinked_notes(chain)
    how = "on the same cases" if chain.direct else "as the sum of the bounds of all changes"
    number = ordinal(len(chain.links) + 1).lower()
    for name, (bound, limit) in chain_losses(evidence, chain).items():
        title = metrics.limits()[name][1].title
        if bound is None:
            lines.append(
                f"{title}: how much the {number} change of this model has lost against the first one is not known, "
                "because an earlier change had no such limit."
            )
        elif bound > limit:
            lines.append(
                f"{title}: this is the {number} change of the model. Against the first one the loss may be {bound:.4f} "
                f"({how}), more than the {limit:g} that one change may lose."
            )
    return lines


def unlinked_notes(chain: Chain) -> list[str]:
    """Where the baseline is not the program of the artifact that the recipe says it came from."""
    if chain.goes_on is not False:
        return []
    previous = chain.links[-1].artifact
    if chain.baseline == chain.made_from:
        return [
            f"The baseline is the program that {previous} was made from, not the one in {previous}, which the recipe "
            "names as previous: this is another change of the same model and not a change after that one."
        ]
    return [
        f"The baseline is not byte for byte the program in {previous}, which the recipe names as previous, so that it "
        "is not shown that this change follows that one."
    ]


def history_as_dict(evidence: Evidence) -> dict[str, Any]:
    """The parts of evidence.json; those that are not known are left out."""
    found: dict[str, Any] = {"withheld": list(evidence.withheld)} if evidence.withheld else {}
    if evidence.uses is not None:
        found["test_uses"] = _uses_as_dict(evidence.uses)
    if evidence.splits is not None:
        found["splits"] = _splits_as_dict(evidence.splits)
    if evidence.plan is not None:
        plan = evidence.plan
        found["plan"] = {
            "sha256": plan.sha256,
            "created": plan.plan.created,
            "in_time": plan.in_time,
            "before_use": plan.of,
            "differences": list(plan.differences),
        }
    if evidence.chain is not None:
        losses = {} if evidence.withheld else chain_losses(evidence, evidence.chain)
        found["chain"] = {
            "links": [msgspec.to_builtins(link) for link in evidence.chain.links],
            "method": "same cases" if evidence.chain.direct else "sum of bounds",
            "baseline_is_previous": evidence.chain.goes_on,
            "losses": {name: bound for name, (bound, _) in losses.items()},
        }
    if evidence.reasons:
        found["reasons"] = dict(evidence.reasons)
    return found


def _uses_as_dict(found: CaseUses) -> dict[str, Any]:
    return {
        "number": found.number,
        "record": found.record,
        "begins": found.begins,
        "head": found.head,
        "lines": found.lines,
        "cases": msgspec.to_builtins(found.cases.shown),
        "this": _use_as_dict(found.this),
        "earlier": [_use_as_dict(use) for use in found.earlier[-MAX_USES:]],
    }


def _use_as_dict(use: Use) -> dict[str, Any]:
    plain = asdict(use)
    missed = {"missed": list(use.missed), "missed_before": list(use.missed_before)}
    return {**plain, **missed, "limits": dict(use.limits or {}), "shared": round(use.shared, 3)}


def _splits_as_dict(found: SplitsFound) -> dict[str, Any]:
    def by_pair(counts: Mapping[Any, int]) -> dict[str, int]:
        return {f"{one} and {other}": count for (one, other), count in counts.items()}

    return {
        "cases": {split: found.sets[split].cases for split in SPLITS},
        "sha256": {split: found.sets[split].sha256 for split in SPLITS},
        "training_sampled": found.sampled,
        "copies": by_pair(found.copies),
        "near_copies": by_pair(found.near) if found.pictures else None,
        "shared_clusters": None if found.clusters is None else by_pair(found.clusters),
        "repeated_test_cases": found.repeated,
        "contradictory_test_inputs": found.contradictory,
    }


def shown_history(evidence: Evidence) -> dict[str, Any]:
    """What the page's part needs beside the evidence itself."""
    return {
        "noun": cases_noun(evidence),
        "apart": "" if evidence.splits is None else apart_sentence(evidence.splits),
        "earlier": () if evidence.uses is None else evidence.uses.earlier[-MAX_USES:],
        "losses": {} if evidence.chain is None or evidence.withheld else chain_losses(evidence, evidence.chain),
    }


def apart_sentence(found: SplitsFound) -> str:
    """How it was seen that the splits are different cases, and what was not looked at."""
    sets = found.sets
    training = f"{'a sample of ' if found.sampled else ''}{counted(sets['training'].cases, 'training inputs')}"
    text = (
        f"Compared byte for byte: {training}, {counted(sets['validation'].cases, 'validation cases')} and "
        f"{counted(sets['test'].cases, 'test cases')}; {_number(sum(found.copies.values()))} of the inputs in two of "
        "them."
    )
    if found.pictures:
        text += f" Pictures that look the same though their bytes differ: {_number(sum(found.near.values()))}."
    if found.clusters is None:
        return f"{text} The task lets patients, cards or other owners of cases have cases in two of them."
    return f"{text} Patients (or whatever cases belong to) in two of them: {_number(sum(found.clusters.values()))}."


def record_lines(evidence: Evidence) -> list[str]:
    """How the cases were kept apart and what was written down, for the protocol of a change record."""
    lines = [] if evidence.splits is None else [apart_sentence(evidence.splits)]
    if evidence.uses is not None:
        found = evidence.uses
        lines.append(
            f"Use {found.number} of these test cases on record ({found.record}); sha256 of cases and labels "
            f"{found.cases.sha256}, of the record's line {found.lines} {found.head}."
        )
    if evidence.plan is not None:
        lines.append(f"Planned on {evidence.plan.plan.created}; sha256 of the plan {evidence.plan.sha256}.")
    return lines


def _number(count: int) -> str:
    return f"{count:,}" if count else "none"
