"""Both halves and the model in one process: what `fraud score` and `fraud serve` run, and makes training rows."""

from __future__ import annotations

from featherweight.apps.fraud.decision.policy import mark
from featherweight.apps.fraud.decision.scorer import Scorer
from featherweight.apps.fraud.features.engine import FeatureEngine
from featherweight.apps.fraud.features.histories import DUPLICATE, NEW
from featherweight.apps.fraud.transactions import Decision, Label, Transaction


class Pipeline:
    """FeatureEngine + Scorer. Used by one thread at a time."""

    def __init__(self, scorer: Scorer, engine: FeatureEngine | None = None) -> None:
        self.scorer = scorer
        self.engine = engine or FeatureEngine(scorer.schema.delay_days)

    def process(self, transaction: Transaction) -> Decision:
        """The decision of a transaction, which goes into the histories."""
        known = self.engine.advance(transaction)
        decision = self.scorer.decide(transaction, self.engine.row[self.scorer.columns], duplicate=known == DUPLICATE)
        if known == NEW and not self.engine.late:  # as `mark` asks too; a call less for nearly all
            return decision
        return mark(decision, known, late=self.engine.late)

    def apply_label(self, label: Label) -> int:
        """A label has come; see FeatureEngine."""
        return self.engine.apply_label(label)
