"""One model's predictions on the cases, whatever they came from."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from featherweight.core.arrays import Indices, Probabilities, Scores
from featherweight.core.compare.bounded import LARGEST
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.tables import Table
from featherweight.core.errors import DataError
from featherweight.core.program import Program
from featherweight.core.terminal import counted

SCORE, PROBABILITY = "score", "probability"
"""Columns of a table of predictions."""


@dataclass(frozen=True, eq=False)
class Predicted:
    """In the order of the cases. name: for the page; source: what was read or run; sha256: the digest of that; labels:
    of its classes, negative first, where it has them."""

    name: str
    source: str
    scores: Scores
    probabilities: Probabilities | None = None
    program: Program | None = None
    labels: tuple[str, ...] | None = None
    sha256: str = ""

    def take(self, places: Indices) -> Predicted:
        """Of some of the cases, in the order of `places`."""
        found = None if self.probabilities is None else self.probabilities[places]
        return replace(self, scores=self.scores[places], probabilities=found)


def read_predictions(table: Table, name: str, cases: Cases, id_column: str) -> Predicted:
    """Of a table with the columns id, score and, where there are such, probability; probabilities alone are the scores
    too. Raises DataError."""
    if SCORE not in table.columns and PROBABILITY not in table.columns:
        raise DataError(
            f"{table.name}: there is no column {SCORE!r} nor {PROBABILITY!r}; a table of predictions has "
            f"{id_column!r}, {SCORE!r} (larger is more positive) and, if it is known, {PROBABILITY!r}"
        )
    order = cases.place(table.texts(id_column), table.name)
    probabilities = table.numbers(PROBABILITY) if PROBABILITY in table.columns else None
    if probabilities is not None and (probabilities.min() < 0 or probabilities.max() > 1):
        raise DataError(f"{table.name}: column {PROBABILITY!r} holds numbers outside of 0 to 1")
    scores = table.numbers(SCORE) if SCORE in table.columns else probabilities
    if scores is None:
        raise TypeError("one of both columns is there")
    check_sane(scores, table.name)
    return Predicted(
        name,
        f"{table.name}, sha256 {table.sha256}",
        np.asarray(scores[order]),
        None if probabilities is None else np.asarray(probabilities[order]),
        sha256=table.sha256,
    )


def check_sane(scores: Scores, source: str) -> None:
    """Raise DataError for finite numbers that no score has, whose squares and sums would not be finite."""
    wrong = int((np.abs(scores) > LARGEST).sum())
    if wrong:
        raise DataError(
            f"{source}: gives {counted(wrong, 'cases')} a score beyond {LARGEST:g}; scores that mean anything are "
            "smaller: scale them, or give their ranks"
        )
