"""What the page, the JSON, the model card and the change record say, figure by figure, against the raw samples: each
figure under its own name, in its own column and unit."""

from __future__ import annotations

import re
from dataclasses import replace
from html import unescape

import numpy as np
import pytest

from featherweight.core.evidence.judge import Check
from featherweight.core.evidence.metric import Metric
from featherweight.core.evidence.metrics import AUC, CHANGED_DECISIONS, LATENCY, PARITY, Limits
from featherweight.core.evidence.predictions import Measured
from featherweight.core.evidence.report import Evidence, compared, flipped_cases, subgroups
from featherweight.core.evidence.reports.change_record import render_change_record
from featherweight.core.evidence.reports.costs import NO_INTERVAL, TIMES
from featherweight.core.evidence.reports.html import MAX_CANDIDATES, render_html
from featherweight.core.evidence.reports.json import MAX_RECORDED_FLIPS, encode_evidence, evidence_as_dict
from featherweight.core.evidence.reports.model_card import render_figures
from featherweight.core.evidence.reports.templates_env import bytes_text, joules_text, ms_text, value_text
from featherweight.core.evidence.reports.words import (
    choice_sentence,
    duration,
    energy_methods,
    headline,
    limit_text,
    measured_part,
    notes,
    parity_sentence,
    search_sentence,
)
from tests.core import evidence_cases as made


def page_rows(evidence: Evidence) -> dict[str, list[str]]:
    """The first row of every name on the page, as plain texts."""
    found: dict[str, list[str]] = {}
    for row in re.findall(r"<tr[^>]*>\s*<th scope=\"row\".*?</tr>", render_html(evidence), re.S):
        cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row, re.S)
        name, *texts = [unescape(re.sub(r"<[^>]*>", "", cell)).strip() for cell in cells]
        found.setdefault(name, texts)
    return found


def table_rows(markdown: str) -> dict[str, list[str]]:
    lines = [line.strip("| ").split(" | ") for line in markdown.splitlines() if line.startswith("| ")]
    return {name: cells for name, *cells in lines}


def p50(one: Measured) -> float:
    assert one.latency is not None
    return float(np.percentile(one.latency.samples_ms, 50))


def wrong(evidence: Evidence) -> tuple[int, int, int]:
    """(newly missed, new false alarms, errors that are now right) of the deciding cases, counted from the scores."""
    part = evidence.deciding
    before, after = part.baseline.predictions, part.candidate.predictions
    was, now, truth = before.decisions, after.decisions, before.labels == 1
    changed = was != now
    return (
        int((changed & truth & ~now).sum()),
        int((changed & ~truth & now).sum()),
        int((changed & (now == truth)).sum()),
    )


@pytest.fixture(scope="module")
def noisy() -> Evidence:
    """With so many changed decisions that no count equals another."""
    evidence = made.evidence(1.1, forced=True)
    missed, alarms, righted = wrong(evidence)
    assert len({missed, alarms, righted, missed + alarms}) == 4
    return evidence


def test_the_page_puts_every_cost_in_its_column_and_says_how_many_times_better() -> None:
    evidence = made.full_evidence()
    rows, part = page_rows(evidence), evidence.deciding
    before, after = part.baseline, part.candidate
    assert before.size
    assert after.size
    assert before.memory
    assert after.memory
    assert before.throughput
    assert after.throughput
    latency = rows["Latency p50, batch 1"]
    assert latency[:2] == [ms_text(p50(before)), ms_text(p50(after))]
    assert float(latency[2].split(TIMES)[0]) == pytest.approx(p50(before) / p50(after), rel=0.01)
    p99 = rows["Latency p99, batch 1"]
    was, now = (float(np.percentile(one.latency.samples_ms, 99)) for one in (before, after) if one.latency)
    assert [float(text.split()[0]) for text in p99[:2]] == pytest.approx([was, now], rel=0.05)
    assert float(p99[2].split(TIMES)[0]) == pytest.approx(was / now, rel=0.05)
    rates = [one.throughput.cases_per_s for one in (before, after) if one.throughput]
    assert rows["Throughput, batch 8"] == [
        *(f"{rate:,.4g} cases/s" for rate in rates),
        NO_INTERVAL,
    ]
    used = [one.memory.used_bytes for one in (before, after) if one.memory]
    memory = rows["Peak memory above the interpreter"]
    assert memory == [*map(bytes_text, used), NO_INTERVAL]
    assert rows["The same, unpacked"] == ["44.7 MB", "1.2 MB", f"{44_712_003 - 1_203_410:,} bytes less, counted"]
    assert rows["A million decisions, in the price's unit"] == ["8.2", "0.36", NO_INTERVAL]
    assert rows["Program"] == ["ResNet-18 fp32", "pruned 0.6, int8"]
    assert rows["Precision"] == ["fp32", "int8"]
    assert rows["Runtime"] == ["torch", "onnxruntime"]
    assert rows["Timing"] == ["300 runs at batch 1; 10 untimed runs first"] * 2


