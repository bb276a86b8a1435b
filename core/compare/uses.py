"""The use of the cases as the record of uses has it: begun before a model is run on them, ended with the verdict."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import msgspec

from featherweight.core.arrays import Scores
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.request import ComparisonRequest
from featherweight.core.compare.seen import Seen, digest_scores
from featherweight.core.evidence.judge import Check
from featherweight.core.record.cases import CaseSet, describe_cases
from featherweight.core.record.likeness import digest_names
from featherweight.core.record.uses import Begun, begin_use, now


def describe_known(cases: Cases, seen: Sequence[Seen] = (), scores: Scores | None = None) -> CaseSet:
    """The cases as a record knows them again: by ids and labels, and by what else stays the same from one model to the
    next. Ids that only count the cases name nothing: by them such cases are known as a whole alone, with all their
    labels, or other cases would be taken for them. seen: what models are run on, that of A before that of B; scores: of
    A [N], where it is a table and no model is run."""
    whole = b"id"
    if not digest_names(cases.ids):
        both = sorted(zip(cases.ids, cases.labels.tolist(), strict=True))
        whole = hashlib.sha256(repr(both).encode()).digest()
    inputs = [hashlib.sha256(whole + b"\0" + one.encode()).digest() for one in cases.ids]
    looks = [look for one in seen for look in one.looks]
    by_scores = [] if scores is None else digest_scores(scores)
    found = describe_cases(inputs, cases.labels, names=cases.ids, looks=looks, scores=by_scores)
    if not seen:
        return found
    # The digest of all stays that of ids and labels, by which older lines know the cases.
    run = describe_cases(seen[0].digests)
    return msgspec.structs.replace(found, sketch=run.sketch, inputs=run.inputs)


def unknown_notes(known: CaseSet, seen: Sequence[Seen]) -> list[str]:
    """What to tell of cases of which a part cannot be known again."""
    if known.names or known.scores or seen:
        return []
    return [
        "The ids of these cases only count them, and many have the same score: a part of them, or all of them with "
        "other labels, cannot be known again by the record of uses. Give ids that stay with a case."
    ]


def begin(request: ComparisonRequest, cases: CaseSet, names: tuple[str, str], record: Path) -> Begun:
    """Write down that the cases are about to be used. Raises as `core.record.uses.append_use` does."""
    begun = Begun(
        at=now(),
        use=uuid.uuid4().hex[:16],
        cases=cases,
        recipe="",
        recipe_sha256="",
        limits=request.limits.settings(),
        candidate=f"{names[1]} against {names[0]}",
        artifact="",
        shown=request.show,
    )
    begin_use(record, begun)
    return begun


def untold(check: Check) -> Check:
    """A check without what was found. What could not be measured says why: nothing is tuned on that."""
    if check.found is None:
        return check
    limit = check.rule.describe(check.limit)
    text = (
        f"{check.rule.title}: kept."
        if check.status == "passed"
        else f"{check.rule.title}: not kept; the limit is {limit}. By how much is not told (--show-test tells, and the "
        "record of uses says so)."
    )
    return replace(
        check, found=None, seen=None, cases_needed=None, cases_needed_as_seen=None, cases_least=None, explanation=text
    )
