"""Planted faults: programs that are really broken (tests.planted_programs) go through the very bench and judge that
`optimize` uses. Every one must be refused, and the honest int8 program must pass."""

from __future__ import annotations

from pathlib import Path

import pytest

from featherweight.core.evidence.judge import all_passed
from tests.planted_programs import APPS, NETWORK_FAULTS, SHIFTS, TREE_FAULTS, Gate, judge_shifted, open_app, refused


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return open_app("network", 0, tmp_path_factory.mktemp("network"))


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return open_app("trees", 0, tmp_path_factory.mktemp("trees"))


def test_one_answer_for_all_finds_no_more_cards_than_chance(trees: Gate) -> None:
    """Ties must not be broken in favour of the compromised cards."""
    checks = trees.judge(trees.plant(TREE_FAULTS["nothing but one answer"][1], into="fp32"))
    assert {check.name: check.status for check in checks}["card_precision_loss"] == "failed"


def test_there_are_enough_of_them() -> None:
    assert len(NETWORK_FAULTS) + len(TREE_FAULTS) + 2 * len(SHIFTS) >= 90


@pytest.mark.parametrize("kind", ["network", "trees"])
def test_the_honest_candidate_passes(kind: str, request: pytest.FixtureRequest) -> None:
    gate: Gate = request.getfixturevalue(kind)
    checks = gate.judge(gate.built.program)
    assert all_passed(checks), [check.explanation for check in checks]
    assert len(checks) >= 3


@pytest.mark.parametrize("name", NETWORK_FAULTS)
def test_a_broken_network_is_refused(name: str, network: Gate) -> None:
    into, fault = NETWORK_FAULTS[name]
    assert refused(network, network.plant(fault, into=into))


@pytest.mark.parametrize("name", TREE_FAULTS)
def test_broken_trees_are_refused(name: str, trees: Gate) -> None:
    into, fault = TREE_FAULTS[name]
    assert refused(trees, trees.plant(fault, into=into))


@pytest.mark.slow
@pytest.mark.parametrize("drawn", [1, 2])
@pytest.mark.parametrize("app", APPS)
def test_broken_programs_are_refused_on_other_cases(app: str, drawn: int, tmp_path: Path) -> None:
    """Three seeds over both apps: the first is that of the tests above."""
    gate = open_app(app, drawn, tmp_path)
    assert all_passed(gate.judge(gate.built.program))
    passed = [name for name, (into, fault) in APPS[app].items() if not refused(gate, gate.plant(fault, into=into))] + [
        name for name, shift in SHIFTS.items() if all_passed(judge_shifted(gate, shift))
    ]
    assert not passed


@pytest.mark.parametrize("kind", ["network", "trees"])
@pytest.mark.parametrize("name", SHIFTS)
def test_a_wrong_threshold_is_refused(name: str, kind: str, request: pytest.FixtureRequest) -> None:
    gate: Gate = request.getfixturevalue(kind)
    checks = judge_shifted(gate, SHIFTS[name])
    assert not all_passed(checks)
    assert all(check.status == "passed" for check in checks if check.name in ("auc_loss", "average_precision_loss"))
