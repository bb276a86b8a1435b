"""Who is on the front, and what is advised to those that missed a limit."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metrics import METRICS
from featherweight.core.evidence.report import CandidateRecord, LatencySummary
from featherweight.core.search.advice import advise, mark_front

points = st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(-2, 3))


def record(
    name: str, *, ms: float = 1.0, size: int = 10, loss: float | None = 0.0, checks: Any = (), **steps: float
) -> CandidateRecord:
    """steps: prune=0.5, recover=3, quantize=1."""
    lineage: list[dict[str, object]] = []
    for kind, value in steps.items():
        settings = {"prune": {"ratio": value}, "recover": {"epochs": value}, "quantize": {}}[kind]
        lineage.append({"name": {"prune": "prune-channels"}.get(kind, kind), "settings": settings, "facts": {}})
    latency = LatencySummary(ms, ms, ms, 9, 1)
    return CandidateRecord(name, {}, tuple(lineage), tuple(checks), size, latency, loss=loss)


def check(name: str, passed: bool, **more: Any) -> Check:
    metric = next(one for one in METRICS if one.limit is not None and one.limit.name == name)
    return Check(metric, "passed" if passed else "failed", 0.1, 0.05, "said", **more)


@given(st.lists(points, min_size=1, max_size=12))
def test_the_front_is_what_nobody_beats(found: list[tuple[int, int, int]]) -> None:
    records = mark_front([record(str(place), ms=ms, size=size, loss=x) for place, (ms, size, x) in enumerate(found)])
    for one, mine in zip(records, found, strict=True):
        beaten = any(all(a <= b for a, b in zip(other, mine, strict=True)) and other != mine for other in found)
        assert one.on_front is not beaten
    assert any(one.on_front for one in records)


def test_what_was_not_measured_is_on_no_front() -> None:
    assert not any(one.on_front for one in mark_front([CandidateRecord("a", {}), record("b", loss=None)]))


def test_what_the_order_of_additions_does_to_a_loss_counts_for_nothing() -> None:
    fast, other = mark_front([record("fast", ms=1, loss=0.00112), record("other", ms=2, loss=0.00109)])
    assert fast.on_front
    assert not other.on_front


def advice(*records: CandidateRecord) -> list[str]:
    return [one.advice for one in advise(records)]


def test_a_milder_candidate_that_kept_the_limit_is_named() -> None:
    lossy = record("hard", checks=[check("auc_loss", False)], prune=0.7, recover=3)
    mild = record("mild", checks=[check("auc_loss", True)], prune=0.5, recover=3)
    assert advice(lossy, mild) == ["Prune less: 0.5 kept auc_loss.", ""]
    longer = record("long", checks=[check("auc_loss", True)], prune=0.7, recover=9)
    assert advice(lossy, longer)[0] == "Recover longer: 9 epochs kept auc_loss."
    plain = record("other method", checks=[check("auc_loss", True)], prune=0.7, recover=3)
    assert advice(lossy, plain)[0] == "other method kept auc_loss."


def test_where_none_kept_a_limit_the_ways_are_named() -> None:
    lossy = record("hard", checks=[check("auc_loss", False)], prune=0.7, recover=3, quantize=1)
    (said,) = advice(lossy)
    assert said == (
        "None kept auc_loss: prune less than 0.7, or recover longer than 3 epochs, or leave out the quantization, or "
        "allow more."
    )


def test_where_the_budget_was_spent_longer_training_is_no_advice() -> None:
    lossy = record("hard", checks=[check("auc_loss", False)], prune=0.7, recover=3)
    (found,) = advise([lossy], spent=True)
    assert found.advice == (
        "None kept auc_loss: give the search more time (its budget was spent; the same command goes on), or prune less "
        "than 0.7, or allow more."
    )


def test_speed_and_size_have_their_own_advice() -> None:
    slow = record("slow", checks=[check("latency_ratio_min", False), check("size_ratio_min", False)], prune=0.2)
    fast = record("fast", checks=[check("latency_ratio_min", True), check("size_ratio_min", False)], prune=0.8)
    said = advice(slow, fast)
    assert said[0].startswith("Faster: fast kept latency_ratio_min.")
    assert "quantize, prune more" in said[0]
    assert "Faster" not in said[1]


def test_too_few_cases_are_told_with_their_number() -> None:
    unsure = record("unsure", checks=[check("auc_loss", False, cases_needed_as_seen=1234)], prune=0.3)
    kept = record("kept", checks=[check("auc_loss", True)], prune=0.2)
    assert advice(unsure, kept)[0].startswith("About 1,234 cases would show that its loss is inside auc_loss")


def test_cases_are_counted_of_the_kind_that_the_limit_is_on() -> None:
    unsure = record("a", checks=[check("sensitivity_loss", False, cases_needed_as_seen=99)])
    assert advice(unsure)[0].startswith("About 99 positive cases would show")
    unsure = record("a", checks=[check("specificity_loss", False, cases_needed_as_seen=99)])
    assert advice(unsure)[0].startswith("About 99 negative cases would show")


def test_a_candidate_that_disagrees_in_other_batches_is_not_advised_to_allow_more() -> None:
    (said,) = advice(record("a", checks=[check("parity", False)], prune=0.5))
    assert said == "Name another backend, on which it may decide the same however it is run."
