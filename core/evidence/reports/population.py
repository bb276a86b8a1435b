"""The cases of each split, what the data set says of them, and the digests of what was compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from featherweight.core.evidence.report import Comparison, Evidence
from featherweight.core.population import SplitPopulation, describe_split

Rows = list[tuple[str, list[str]]]


@dataclass(frozen=True)
class PopulationTable:
    """splits: the columns; rows: a name with one text for each split; groups: the same, of the values by which cases
    are told apart."""

    splits: list[str]
    rows: Rows
    groups: Rows


def populations(evidence: Evidence) -> dict[str, SplitPopulation]:
    """Split -> its cases. What the search did not record is taken from the predictions, which know no inputs."""
    training = evidence.statement.training
    found = {} if training is None else {"training": training}
    for part in (evidence.validation, evidence.test):
        if part is not None:
            found[part.split] = part.population or _of_predictions(part)
    return found


def _of_predictions(part: Comparison) -> SplitPopulation:
    of = part.baseline.predictions
    names = () if of.label_kind == "binary" else of.outcome_names
    return describe_split(of.labels, of.clusters, of.groups, names=names)


def cluster_noun(evidence: Evidence) -> str:
    """What the clusters are called: patients, cards ..."""
    return evidence.deciding.baseline.predictions.cluster_noun


def population_table(evidence: Evidence) -> PopulationTable:
    """A row without a figure in any split is left out."""
    found = populations(evidence)

    def row(name: str, amount: Callable[[SplitPopulation], int | None], *, share: bool = False) -> Rows:
        amounts = [amount(one) for one in found.values()]
        if all(one is None for one in amounts):
            return []
        cases = [one.cases for one in found.values()]
        return [(name, [_text(one, of if share else 0) for one, of in zip(amounts, cases, strict=True)])]

    rows = [
        *row("Cases", lambda one: one.cases),
        *row(cluster_noun(evidence).capitalize(), lambda one: one.clusters),
        *[line for name, amount in _classes(evidence) for line in row(name, amount, share=True)],
        *row("With a missing input value", lambda one: one.incomplete, share=True),
    ]
    return PopulationTable(list(found), rows, _group_rows(found))


def _classes(evidence: Evidence) -> list[tuple[str, Callable[[SplitPopulation], int | None]]]:
    """Each class with what counts its cases."""
    if evidence.deciding.baseline.predictions.label_kind != "binary":
        return [(name, partial(_of_class, name)) for name in evidence.labels]
    negative, positive = evidence.labels
    return [(positive.capitalize(), lambda one: one.positives), (negative.capitalize(), _negatives)]


def _of_class(name: str, one: SplitPopulation) -> int | None:
    return one.classes.get(name)


def _negatives(one: SplitPopulation) -> int | None:
    return None if one.positives is None else one.cases - one.positives


def _as_dict(one: SplitPopulation) -> dict[str, Any]:
    """Without what these labels have not."""
    left_out = ("positives",) if one.positives is None else ("classes",)
    return {name: value for name, value in asdict(one).items() if name not in left_out}


def _group_rows(found: Mapping[str, SplitPopulation]) -> Rows:
    rows: Rows = []
    for column in dict.fromkeys(name for one in found.values() for name in one.groups):
        values = dict.fromkeys(value for one in found.values() for value in one.groups.get(column, {}))
        for value in values:
            amounts = []
            for one in found.values():
                known = one.groups.get(column, {})
                beyond = column in one.others and value not in known  # it may be among those that are not told
                amounts.append("—" if beyond or not known else _text(known.get(value, 0), one.cases))
            rows.append((f"{column}: {value}", amounts))
        others = [one.others.get(column, 0) for one in found.values()]
        if any(others):
            rows.append((f"{column}: further values", [f"{count:,}" for count in others]))
    return rows


def _text(count: int | None, of: int) -> str:
    if count is None:
        return "—"
    return f"{count:,}" + (f" ({count / of:.1%})" if of else "")


def digest_rows(evidence: Evidence, document_sha256: str) -> list[tuple[str, str]]:
    """What was compared, by its digest; what has none is left out."""
    rows = []
    for split, one in populations(evidence).items():
        rows += [
            (f"Inputs of the {split} cases", one.inputs_sha256),
            (f"Labels of the {split} cases", one.labels_sha256),
        ]
    part = evidence.deciding
    rows += [
        (f"Baseline program ({part.baseline.name})", part.baseline.program_sha256),
        (f"Candidate program ({part.candidate.name})", part.candidate.program_sha256),
        ("Recipe", evidence.recipe_sha256),
        ("evidence.json", document_sha256),
    ]
    return [(name, digest) for name, digest in rows if digest]


def population_as_dict(evidence: Evidence) -> dict[str, Any]:
    """The keys of evidence.json that this part adds."""
    statement, part = evidence.statement, evidence.deciding
    return {
        "purpose": statement.purpose,
        "objective": evidence.objective,
        "population": {
            "cluster_noun": cluster_noun(evidence),
            "reference_standard": statement.reference_standard,
            "reference_source": statement.reference_source,
            "splits": {split: _as_dict(one) for split, one in populations(evidence).items()},
        },
        "programs": {
            "baseline_sha256": part.baseline.program_sha256,
            "candidate_sha256": part.candidate.program_sha256,
        },
        "recipe": evidence.recipe_text,
    }