def test_the_page_leads_with_the_figures_of_the_deciding_cases() -> None:
    evidence = made.full_evidence()
    page, part = render_html(evidence), evidence.deciding
    tiles = re.findall(r'<li class="tile"><b>(.*?)</b><span>(.*?)</span></li>', page)
    before, after = part.baseline, part.candidate
    assert before.size
    assert after.size
    assert float(tiles[0][0].rstrip(TIMES)) == pytest.approx(p50(before) / p50(after), rel=0.01)
    assert re.fullmatch(rf"as fast \[[\d.]+, [\d.]+\]: now {ms_text(p50(after))} at batch 1", tiles[0][1])
    packed = before.size.compressed_bytes, after.size.compressed_bytes
    assert tiles[1] == (bytes_text(packed[1]), f"as shipped, was {bytes_text(packed[0])}")
    metrics = compared(evidence, part)
    now, was = metrics.candidate.metrics["auc"], metrics.baseline.metrics["auc"]
    assert now is not None
    assert was is not None
    assert now != was
    spans = [f"[{one.low:.4f}, {one.high:.4f}]" for one in (now, was)]
    told = f"AUC {spans[0]} on the test cases, was {was.estimate:.4f} {spans[1]}"
    assert tiles[2] == (f"{now.estimate:.4f}", told)
    assert tiles[3] == (str(sum(wrong(evidence))), "of 624 decisions changed")
    assert "On the validation cases" in page
    assert "On the validation cases" not in render_html(replace(evidence, test=None))


def test_a_limits_row_says_what_was_seen_and_on_how_many_cases(noisy: Evidence) -> None:
    rows, differences = page_rows(noisy), compared(noisy, noisy.deciding).differences
    auc, sensitivity = differences["auc"], differences["sensitivity"]
    assert auc is not None
    assert sensitivity is not None
    assert auc.estimate < -0.001
    verdict, seen, _, limit, _, cases, _ = rows["Loss of AUC"]
    assert (verdict, seen, limit, cases) == ("✗ failed", f"{-auc.estimate:.4f}", "≤ 0.0050", "624")
    assert rows["Loss of sensitivity"][1] == f"{-sensitivity.estimate:.4f}"
    assert rows["Loss of sensitivity"][5] == "390"
    assert rows["Loss of specificity"][5] == "234"
    assert rows["Changed decisions"][5] == "624"
    assert rows["Times as fast"][5] == ""
    assert float(rows["Times as fast"][1].rstrip(TIMES)) == pytest.approx(15.8, rel=0.05)


def test_changed_decisions_are_counted_alike_everywhere(noisy: Evidence) -> None:
    missed, alarms, righted = wrong(noisy)
    total = missed + alarms + righted
    page, found, record = render_html(noisy), evidence_as_dict(noisy)["test"], render_change_record(noisy)
    assert (
        f"{total} of 624 decisions on the test cases changed: {missed + alarms} became wrong, {righted} became right"
        in page
    )
    part = noisy.deciding
    rises = part.candidate.predictions.decisions & ~part.baseline.predictions.decisions
    assert found["flips"] == {
        "to_positive": rises.sum(), "to_negative": total - rises.sum(), "became_wrong": missed + alarms,
    }  # fmt: skip
    assert (
        f"Of 624 test decisions {total} changed. Newly missed cases of pneumonia: {missed}; new false alarms on "
        f"normal: {alarms}; earlier errors that are now right: {righted}." in record
    )
    assert [case["id"] for case in found["flipped"]] == [
        case.id for case in flipped_cases(part.baseline.predictions, part.candidate.predictions)
    ]


