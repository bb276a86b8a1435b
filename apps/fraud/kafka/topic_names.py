"""What the topics of a stream are called."""

from __future__ import annotations


class Topics:
    """sources: what a member reads; keyed: those that must have the same number of partitions; the decisions' and
    others' may have any."""

    def __init__(self, prefix: str) -> None:
        self.transactions, self.labels = f"{prefix}transactions", f"{prefix}labels"
        self.repartition = f"{prefix}transactions.repartition"
        self.customers, self.terminals = f"{prefix}customers.changelog", f"{prefix}terminals.changelog"
        self.decisions, self.alerts = f"{prefix}decisions", f"{prefix}alerts"
        self.dead_letter = f"{prefix}transactions.dead-letter"
        self.sources = (self.transactions, self.labels, self.repartition)
        self.changelogs = (self.customers, self.terminals)
        self.keyed = (*self.sources, *self.changelogs)
        self.all = (*self.keyed, self.decisions, self.alerts, self.dead_letter)
