"""What the fraud app provides to the optimizer: the trained model, its days, and how a candidate is calibrated and
sealed.

Importing this loads no framework: mistakes in a recipe's [source] are reported before that."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from featherweight.apps.fraud.sealed import DecisionRule, encode, rule_outcomes
from featherweight.apps.fraud.training.calibration import fit_rule, raw_threshold
from featherweight.apps.fraud.training.description import read_training
from featherweight.apps.fraud.training.split import Split, SplitRows, read_parts
from featherweight.core.arrays import Floats32, Labels, Scores, Texts
from featherweight.core.errors import UsageError
from featherweight.core.population import DataStatement, describe_split
from featherweight.core.recipe.commented import RecipeExample
from featherweight.core.record.training import training_notes
from featherweight.core.task import Alerts, CaseView, HeldOut, HeldOutName, Probability, SealedFiles, SplitName
from featherweight.core.tensors import Tensors
from featherweight.core.trees.ensemble import INPUT, OUTPUT

if TYPE_CHECKING:
    from torch import Tensor

    from featherweight.apps.fraud.training.trained import Trained
    from featherweight.core.losses import TaskLoss

LABELS = ("legitimate", "fraud")
CALIBRATION_BATCH = 256

BANDS: Mapping[str, tuple[str, tuple[float, ...]]] = {
    "amount": ("amount", (10, 50, 100, 200)),
    "Amount": ("amount", (10, 50, 100, 200)),
    "hour": ("hour", (7, 13, 19)),
    "customer_count_30d": ("customer's transactions in 30 days", (10, 40, 80)),
    "terminal_count_30d_delayed": ("terminal's transactions in 30 days, delayed", (1, 10, 40)),
}
"""Feature -> the subgroups' name and the lower edges of their bands, but for the first band's."""


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of [source] in a recipe for fraud."""

    model: str
    """Folder that `featherweight fraud train` wrote."""
    data: str
    """Path of the transactions that the model was trained on, or the catalogue's name of a fetched data set."""
    reader: str
    """Form of the data: records (a folder with transactions and labels), handbook or ulb."""
    batch: Annotated[int, msgspec.Meta(ge=1)] = 256
    """Rows in one training step of `recover`; networks only."""
    reference_standard: str = ""
    """Who or what decided which transaction is a fraud, for the evidence. Empty: what the form of the data says."""
    reference_source: str = ""
    """Where the reference standard is stated: a publication, a protocol."""


RECIPE = RecipeExample(Path(__file__).parents[1] / "recipes" / "new.toml", SourceSettings)
"""For `featherweight recipe new fraud`."""


REFERENCES: Mapping[str, tuple[str, str]] = {
    "records": (
        "the labels file: the last label of a transaction counts, one without a label is taken for legitimate; who "
        "decided it, and how, is not stated",
        "",
    ),
    "handbook": (
        "set by the simulator that made the transactions",
        "Le Borgne et al., Reproducible Machine Learning for Credit Card Fraud Detection, Universite Libre de "
        "Bruxelles (2022)",
    ),
    "ulb": (
        "the column Class as it was published; how the frauds were found is not stated",
        "Dal Pozzolo et al., Calibrating Probability with Undersampling for Unbalanced Classification, CIDM (2015)",
    ),
}
"""Form of the data -> (reference standard, its source), as the data sets state them."""


