"""Short HTML for notebooks: what a cell shows of a model, of its predictions and of its evidence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from featherweight.core.evidence.reports.templates_env import open_templates

if TYPE_CHECKING:
    from featherweight.core.api.evidence import SealedEvidence
    from featherweight.core.api.model import Predictions

_SHOWN_CASES = 20


def render_description(title: str, rows: Sequence[tuple[str, str]]) -> str:
    """rows: names and values."""
    return _render("description", title=title, rows=rows)


def render_predictions(predictions: Predictions) -> str:
    """The first cases, and how many more there are."""
    shown = range(min(len(predictions), _SHOWN_CASES))
    return _render(
        "predictions",
        title=repr(predictions).strip("<>"),
        positive=predictions.positive or "the decision",
        rows=[
            (place, predictions.decisions[place], predictions.probabilities[place].max(), predictions.notes[place])
            for place in shown
        ],
        more=len(predictions) - len(shown),
    )


def render_evidence(evidence: SealedEvidence) -> str:
    """The verdict, each limit with its reason, and the metrics before and after; the whole is in `evidence.page`."""
    names = [name for name, found in evidence.candidate.items() if found is not None]
    return _render(
        "evidence",
        evidence=evidence,
        metrics=[(name, evidence.baseline.get(name), evidence.candidate[name]) for name in names],
    )


def _render(part: str, **values: object) -> str:
    template = Path(__file__).with_name("notebook.html.j2").read_text(encoding="utf-8")
    return open_templates().from_string(template).render(part=part, **values)
