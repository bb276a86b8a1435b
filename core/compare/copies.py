"""Cases that stand under more than one id: whoever counts a case fifty times finds narrow bounds that mean nothing."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from featherweight.core.arrays import Array, Indices
from featherweight.core.compare.cases import Cases
from featherweight.core.compare.predicted import Predicted
from featherweight.core.compare.seen import Seen, is_coarse
from featherweight.core.terminal import counted

_MANY = 0.1
"""So large a part of the cases with the score of another, by one model alone, is told."""


def different_cases(cases: Cases, seen: Sequence[Seen]) -> Indices:
    """Places of the first case of each label and input, where it is known what models are run on: whoever is in the
    data ten times is one observation. Rows of a table may be equal by chance: they are copies only within one cluster,
    and without clusters only where their values tell cases apart. seen: what each model is run on."""
    everything = np.arange(len(cases.ids))
    if not seen:
        return everything
    owners: list[list[int]] = []
    if not all(one.pictures for one in seen):
        owners = [kind.tolist() for kind in cases.clusters]
        if not owners and not any(one.apart for one in seen):
            return everything
    first: dict[tuple[object, ...], int] = {}
    for place, found in enumerate(zip(cases.labels.tolist(), *(one.digests for one in seen), *owners, strict=True)):
        first.setdefault(found, place)
    return np.array(sorted(first.values()), np.intp)


def left_out_notes(count: int) -> list[str]:
    """What to tell of copies that are not counted."""
    told = "left out: input and label are those of another case, and copies count once."
    return [f"{counted(count, 'cases')} {told}"] if count else []


def copies_notes(cases: Cases, first: Predicted, second: Predicted, seen: Sequence[Seen] = ()) -> list[str]:
    """What to tell of cases that are equal to another in label, both scores, and all inputs that models were run on.
    seen: these. Scores of few digits are equal by chance, so that clusters and groups must be equal there too."""
    coarse = all(map(is_coarse, (first.scores, second.scores)))
    columns: list[Array] = [cases.labels, first.scores, second.scores]
    for one in (first, second):
        columns += [] if one.probabilities is None else [one.probabilities]
    columns += [np.array(one.digests, "S32") for one in seen]
    if coarse:
        columns += [*cases.clusters, *(np.unique(values, return_inverse=True)[1] for values in cases.groups.values())]
    different = _count_different(columns)
    copies = len(cases.ids) - different
    if not copies:
        return [] if seen else _alone_notes(cases, first, second)
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


def _alone_notes(cases: Cases, *models: Predicted) -> list[str]:
    """Copies whose other score was changed a little are equal in one model's alone."""
    lines = []
    for one in models:
        copies = 0 if is_coarse(one.scores) else len(cases.ids) - _count_different([cases.labels, one.scores])
        if copies > _MANY * len(cases.ids):
            lines.append(
                f"{counted(copies, 'cases')} of {len(cases.ids):,} have label and score of {one.name} in common with "
                "another one, to the last digit, and not the other model's score. Where the model gives few different "
                "scores, that is chance; if they are copies under other ids, every bound here is too narrow."
            )
    return lines


def _count_different(columns: Sequence[Array]) -> int:
    """Of the rows [N]."""
    count = len(columns[0])
    rows = [np.ascontiguousarray(values + 0.0 if values.dtype.kind == "f" else values) for values in columns]  # no -0
    whole = np.concatenate([values.view(np.uint8).reshape(count, -1) for values in rows], axis=1)
    return len(np.unique(whole.view([("row", f"V{whole.shape[1]}")]).ravel()))
