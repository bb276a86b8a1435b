"""Faults of programs are quoted with the version that they were run on."""

from __future__ import annotations

from featherweight.core.evidence.planted_result import NoTrial
from featherweight.core.evidence.program_faults import AppFaults, ProgramFaults, read_program_faults
from featherweight.core.evidence.reports.planted import encode_gate, gate_part
from tests.planted_programs import APPS, SHIFTS


def test_the_package_holds_what_was_found_on_all_of_them() -> None:
    found = read_program_faults()
    if not found.apps:
        assert found.describe() == f"Faults of programs were not run on featherweight {found.featherweight}."
        return
    assert [one.faults for one in found.apps] == [len(faults) + len(SHIFTS) for faults in APPS.values()]
    for one in found.apps:
        assert one.seeds >= 3
        assert one.judged == one.faults * one.seeds
        assert one.refused >= one.judged - one.seeds * len(one.passed)
        assert one.honest_judged == one.seeds


def test_page_and_json_quote_it_with_its_version() -> None:
    found, trial = read_program_faults(), NoTrial("a test")
    part, encoded = gate_part(trial, "patients"), encode_gate(trial)
    assert part is not None
    assert encoded is not None
    assert part["programs"] == found.describe()
    assert f"featherweight {found.featherweight}" in part["programs"]
    assert encoded["programs"]["featherweight"] == found.featherweight


def test_what_was_let_through_is_named() -> None:
    one = AppFaults(
        app="networks",
        faults=2,
        seeds=3,
        judged=6,
        refused=5,
        honest_judged=3,
        honest_refused=1,
        passed=("a layer zeroed",),
    )
    said = ProgramFaults(featherweight="0.9", command="x", date="2026-01-02", apps=(one,)).describe()
    assert "featherweight 0.9 was given 2 (2 of networks) on 3 sets of cases on 2026-01-02" in said
    assert "5 of 6 judgements were refusals (let through at least once: a layer zeroed), and 1 of 3 of" in said