def test_the_json_lists_so_many_changed_decisions_and_no_more() -> None:
    many = made.comparison("test", 1, noise=20.0)
    found = evidence_as_dict(replace(made.evidence(), test=many))["test"]
    assert sum(found["flips"][way] for way in ("to_positive", "to_negative")) > MAX_RECORDED_FLIPS
    assert len(found["flipped"]) == MAX_RECORDED_FLIPS


def test_the_json_holds_each_programs_own_figures(noisy: Evidence) -> None:
    threshold = 0.1 + 1e-9
    part = noisy.deciding
    moved = replace(part.candidate, predictions=replace(part.candidate.predictions, threshold=threshold))
    evidence = replace(noisy, test=replace(part, candidate=moved))
    whole = evidence_as_dict(evidence)
    assert (whole["forced"], whole["passed"], whole["decided_on"]) == (True, False, "test")
    assert evidence_as_dict(replace(evidence, test=None))["decided_on"] == "validation"
    found = whole["test"]
    assert (found["cases"], found["positives"], found["negatives"]) == (624, 390, 234)
    assert found["candidate"]["threshold"] == threshold, "a threshold decides: it is exact"
    metrics = compared(evidence, evidence.deciding)
    for name, figures in (("baseline", metrics.baseline), ("candidate", metrics.candidate)):
        auc = figures.metrics["auc"]
        assert auc is not None
        assert found[name]["metrics"]["auc"]["estimate"] == pytest.approx(auc.estimate, rel=1e-5)
    for name, one in (("baseline", part.baseline), ("candidate", part.candidate)):
        latency = one.latency
        assert latency is not None
        told = found[name]["latency"]
        assert told["notes"] == ["10 untimed runs first"]
        assert told["samples_ms"][0] == pytest.approx(latency.samples_ms[0], rel=1e-3)
        assert told["samples_ms"][-1] == pytest.approx(latency.samples_ms[-1], rel=1e-3)
        expected = {str(q): np.percentile(latency.samples_ms, q) for q in (0, 1, 5, 25, 50, 75, 95, 99, 100)}
        assert told["quantiles_ms"] == pytest.approx(expected, rel=1e-5)


def test_the_json_says_what_the_splits_share_once_and_what_they_do_not_twice() -> None:
    evidence = made.evidence()
    validation, test = evidence.validation, evidence.test
    assert test is not None
    assert evidence_as_dict(evidence)["validation"]["candidate"]["size"] == {
        "bytes": 1_203_410,
        "compressed_bytes": 1107137,
    }
    shared = replace(validation, candidate=replace(validation.candidate, size=test.candidate.size))
    found = evidence_as_dict(replace(evidence, validation=shared))
    assert found["validation"]["candidate"]["size"] is None
    assert found["validation"]["candidate"]["latency"] is not None


def test_no_number_that_json_does_not_have() -> None:
    part = made.evidence().validation
    with pytest.raises(ValueError, match="not JSON compliant"):
        encode_evidence(
            replace(made.evidence(), validation=replace(part, checks=(Check(AUC, "failed", float("nan"), 1.0, ""),)))
        )


def test_the_change_record_puts_before_and_after_in_their_columns(noisy: Evidence) -> None:
    record, part = render_change_record(noisy), noisy.deciding
    rows, metrics = table_rows(record), compared(noisy, noisy.deciding)
    assert rows["precision"] == ["fp32", "int8"]
    assert rows["runtime"] == ["torch", "onnxruntime"]
    was, now = metrics.baseline.metrics["auc"], metrics.candidate.metrics["auc"]
    assert was is not None
    assert now is not None
    assert [cell.split()[0] for cell in rows["AUC (area under the ROC curve)"]] == [
        f"{was.estimate:.4f}", f"{now.estimate:.4f}",
    ]  # fmt: skip
    assert "624 test cases (390 pneumonia, 234 normal)" in record
    assert "The decision threshold stayed;" in record
    moved = replace(part.candidate, predictions=replace(part.candidate.predictions, threshold=0.2))
    fitted = render_change_record(replace(noisy, test=replace(part, candidate=moved)))
    assert "The decision threshold was fitted anew" in fitted
    assert table_rows(fitted)["threshold on the raw score"] == ["0.1", "0.2"]
    sizes = [one.size.compressed_bytes for one in (part.baseline, part.candidate) if one.size]
    told = f"{bytes_text(sizes[0])} before, {bytes_text(sizes[1])} after ({sizes[0]:,} and {sizes[1]:,} bytes)"
    assert told in record
    assert f"median {ms_text(p50(part.baseline))} before, {ms_text(p50(part.candidate))} after, 15." in record


