"""Cases that stand under more than one id: whoever counts a case fifty times finds narrow bounds that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featherweight.core.arrays import Array, Scores
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.predicted import Predicted
from featherweight.core.compare.seen import Seen
from featherweight.core.terminal import counted

_DIGITS = 4
"""Scores of no more digits are equal by chance."""


def copies_notes(cases: Cases, first: Predicted, second: Predicted, seen: Sequence[Seen] = ()) -> list[str]:
    """What to tell of cases that are equal to another in label, both scores, and all inputs that models were run on.
    seen: these. Scores of few digits are equal by chance, so that clusters and groups must be equal there too."""
    coarse = all(map(_is_coarse, (first.scores, second.scores)))
    columns: list[Array] = [cases.labels, first.scores, second.scores]
    for one in (first, second):
        columns += [] if one.probabilities is None else [one.probabilities]
    columns += [np.array(one.digests, "S32") for one in seen]
    if coarse:
        columns += [*cases.clusters, *(np.unique(values, return_inverse=True)[1] for values in cases.groups.values())]
    different = _count_different(columns)
    copies = len(cases.ids) - different
    if not copies:
        return []
    alike = "label and both scores" + (", and what the models were run on" if seen else "")
    tail = (
        "With scores of so few digits that may be chance; if it is not, every bound here is too narrow."
        if coarse
        else "A case that is counted more than once makes every bound here too narrow: leave the copies out, or name "
        "by --cluster what the copies have in common."
    )
    return [
        f"{counted(copies, 'cases')} of {len(cases.ids):,} are equal to another one in {alike}, under other ids: there "
        f"are {counted(different, 'different cases')}. {tail}"
    ]


def _is_coarse(scores: Scores) -> bool:
    with np.errstate(divide="ignore", invalid="ignore"):
        place = _DIGITS - 1 - np.floor(np.log10(np.abs(scores)))
        scale = 10.0 ** np.clip(np.where(scores == 0, 0, place), -300, 300)
    return bool((np.abs(np.round(scores * scale) - scores * scale) <= 1e-6 * np.abs(scores * scale)).all())


def _count_different(columns: Sequence[Array]) -> int:
    """Of the rows [N]."""
    count = len(columns[0])
    rows = [np.ascontiguousarray(values + 0.0 if values.dtype.kind == "f" else values) for values in columns]  # no -0
    whole = np.concatenate([values.view(np.uint8).reshape(count, -1) for values in rows], axis=1)
    return len(np.unique(whole.view([("row", f"V{whole.shape[1]}")]).ravel()))
