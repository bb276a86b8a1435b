"""What all changes of a chain may have lost: only numbers are summed, and only where one change follows the other."""

from __future__ import annotations

import json

import pytest

from featherweight.core.evidence.reports.case_history import unlinked_notes
from featherweight.core.record.chain import Chain, Link, parse_links


def evidence(found: object, *links: object) -> bytes:
    checks = [{"name": "auc_loss", "found": found}]
    return json.dumps({"decided_on": "test", "test": {"checks": checks}, "chain": {"links": list(links)}}).encode()


@pytest.mark.parametrize("wrong", ["NaN", "Infinity", "-Infinity", "1e999", '"0.01"', "true", "[]"])
def test_a_bound_that_is_no_finite_number_is_refused(wrong: str) -> None:
    assert parse_links(evidence(0.01), "a", "0" * 64, ("auc_loss",))[0][-1].losses == {"auc_loss": 0.01}
    assert parse_links(evidence(None), "a", "0" * 64, ("auc_loss",))[0][-1].losses == {"auc_loss": None}
    own = evidence("WRONG").replace(b'"WRONG"', wrong.encode())
    link = {"artifact": "b", "sha256": "1" * 64, "losses": {"auc_loss": "WRONG"}}
    earlier = evidence(0.01, link).replace(b'"WRONG"', wrong.encode())
    for content in (own, earlier):
        with pytest.raises((ValueError, TypeError)):
            parse_links(content, "a", "0" * 64, ("auc_loss",))


def test_a_sum_with_what_is_no_number_is_not_known() -> None:
    links = (Link("a", "0" * 64, {"auc_loss": float("nan")}),)
    assert Chain(links).summed({"auc_loss": 0.001}) == {"auc_loss": None}
    assert Chain((Link("a", "0" * 64, {"auc_loss": 0.002}),)).summed({"auc_loss": -0.1}) == {"auc_loss": 0.002}


@pytest.mark.parametrize(
    ("baseline", "goes_on", "told"),
    [
        ("", None, ""),
        ("a" * 64, True, ""),
        ("b" * 64, False, "is another change of the same model and not a change after that one"),
        ("c" * 64, False, "is not shown that this change follows that one"),
    ],
)
def test_the_baseline_is_compared_with_the_artifact_that_it_is_said_to_come_from(
    baseline: str, goes_on: bool | None, told: str
) -> None:
    links = (Link("chest", "0" * 64, {}),)
    chain = Chain(links, programs=("a" * 64,), made_from="b" * 64, baseline=baseline)
    assert chain.goes_on is goes_on
    found = " ".join(unlinked_notes(chain))
    assert told in found
    assert bool(found) == bool(told)
