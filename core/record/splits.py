"""Whether training, validation and test cases are different cases.

What a model was fitted or chosen on says nothing of how it decides on others. Found are inputs that are the same byte
for byte, pictures that are near copies, and patients (or whatever the task says that no two splits may share). Nothing
is run here.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from featherweight.core.arrays import Hashes, Indices, Integers
from featherweight.core.errors import DataError
from featherweight.core.record.cases import CaseSet, describe_cases, digest_inputs
from featherweight.core.record.likeness import digest_looks
from featherweight.core.record.pictures import find_near, hash_inputs, picture_input
from featherweight.core.task import HeldOut, SplitName, StatesSplits, Task
from featherweight.core.tensors import Tensors
from featherweight.core.terminal import counted

SPLITS: tuple[SplitName, ...] = ("training", "validation", "test")
MAX_TRAINING_SAMPLE = 20_000
"""Training inputs that are looked at where the task does not give all of them."""
MAX_LISTED = 50


KnownKind = Literal["copies", "clusters"]
"""What a recipe may state as known."""


@dataclass(frozen=True)
class Pair:
    """Two cases that are the same, or look it: places in their splits. near: only the pictures are alike."""

    first: tuple[SplitName, int]
    second: tuple[SplitName, int]
    near: bool


@dataclass(frozen=True)
class SplitsFound:
    """sets: what is kept of each split; copies: inputs that are in two splits, by the two; clusters: patients, say, by
    the two, None where the task names none that must be apart; near: pictures of the second of two splits that are near
    copies of one in the first, by the two; pairs:
    the first of all of these; repeated: test cases that are copies of another one with the same label; contradictory:
    inputs that have both labels among the test cases; sampled: whether the training inputs are a sample only."""

    sets: Mapping[SplitName, CaseSet]
    copies: Mapping[tuple[SplitName, SplitName], int]
    clusters: Mapping[tuple[SplitName, SplitName], int] | None
    near: Mapping[tuple[SplitName, SplitName], int]
    pairs: tuple[Pair, ...] = ()
    repeated: int = 0
    contradictory: int = 0
    sampled: bool = False
    pictures: bool = False
    known: frozenset[KnownKind] = frozenset()
    """What of it the recipe states; nothing before it was compared with the recipe."""


@dataclass(frozen=True)
class _Split:
    inputs: list[bytes]
    hashes: Hashes | None


def compare_splits(task: Task, validation: HeldOut, test: HeldOut) -> SplitsFound:
    """Seconds for ten thousand pictures of 224 x 224 pixels. The cases are those of the task, found right by
    `core.task.check_held_out`."""
    name = picture_input(tuple(task.baseline.inputs))
    found: dict[SplitName, _Split] = {
        "training": _read_training(task, name),
        "validation": _Split(*_digested(validation.tensors, name)),
        "test": _Split(*_digested(test.tensors, name)),
    }
    sets = {
        "training": describe_cases(found["training"].inputs),
        "validation": describe_cases(found["validation"].inputs, validation.labels),
        "test": describe_cases(
            found["test"].inputs,
            test.labels,
            names=test.ids,
            looks=digest_looks(test.tensors, found["test"].hashes),
        ),
    }
    copies, near, pairs = {}, {}, list[Pair]()
    for both in itertools.combinations(SPLITS, 2):
        copies[both], same = _same(found, both)
        near[both], alike = _alike(found, both)
        pairs += [*same, *alike]
    kept, contradictory = _distinct(found["test"].inputs, test, bool(name))
    return SplitsFound(
        {split: sets[split] for split in SPLITS},
        copies,
        _shared_clusters(task),
        near,
        tuple(pairs),
        repeated=len(test.labels) - len(kept),
        contradictory=contradictory,
        sampled=not isinstance(task, StatesSplits),
        pictures=bool(name),
    )


def training_inputs(task: Task) -> Iterator[Tensors]:
    """All of them where the task gives them, else a sample."""
    return (
        task.training_inputs()
        if isinstance(task, StatesSplits)
        else task.calibration_batches(MAX_TRAINING_SAMPLE, seed=0)
    )


def _read_training(task: Task, name: str) -> _Split:
    inputs, hashes = list[bytes](), list[Hashes]()
    for batch in training_inputs(task):
        digests, found = _digested(batch, name)
        inputs += digests
        hashes += [] if found is None else [found]
    return _Split(inputs, np.concatenate(hashes) if hashes else None)


def _digested(tensors: Tensors, name: str) -> tuple[list[bytes], Hashes | None]:
    return digest_inputs(tensors), hash_inputs(tensors, name) if name else None


def _same(found: Mapping[SplitName, _Split], both: tuple[SplitName, SplitName]) -> tuple[int, list[Pair]]:
    """How many inputs are in both, and the first pairs."""
    first = {one: place for place, one in reversed(list(enumerate(found[both[0]].inputs)))}
    second = enumerate(found[both[1]].inputs)
    listed = itertools.islice(((place, one) for place, one in second if one in first), MAX_LISTED)
    pairs = [Pair((both[0], first[one]), (both[1], place), False) for place, one in listed]
    return len(first.keys() & set(found[both[1]].inputs)), pairs


def _alike(found: Mapping[SplitName, _Split], both: tuple[SplitName, SplitName]) -> tuple[int, list[Pair]]:
    """How many pictures of the second split look like one of the first, and the first pairs."""
    one, other = (found[split].hashes for split in both)
    if one is None or other is None:
        return 0, []
    numbers = dict[bytes, int]()
    of_both: list[Integers] = [
        np.array([numbers.setdefault(digest, len(numbers)) for digest in found[split].inputs], np.int64)
        for split in both
    ]
    near = find_near(one, other, MAX_LISTED, (of_both[0], of_both[1]))
    return near.count, [Pair((both[0], place), (both[1], beside), True) for place, beside in near.pairs]


def _shared_clusters(task: Task) -> dict[tuple[SplitName, SplitName], int] | None:
    if not isinstance(task, StatesSplits):
        return None
    named = {split: task.split_clusters(split) for split in SPLITS}
    return {
        (one, other): len(set(first) & set(second))
        for (one, first), (other, second) in itertools.combinations(named.items(), 2)
        if first is not None and second is not None
    } or None


def _distinct(inputs: Sequence[bytes], cases: HeldOut, pictures: bool) -> tuple[Indices, int]:
    """Places of the first case of each input and label; how many inputs have both labels. Rows of a table may be equal
    by chance, where columns have few values: they are copies only within one cluster (a card, a patient)."""
    labels = cases.labels.tolist()
    owners: Iterable[int] = itertools.repeat(0)
    if not pictures:
        owners = range(len(labels)) if cases.clusters is None else cases.clusters.tolist()
    first: dict[tuple[bytes, int, int], int] = {}
    for place, (one, label, owner) in enumerate(zip(inputs, labels, owners, strict=False)):
        first.setdefault((one, label, owner), place)
    both = {(one, label) for one, label, _ in first}
    return np.array(sorted(first.values()), np.int64), len(both) - len({one for one, _ in both})


def without_copies(cases: HeldOut, task: Task) -> tuple[HeldOut, Indices]:
    """Each input counts once: a case that is in the data ten times is one observation. Also the places of the cases
    that stay."""
    kept, _ = _distinct(digest_inputs(cases.tensors), cases, bool(picture_input(tuple(task.baseline.inputs))))
    if len(kept) == len(cases.labels):
        return cases, kept
    alerts = cases.alerts
    return (
        replace(
            cases,
            ids=tuple(cases.ids[place] for place in kept),
            tensors={name: array[kept] for name, array in cases.tensors.items()},
            labels=cases.labels[kept],
            groups={name: values[kept] for name, values in cases.groups.items()},
            clusters=None if cases.clusters is None else cases.clusters[kept],
            alerts=None if alerts is None else replace(alerts, days=alerts.days[kept], eligible=alerts.eligible[kept]),
            cross_clusters=None if cases.cross_clusters is None else cases.cross_clusters[kept],
        ),
        kept,
    )


def mark_known(found: SplitsFound, known_copies: int, known_clusters: int) -> SplitsFound:
    """What was found, marked as known where the recipe states so many."""
    known = set[KnownKind]()
    if sum(found.copies.values()) <= known_copies:
        known.add("copies")
    if sum((found.clusters or {}).values()) <= known_clusters:
        known.add("clusters")
    return replace(found, known=frozenset(known))


def check_apart(found: SplitsFound, known_copies: int, known_clusters: int, page: str) -> SplitsFound:
    """What was found, marked as known where the recipe states it. page: where the cases are listed.

    Raises DataError for more than the recipe states."""
    found, faults = mark_known(found, known_copies, known_clusters), []
    kinds: tuple[tuple[KnownKind, str, Mapping[tuple[SplitName, SplitName], int], int, str], ...] = (
        ("copies", "inputs are", found.copies, known_copies, "known_copies"),
        (
            "clusters",
            "patients (or whatever cases belong to) are",
            found.clusters or {},
            known_clusters,
            "known_shared_clusters",
        ),
    )
    for kind, what, counts, known, key in kinds:
        if kind not in found.known:
            total = sum(counts.values())
            faults.append(f"{total:,} {what} in two splits ({_by_pair(counts)}); {_stated(known)}{key} = {total}")
    if not faults:
        return found
    raise DataError(
        "the cases that judge are not new to the model: "
        + "; ".join(faults)
        + f". A case that was learned from, or that the choice was made on, proves nothing. {page}Take them out of one "
        "of the splits, or, where that is known and accepted, state the number in [cases] of the recipe; the evidence "
        "then says so in its first lines"
    )


def _stated(known: int) -> str:
    return f"the recipe states {known:,}: " if known else "to accept it: "


def _by_pair(counts: Mapping[tuple[SplitName, SplitName], int]) -> str:
    return ", ".join(f"{count:,} in {one} and {other}" for (one, other), count in counts.items() if count)


def _known(found: SplitsFound, kind: KnownKind) -> str:
    return "the recipe states that this is known" if kind in found.known else "more than the recipe states as known"


def split_notes(found: SplitsFound) -> tuple[str, ...]:
    """What a reader must be told before anything else."""
    lines = []
    if sum(found.copies.values()):
        lines.append(
            f"Inputs that are in two splits ({_by_pair(found.copies)}): {_known(found, 'copies')}. What these cases "
            "show is too good."
        )
    if found.clusters and sum(found.clusters.values()):
        lines.append(
            f"Patients, or whatever cases belong to, that are in two splits ({_by_pair(found.clusters)}): "
            f"{_known(found, 'clusters')}. What their cases show may be too good."
        )
    if sum(found.near.values()):
        lines.append(
            f"Pictures that look the same are in two splits ({_by_pair(found.near)}; fewer than 9 of 256 bits of a "
            "difference hash apart). The page of copies beside the finished work shows both; look at them."
        )
    if found.repeated:
        lines.append(f"{counted(found.repeated, 'test cases')} left out: copies of other test cases, which count once.")
    if found.contradictory:
        lines.append(f"{counted(found.contradictory, 'inputs')} among the test cases with both labels.")
    return tuple(lines)
