"""Tables of the change record that the page has too: cases between outcomes, and the runtimes."""

from __future__ import annotations

from collections.abc import Sequence

from featherweight.core.evidence.outcomes import ThresholdFigure, compare_outcomes
from featherweight.core.evidence.report import Evidence
from featherweight.core.evidence.reports.templates_env import markdown_text
from featherweight.core.statistics.intervals import Interval


def outcome_tables(evidence: Evidence) -> list[str]:
    """Cases by their outcome before and after; and, where the app acts on several thresholds, sensitivity and
    specificity at each."""
    part = evidence.deciding
    found = compare_outcomes(part.baseline.predictions, part.candidate.predictions, seed=evidence.seed)
    names = [markdown_text(name) for name in found.names]
    lines = [
        f"Of the {part.split} cases, by their outcome before (rows) and after (columns):",
        "",
        f"| before | {' | '.join(names)} |",
        "|---" * (1 + len(names)) + "|",
        *(
            f"| {name} | {' | '.join(f'{count:,}' for count in row)} |"
            for name, row in zip(names, found.moves, strict=True)
        ),
    ]
    if found.classes:
        lines += ["", "| class against the rest | figure | before | after | gain | at least (95%) |", "|---" * 6 + "|"]
        lines += [row for one in found.classes for row in _figure_rows(one.name, one.figures)]
    elif len(names) > 2:
        lines += ["", "| from the threshold of | figure | before | after | gain | at least (95%) |", "|---" * 6 + "|"]
        lines += [row for one in found.thresholds for row in _figure_rows(one.outcome, one.figures)]
    return lines


def _figure_rows(name: str, figures: Sequence[ThresholdFigure]) -> list[str]:
    return [
        f"| {markdown_text(name)} | {figure.metric.title} | {_interval(figure.baseline)} | "
        f"{_interval(figure.candidate)} | "
        + (f"{figure.difference.estimate:+.4f} | {figure.difference.low:+.4f} |" if figure.difference else "- | - |")
        for figure in figures
    ]


def runtime_table(evidence: Evidence) -> list[str]:
    """The sealed program on the test cases by each runtime of the host; nothing where none was sealed."""
    if not evidence.runtimes:
        return []
    lines = [
        "**Runtimes.** The program was run on the test cases by every runtime of the host that sealed it:",
        "",
        "| runtime | precision | AUC | average precision | largest difference | changed outcomes | may serve |",
        "|---" * 7 + "|",
    ]
    for one in evidence.runtimes:
        cells = [
            markdown_text(one.backend) + (" (judged)" if one.judged else ""),
            one.precision,
            "-" if one.auc is None else f"{one.auc:.4f}",
            "-" if one.average_precision is None else f"{one.average_precision:.4f}",
            "-" if one.difference is None else f"{one.difference:.3g}",
            "-" if one.changed is None else f"{one.changed:,}",
            f"{'yes' if one.serves else 'no'}: {markdown_text(one.verdict)}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return ["", *lines]


def _interval(found: Interval | None) -> str:
    return "-" if found is None else f"{found.estimate:.4f} ({found.low:.4f} to {found.high:.4f})"