class FraudTask:
    """Fulfils core.task.Task for a model with one input of features and one margin. reference: the reference standard
    and its source; notes: see StatesNotes."""

    def __init__(
        self,
        trained: Trained,
        parts: Split,
        batch: int = 256,
        *,
        reference: tuple[str, str] = ("", ""),
        notes: tuple[str, ...] = (),
    ) -> None:
        self.trained, self.parts, self.batch = trained, parts, batch
        self.reference, self.notes = reference, notes
        self.baseline = trained.core_model()
        self.positive_threshold = raw_threshold(trained.rule)
        self.baseline_probability: Probability | None = trained.rule.probabilities
        self.baseline_outcomes = rule_outcomes(trained.rule)

    def training_batches(self, epoch: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
        """See Task."""
        from featherweight.apps.fraud.training.fit import Batches

        train = self.parts.train
        return Batches(train.features, train.labels, epoch, self.batch, seed)

    def training_loss(self) -> TaskLoss:
        """See Task."""
        from featherweight.core.losses import BINARY

        return BINARY

    def training_digest(self) -> str:
        """See Task."""
        from featherweight.core.tensors import digest_tensors

        train = self.parts.train
        return digest_tensors({"features": train.features, "labels": train.labels})

    def training_inputs(self) -> Iterator[Tensors]:
        """See StatesSplits."""
        return iter([{INPUT: self.parts.train.features}])

    def split_clusters(self, split: SplitName) -> None:
        """See StatesSplits: the splits are days, and cards are used on many."""

    def data_statement(self) -> DataStatement:
        """See core.task.StatesData."""
        train = self._held_out(self.parts.train)
        population = describe_split(train.labels, train.clusters, train.groups, train.tensors)
        return DataStatement("scores how likely a card transaction is a fraud", *self.reference, population)

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        """See Task."""
        features = self.parts.train.features
        order = np.sort(np.random.default_rng(seed).permutation(len(features))[:samples])
        for start in range(0, len(order), CALIBRATION_BATCH):
            yield {INPUT: features[order[start : start + CALIBRATION_BATCH]]}

    def validation_cases(self) -> HeldOut:
        """See Task."""
        return self._held_out(self.parts.validation)

    def calibration_cases(self) -> HeldOut:
        """See Task: the validation cases."""
        return self.validation_cases()

    def test_cases(self) -> HeldOut:
        """See Task."""
        return self._held_out(self.parts.test)

    def scores(self, outputs: Tensors) -> Scores:
        """float64 [N]: the program's output as it is, a log-odds."""
        return outputs[OUTPUT][:, 0].astype(np.float64)

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        """Each column's values drawn from its own training values, half of them from those of frauds: rows that nobody
        has had."""
        train, generator = self.parts.train, np.random.default_rng(seed)
        frauds = train.features[train.labels == 1]
        half = count // 2 if len(frauds) else 0
        columns = [
            np.concatenate([generator.choice(frauds[:, column], half), generator.choice(values, count - half)])
            for column, values in enumerate(train.features.T)
        ]
        return {INPUT: np.ascontiguousarray(np.stack(columns, axis=1))}

    def show(self, part: HeldOutName, indices: Sequence[int]) -> list[CaseView]:
        """See Task: the features of each case."""
        shown = self.parts.validation if part == "validation" else self.parts.test
        names = self.trained.schema.names
        return [
            CaseView({name: f"{value:.6g}" for name, value in zip(names, shown.features[index], strict=True)})
            for index in indices
        ]

    def _held_out(self, part: SplitRows) -> HeldOut:
        """ids: the place in the data, because what a transaction is called is nobody's business."""
        names = self.trained.schema.names
        groups = {
            BANDS[name][0]: _bands(part.features[:, column], BANDS[name][1])
            for column, name in enumerate(names)
            if name in BANDS
        }
        ids, inputs = tuple(f"transaction {row}" for row in part.rows), {INPUT: part.features}
        if self.parts.source == "given":  # such data names no cards
            return HeldOut(ids, inputs, part.labels, groups)
        # The cards that are known to be compromised have left these rows already: see `protocol.held_out_rows`.
        alerts = Alerts(part.days, np.ones(len(part), bool), max(1, round(self.trained.training.alerts_per_day)))
        return HeldOut(
            ids,
            inputs,
            part.labels,
            groups,
            part.customers,
            alerts,
            part.terminals,
            cluster_noun="cards",
            cross_cluster_noun="terminals",
        )

    def seal(self, scores: Scores, labels: Labels) -> tuple[SealedFiles, float]:
        """See Task. scores: float64 [N]; labels: int64 [N]."""
        training = self.trained.training
        rule = fit_rule(scores, labels, days=self.parts.validation.span_days, alerts_per_day=training.alerts_per_day)
        return self._sealed(rule)

    def seal_unchanged(self) -> SealedFiles:
        """See Task: the baseline's own rule."""
        return self._sealed(self.trained.rule)[0]

    def _sealed(self, rule: DecisionRule) -> tuple[SealedFiles, float]:
        files = {"features.json": encode(self.trained.schema), "decision.json": encode(rule)}
        source, outcomes = self.trained.training.source, rule_outcomes(rule)
        return SealedFiles("fraud", LABELS, files, source, rule.probabilities, outcomes), raw_threshold(rule)


def _bands(values: Floats32, edges: tuple[float, ...]) -> Texts:
    """The band of each value [N] as text."""
    texts = [f"below {edges[0]:g}"]
    texts += [f"{low:g} to {high:g}" for low, high in itertools.pairwise(edges)]
    texts += [f"{edges[-1]:g} and more", "(missing)"]
    place = np.searchsorted(np.array(edges), values, side="right")
    return np.array(texts)[np.where(np.isnan(values), len(texts) - 1, place)]


def open_task(settings: Mapping[str, Any]) -> FraudTask:
    """The task of a recipe's [source], whose keys are those of `SourceSettings`. Raises UsageError, DataError."""
    try:
        source = msgspec.convert(settings, SourceSettings)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"[source] of a fraud recipe: {error}; its keys are {', '.join(SourceSettings.__struct_fields__)}"
        ) from error
    training, schema, _ = read_training(Path(source.model), data=source.data, reader=source.reader)
    parts = read_parts(source.data, source.reader, training.layout, schema.names)
    if parts.names != schema.names:
        raise UsageError(
            f"the model {source.model} was trained on {len(schema.names)} other columns than the reader "
            f"{source.reader!r} gives; name the reader that it was trained with"
        )
    from featherweight.apps.fraud.training.trained import read_trained

    standard, stated_in = REFERENCES[source.reader]
    if source.reference_standard:  # which is not stated where the form's own is
        standard, stated_in = source.reference_standard, ""
    reference = standard, source.reference_source or stated_in
    trained, notes = read_trained(Path(source.model)), training_notes(Path(source.model))
    return FraudTask(trained, parts, source.batch, reference=reference, notes=notes)