def test_the_change_record_tells_every_residual_risk_and_only_those() -> None:
    clean = made.full_evidence()
    part = clean.validation
    found = Check(LATENCY, "not measured", None, 1.0, "Nobody looked.")
    same = replace(made.PARITY, runs=made.PARITY.runs[:2])
    record = render_change_record(replace(clean, parity=same))
    for text in ("by force", "No test cases", "Not kept on", "not shown to decide the same", "was not checked"):
        assert text not in record
    assert "Not kept on the validation cases: Nobody looked." in render_change_record(
        replace(clean, validation=replace(part, checks=(*part.checks, found)))
    )
    flipped = replace(made.PARITY, runs=(replace(made.PARITY.runs[0], flips=1),))
    assert "not shown to decide the same" in render_change_record(replace(clean, parity=flipped))


def test_groups_stand_under_their_own_finding() -> None:
    evidence = made.full_evidence()
    part = evidence.deciding
    baseline = made.grouped(part.baseline.predictions)
    south = baseline.groups["site"] == "south"
    upset = np.where(south, -baseline.scores, baseline.scores)
    after = replace(made.grouped(part.candidate.predictions), scores=upset)
    worse = replace(
        evidence, test=replace(part, candidate=replace(part.candidate, predictions=after)), limits=Limits(auc_loss=0.01)
    )
    record, rows = render_change_record(worse), subgroups(worse, worse.deciding).rows
    status = {f"{row.column} {row.value}": row.status for row in rows}
    assert status["site south"] == "shown worse"
    lines = {line.split(": ")[0]: line for line in record.splitlines() if line.startswith("- ")}
    for name, told in (
        ("shown worse", "- Shown to be worse"),
        ("worse, not shown", "- Worse in these cases, which chance may explain"),
        ("too few cases", "- Too few cases to say anything"),
    ):
        for row in rows:
            assert (f"{row.column} {row.value} (" in lines[told]) == (row.status == name)
    card = next(line for line in render_figures(worse).splitlines() if line.startswith("- Groups"))
    named = card.partition("shown worse: ")[2]
    assert all((f"{row.column} {row.value}" in named) == (row.status == "shown worse") for row in rows)


def test_the_model_card_tells_the_models_figures_beside_the_baselines(noisy: Evidence) -> None:
    card, metrics = render_figures(noisy), compared(noisy, noisy.deciding)
    was, now = metrics.baseline.metrics["auc"], metrics.candidate.metrics["auc"]
    assert was is not None
    assert now is not None
    assert [cell.split()[0] for cell in table_rows(card)["auc"]] == [f"{now.estimate:.3f}", f"{was.estimate:.3f}"]
    part = noisy.deciding
    assert f"- This model: {p50(part.candidate):.3g} ms" in card
    assert f"- Unpruned fp32: {p50(part.baseline):.3g} ms" in card
    assert "On 624 test cases, run once in this run, after every choice was made (390 positive)" in card
    assert "On 624 validation cases (390 positive)" in render_figures(replace(noisy, test=None))


def test_a_page_of_few_positives_leads_with_precision_and_recall() -> None:
    evidence = made.evidence()
    page = render_html(evidence)
    assert page.index("<h3>ROC curve") < page.index("<h3>Precision and recall")
    before, after = (made.predictions(noise, positives=6, negatives=600) for noise in (0.0, 0.1))
    part = evidence.deciding
    rare = replace(
        part, baseline=replace(part.baseline, predictions=before), candidate=replace(part.candidate, predictions=after)
    )
    page = render_html(replace(evidence, test=rare))
    assert page.index("<h3>ROC curve") > page.index("<h3>Precision and recall")


