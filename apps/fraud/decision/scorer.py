"""Session + features -> Decision: an artifact of this app, opened."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from featherweight.apps.fraud.decision.policy import choose_outcome, fall_back
from featherweight.apps.fraud.features.catalogue import CATALOGUE
from featherweight.apps.fraud.sealed import DecisionRule, FeatureSchema, decode_features, decode_rule
from featherweight.apps.fraud.transactions import Decision, Reason, Transaction
from featherweight.core.arrays import FeatureRow, FeatureRows, Integers
from featherweight.core.artifact import Artifact
from featherweight.core.backends.base import Session, row_function
from featherweight.core.errors import ArtifactError, BackendError
from featherweight.core.serving import ModelSource
from featherweight.core.terminal import counted

INPUT, OUTPUT = "features", "score"
REASONS = 3


class Scorer:
    """One artifact, ready to decide. Used by one thread at a time.

    columns: int64 [F]: where the program's columns stand in a vector of all CATALOGUE features; empty for a schema
    whose features are given by the caller.
    """

    def __init__(self, artifact: Artifact, session: Session) -> None:
        self.schema: FeatureSchema = decode_features(sealed_file(artifact, "features.json"))
        self.rule: DecisionRule = decode_rule(sealed_file(artifact, "decision.json"))
        self.model = f"{artifact.manifest.name}@{artifact.sha256[:12]}"
        self._session = session
        self.score = row_function(session)
        """row float32 [F] -> log-odds."""
        self._reference_row = np.array(self.schema.reference_values, np.float32)
        self.columns = find_columns(self.schema)

    def decide(self, transaction: Transaction, row: FeatureRow, *, duplicate: bool = False) -> Decision:
        """row: float32 [F], the program's columns. A score that is not a number gives the rule's fallback."""
        return self._decision(transaction, row, self.score(row), duplicate)

    def decide_batch(
        self, transactions: list[Transaction], rows: FeatureRows, duplicates: list[bool]
    ) -> list[Decision]:
        """rows: float32 [N, F]."""
        scores = self._session.run({INPUT: rows})[OUTPUT][:, 0]
        return [
            self._decision(transaction, row, float(score), duplicate)
            for transaction, row, score, duplicate in zip(transactions, rows, scores, duplicates, strict=True)
        ]

    def explain(self, row: FeatureRow, score: float) -> tuple[Reason, ...]:
        """The features that moved the score most: each is set to its reference value in turn, and the score run again
        (occlusion; Zeiler & Fergus, ECCV 2014). Only those that raised it."""
        count = len(row)
        changed = np.repeat(row[None], count, axis=0)
        np.fill_diagonal(changed, self._reference_row)
        # Python's own numbers: with so few of them, numpy's calls would cost more than the work.
        effects = (score - self._session.run({INPUT: changed})[OUTPUT][:, 0]).tolist()
        strongest = sorted(range(count), key=effects.__getitem__, reverse=True)[:REASONS]
        return tuple(
            Reason(feature=self.schema.names[i], value=_known(float(row[i])), effect=round(effects[i], 4))
            for i in strongest
            if effects[i] > 0
        )

    def close(self) -> None:
        """Give the runtime's memory back."""
        self._session.close()

    def _decision(self, transaction: Transaction, row: FeatureRow, score: float, duplicate: bool) -> Decision:
        if not math.isfinite(score):
            # A network fed with what it never saw: no comparison with a threshold would mean anything.
            return msgspec.structs.replace(fall_back(transaction, self.rule, self.model), duplicate=duplicate)
        probability = self.rule.probability(score)
        outcome = choose_outcome(probability, self.rule)
        return Decision(
            transaction_id=transaction.transaction_id,
            customer_id=transaction.customer_id,
            terminal_id=transaction.terminal_id,
            time_ms=transaction.time_ms,
            amount=transaction.amount,
            outcome=outcome,
            probability=round(probability, 6),
            model=self.model,
            reasons=() if outcome == "approve" else self.explain(row, score),
            duplicate=duplicate,
        )


def _known(value: float) -> float | None:
    return None if math.isnan(value) else round(value, 4)


def open_scorer(source: ModelSource, *, stopping: Callable[[], bool] = lambda: False) -> Scorer:
    """Open a fraud artifact; stopping: ends the try of a program that is new here.

    Raises ArtifactError for one that asks for features that this version does not compute or whose program does not
    fit them, and what `ModelSource.read` and `open` raise.
    """
    artifact = source.read("fraud")
    schema = decode_features(sealed_file(artifact, "features.json"))
    model = source.open(artifact, stopping=stopping)
    try:
        check_shape(source.folder, model.session, schema)
        return Scorer(artifact, model.session)
    except (ArtifactError, BackendError):
        model.close()
        raise


def check_shape(directory: Path, session: Session, schema: FeatureSchema) -> None:
    """Raise ArtifactError unless the program takes the schema's columns and gives one score a row."""
    inputs = [(spec.name, spec.shape) for spec in session.inputs]
    outputs = [(spec.name, spec.shape) for spec in session.outputs]
    if inputs != [(INPUT, (None, len(schema.names)))] or outputs != [(OUTPUT, (None, 1))]:
        raise ArtifactError(
            f"{directory}: the program takes {inputs} and gives {outputs}; features.json names "
            f"{counted(len(schema.names), 'columns')}, which wants {INPUT} [N, {len(schema.names)}] and {OUTPUT} [N, 1]"
        )


def find_columns(schema: FeatureSchema) -> Integers:
    """int64 [F]: where the schema's features stand in a row of the whole catalogue; [0] where the caller brings
    them."""
    if schema.source == "given":
        return np.empty(0, np.int64)
    known = {name: index for index, name in enumerate(CATALOGUE)}
    unknown = [name for name in schema.names if name not in known]
    if unknown:
        raise ArtifactError(
            f"features.json: this version does not compute {', '.join(unknown)}; install the version that trained the "
            "model, or train it again"
        )
    return np.array([known[name] for name in schema.names], np.int64)


def sealed_file(artifact: Artifact, name: str) -> bytes:
    """Raises ArtifactError when the artifact has no such file."""
    try:
        return artifact.sealed[name]
    except KeyError as error:
        raise ArtifactError(
            f"the artifact {artifact.manifest.name!r} has no {name}; it was made for another app"
        ) from error
