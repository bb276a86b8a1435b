"""What no candidate can show on so few cases is refused before the search."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from featherweight.core.errors import LimitError
from featherweight.core.evidence import metrics
from featherweight.core.evidence.enough import check_cases_suffice
from featherweight.core.evidence.judge import judge
from featherweight.core.evidence.metrics import Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.task import Alerts, HeldOut
from featherweight.core.tensors import Tensors
from tests.core import evidence_cases as made


def cases(positives: int, negatives: int, clusters: int | None = None) -> HeldOut:
    count = positives + negatives
    inputs: Tensors = {"x": np.zeros((count, 1), np.float32)}
    owners = None if clusters is None else np.arange(count) % clusters
    ids = tuple(map(str, range(count)))
    return HeldOut(ids, inputs, (np.arange(count) < positives).astype(np.int64), clusters=owners)


def test_six_positive_cases_cannot_show_a_sensitivity():
    splits = {"validation": cases(200, 50), "test": cases(6, 500)}
    with pytest.raises(LimitError) as raised:
        check_cases_suffice(splits, Limits(sensitivity_loss=0.03), seed=0)
    assert str(raised.value).splitlines()[1:2] == [
        "  test cases: sensitivity_loss = 0.0300 cannot be shown with 6 positive cases: 100 are needed"
    ]
    assert "--anyway" in str(raised.value)


def test_what_is_said_to_be_needed_suffices_and_one_case_less_does_not():
    limits = Limits(sensitivity_loss=0.03, auc_loss=0.02)
    check_cases_suffice({"test": cases(100, 30)}, limits, seed=0)
    with pytest.raises(LimitError, match="99 positive cases: 100 are needed"):
        check_cases_suffice({"test": cases(99, 30)}, limits, seed=0)


@pytest.mark.parametrize("margin", [0.02, 0.05])
def test_a_ranking_whose_unseen_case_is_lost_needs_three_over_the_margin(margin):
    limits = Limits(auc_loss=margin, unseen_case="lost")
    with pytest.raises(LimitError, match="auc_loss") as raised:
        check_cases_suffice({"test": cases(20, 20)}, limits, seed=0)
    needed = int(str(raised.value).split("cases: ")[2].split()[0].replace(",", ""))
    assert needed == pytest.approx(2 * 3 / margin, rel=0.02)
    check_cases_suffice({"test": cases(needed // 2 + 1, needed // 2 + 1)}, limits, seed=0)
    # A recipe that asks for it where the cases suffice has the other reading here.
    check_cases_suffice({"test": cases(29, 29)}, Limits(auc_loss=margin, unseen_case="lost-where-possible"), seed=0)


def test_patients_are_counted_where_cases_come_in_them():
    limits = Limits(sensitivity_loss=0.05)
    check_cases_suffice({"test": cases(200, 200)}, limits, seed=0)
    with pytest.raises(LimitError, match="200 positive cases"):
        check_cases_suffice({"test": cases(200, 200, clusters=20)}, limits, seed=0)


def test_speed_is_nobodys_number_of_cases():
    check_cases_suffice({"test": cases(5, 5)}, Limits(latency_ratio_min=2.0, size_ratio_min=2.0), seed=0)


@pytest.mark.parametrize(
    "name", [name for name, (metric, _) in metrics.limits("binary").items() if metric.reads != "running"]
)
def test_no_wide_limit_is_refused_where_cases_are_many(name):
    """Whatever kind it is: of a harmless candidate on 6,000 cases in three sites."""
    many = cases(3000, 3000, clusters=3000)
    alerts = Alerts(np.arange(6000) % 7, np.ones(6000, bool), 100)
    many = replace(many, groups={"site": np.array(["a", "b", "c"])[np.arange(6000) % 3]}, alerts=alerts)
    _, rule = metrics.limits("binary")[name]
    value = 0.5 if rule.kind == "min" else 0.2
    check_cases_suffice({"test": many}, Limits(prevalence=0.1, **{name: value}), seed=0)


def test_a_ranking_of_a_handful_is_not_believed_as_it_was_seen():
    """With 28 of a class a tenth of it may be lost altogether and none of that seen."""
    check_cases_suffice({"test": cases(29, 500)}, Limits(auc_loss=0.05), seed=0)
    with pytest.raises(LimitError, match="28 independent cases of the rarer class; with fewer than 29"):
        check_cases_suffice({"test": cases(28, 500)}, Limits(auc_loss=0.05), seed=0)
    with pytest.raises(LimitError, match="20 independent cases"):
        check_cases_suffice({"test": cases(100, 500, clusters=20)}, Limits(auc_loss=0.05), seed=0)


def test_the_probabilities_of_a_handful_are_not_believed_either():
    check_cases_suffice({"test": cases(29, 500)}, Limits(brier_loss=0.05), seed=0)
    with pytest.raises(LimitError, match=r"Brier score: .*28 independent cases of the rarer class; with fewer than 29"):
        check_cases_suffice({"test": cases(28, 500)}, Limits(brier_loss=0.05), seed=0)
    # A case like none of these costs one over their number, whoever's probabilities they are.
    with pytest.raises(LimitError, match="brier_loss"):
        check_cases_suffice({"test": cases(40, 40)}, Limits(brier_loss=0.01, unseen_case="lost"), seed=0)


@pytest.mark.parametrize("name", ["auc_loss", "average_precision_loss", "brier_loss"])
@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_what_is_said_to_be_needed_is_never_too_few_to_be_believed(name, noise):
    """In four samples of five of so many cases 29 are of the rarer class; with the least of them just so many."""
    before, after = (made.predictions(one, positives=400, negatives=1600) for one in (0.0, noise))
    (check,) = judge(Measured("a", before), Measured("b", after), Limits(**{name: 0.2}), seed=0)
    assert check.cases_least is not None
    assert check.cases_needed is not None
    assert check.cases_needed_as_seen is not None
    rarer = np.random.default_rng(0).binomial(min(check.cases_needed, check.cases_needed_as_seen), 0.2, size=4000)
    assert 0.78 <= np.mean(rarer >= 29) <= 0.87
    assert check.cases_least == 145


@pytest.mark.parametrize("name", ["auc_loss", "brier_loss"])
def test_what_is_too_few_to_be_believed_is_told_in_cases_of_the_kind_that_are_counted(name):
    few = Measured("a", made.predictions(0.0, positives=20, negatives=80))
    (check,) = judge(few, few, Limits(**{name: 0.0001}), seed=0)
    assert (check.status, check.cases_least) == ("not measured", 145)