def test_a_forest_is_drawn_of_every_figure_of_the_groups_that_is_limited() -> None:
    def forests(limits: Limits) -> int:
        return render_html(replace(made.full_evidence(), limits=limits)).count("reaches to its lower bound")

    assert forests(Limits(sensitivity_loss=0.02, specificity_loss=0.04)) == 2
    assert forests(Limits()) == 1


def test_candidates_are_folded_only_above_the_most() -> None:
    evidence = made.full_evidence()
    filled = (*evidence.candidates, *evidence.candidates)[:MAX_CANDIDATES]
    assert "The other" not in render_html(replace(evidence, candidates=filled))
    assert "The other" in render_html(replace(evidence, candidates=(*filled, filled[0])))


def test_the_headline_counts_the_classes_and_names_what_was_missed_or_not_measured() -> None:
    evidence = made.evidence()
    assert headline(evidence).detail.endswith("(390 pneumonia, 234 normal).")
    unknown = Check(LATENCY, "not measured", None, 2.0, "")
    found = headline(replace(evidence, validation=replace(evidence.validation, checks=(unknown,))))
    assert not found.good
    assert "Times as fast (validation: not measured)" in found.detail


def test_limits_and_amounts_are_told_in_their_units() -> None:
    def told(metric: Metric, value: float | None) -> str:
        return limit_text(Check(metric, "passed", value, 0.0, ""), value)

    assert told(LATENCY, 2.5) == "2.50 times"
    assert told(CHANGED_DECISIONS, 0.05) == "5.00%"
    assert told(AUC, 0.005) == "0.0050"
    assert told(PARITY, 2.0) == "2"
    assert told(AUC, None) == "not measured"
    assert [bytes_text(n) for n in (999, 1000, 1_500_000, 2.5e9)] == ["999 B", "1 kB", "1.5 MB", "2.5 GB"]
    assert [ms_text(ms) for ms in (0.05, 0.5, 12.345, 1500)] == ["50 µs", "0.5 ms", "12.3 ms", "1,500 ms"]
    assert [joules_text(j) for j in (2, 0.41, 5e-6, 5e-7)] == ["2 J", "410 mJ", "5 µJ", "500 nJ"]
    assert [value_text(v) for v in (True, False, None, 1200)] == ["yes", "no", "none", "1,200"]
    assert [duration(s) for s in (42, 1800, 5399, 7200)] == ["42 s", "30 min", "90 min", "2 h"]


def test_the_search_is_told_with_its_budget_and_what_was_kept() -> None:
    assert search_sentence(made.SEARCH) == (
        "9 candidates tried in 25.2 min of a budget of 30 min, 2 of them taken from an earlier run. 1 was not tried."
    )
    whole = replace(made.SEARCH, budget_s=None, kept=0, skipped=())
    assert search_sentence(whole) == "9 candidates tried in 25.2 min."


def test_a_slower_candidate_does_not_make_the_chosen_one_the_slower() -> None:
    evidence = made.full_evidence()
    chosen = evidence.chosen
    assert chosen is not None
    assert chosen.latency is not None
    slower = replace(chosen, chosen=False, latency=replace(chosen.latency, p50_ms=2 * chosen.latency.p50_ms))
    said = choice_sentence(replace(evidence, candidates=(chosen, slower)))
    assert said.endswith("The fastest that kept all limits was chosen.")


def test_times_come_from_where_they_were_measured() -> None:
    evidence = made.evidence()
    test = evidence.test
    assert test is not None
    untimed = replace(test, candidate=replace(test.candidate, latency=None))
    assert measured_part(replace(evidence, test=untimed)) is evidence.validation
    assert measured_part(evidence) is test


def test_what_differs_and_what_could_not_be_run_is_told() -> None:
    evidence = made.full_evidence()
    assert any("changed decisions (onnxruntime restricted to AVX2)" in line for line in notes(evidence))
    assert "1 could not be run on the host that sealed it; the table says why." in parity_sentence(made.PARITY)
    assert energy_methods(evidence.deciding) == "Processor time times 6 W a core (4 to 8 W)."
