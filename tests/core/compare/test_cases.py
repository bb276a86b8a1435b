"""Ids, labels, clusters and groups of the cases, and predictions put into their order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from featherweight.core.compare.cases import UNKNOWN, Columns, read_cases
from featherweight.core.compare.predicted import read_predictions
from featherweight.core.compare.tables import table_of
from featherweight.core.errors import DataError

CASES = {"id": ["a", "b", "c", "d"], "y": [0, 1, 1, 0], "patient": ["p", "p", "q", "r"], "sex": ["f", None, "m", "f"]}


def cases(**changes):
    return read_cases(table_of("data", {**CASES, **changes}), Columns("y"))


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 40), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_does_not_matter(count, random):
    ids = [f"case {place}" for place in range(count)]
    order = random.sample(range(count), count)
    found = read_cases(table_of("data", {"id": ids, "y": [place % 2 for place in range(count)]}), Columns("y"))
    shuffled = {"id": [ids[place] for place in order], "score": np.array(order, float)}
    predicted = read_predictions(table_of("a", shuffled), "a", found, "id")
    assert predicted.scores.tolist() == list(range(count))


def test_clusters_and_groups_are_read():
    found = read_cases(table_of("data", CASES), Columns("y", clusters=("patient",), groups=("sex",)))
    assert [kind.tolist() for kind in found.clusters] == [[0, 0, 1, 2]]
    assert found.groups["sex"].tolist() == ["f", UNKNOWN, "m", "f"]
    assert found.names == ("negative", "positive")


def test_a_missing_cluster_is_refused():
    table = table_of("data", {**CASES, "patient": ["p", None, "", "r"]})
    with pytest.raises(DataError, match=r"column 'patient' is empty in 2 rows \(rows 2, 3\)"):
        read_cases(table, Columns("y", clusters=("patient",)))


def test_ids_are_each_there_once():
    with pytest.raises(DataError, match=r"data: has 2 rows whose id a later row has too \(rows 1, 2\)"):
        cases(id=["a", "b", "a", "b"])
    with pytest.raises(DataError, match=r"column 'id' is empty in 1 row"):
        cases(id=["a", None, "c", "d"])


@pytest.mark.parametrize(
    ("ids", "said"),
    [
        (["a", "b", "c"], r"new: lacks 1 case of the 4 \(row 4 of the cases\)"),
        (["a", "b", "c", "x"], r"new: lacks 1 case of the 4 \(row 4 of the cases\)"),
        (["a", "b", "c", "d", "x", "y"], r"new: has 2 ids that the cases do not have \(rows 5, 6\)"),
        (["a", "b", "c", "d", "d"], r"new: has 1 row whose id a later row has too \(row 4\)"),
    ],
)
def test_predictions_are_of_the_cases_and_no_others(ids, said):
    table = table_of("new", {"id": ids, "score": np.arange(float(len(ids)))})
    with pytest.raises(DataError, match=said):
        read_predictions(table, "new", cases(), "id")


def test_no_more_than_a_few_ids_are_named():
    many = [f"case {place}" for place in range(1000)]
    found = read_cases(table_of("data", {"id": many, "y": [0, 1] * 500}), Columns("y"))
    with pytest.raises(DataError, match=r"lacks 999 cases") as told:
        found.place(many[:1], "new")
    assert len(str(told.value)) < 250


@pytest.mark.parametrize(
    "labels", [[0, 1, 1, 0], [0.0, 1.0, 1.0, 0.0], ["0", "1", "1", "0"], [False, True, True, False]]
)
def test_labels_of_zero_and_one_in_any_kind(labels):
    assert cases(y=labels).labels.tolist() == [0, 1, 1, 0]


def test_named_labels_need_the_positive_one():
    names = ["benign", "cancer", "cancer", "benign"]
    with pytest.raises(DataError, match="holds 2 different values, others than 0 and 1"):
        cases(y=names)
    table = table_of("data", {**CASES, "y": names})
    found = read_cases(table, Columns("y", positive="cancer"))
    assert (found.labels.tolist(), found.names) == ([0, 1, 1, 0], ("benign", "cancer"))
    with pytest.raises(DataError, match="never holds 'canser', the positive class; it holds 2 different values"):
        read_cases(table, Columns("y", positive="canser"))
    several = table_of("data", {**CASES, "y": ["benign", "cancer", "cyst", "benign"]})
    assert read_cases(several, Columns("y", positive="cancer")).names == ("not cancer", "cancer")


@pytest.mark.parametrize("labels", [[0, 2, 1, 0], [0, None, 1, 0], [0.5, 1.0, 1.0, 0.0], [0, -1, 1, 0]])
def test_other_labels_are_refused(labels):
    with pytest.raises(DataError, match="column 'y'"):
        cases(y=labels)


def test_both_classes_are_needed():
    with pytest.raises(DataError, match="no positive case"):
        cases(y=[0, 0, 0, 0])
    with pytest.raises(DataError, match="no negative case"):
        cases(y=[1, 1, 1, 1])


def test_probabilities_alone_are_scores_and_lie_between_0_and_1():
    table = table_of("a", {"id": CASES["id"], "probability": [0.1, 0.9, 0.8, 0.2]})
    found = read_predictions(table, "a", cases(), "id")
    assert found.scores.tolist() == found.probabilities.tolist() == [0.1, 0.9, 0.8, 0.2]
    wrong = table_of("a", {"id": CASES["id"], "score": [1.0, 2, 3, 4], "probability": [0.1, 1.5, 0.8, 0.2]})
    with pytest.raises(DataError, match="outside of 0 to 1"):
        read_predictions(wrong, "a", cases(), "id")
    with pytest.raises(DataError, match="no column 'score' nor 'probability'"):
        read_predictions(table_of("a", {"id": CASES["id"]}), "a", cases(), "id")
