"""What imaging provides to the optimizer: the trained network, its data, and how a candidate is calibrated and sealed.

Importing this loads no framework: mistakes in a recipe's [source] are reported before that."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import numpy as np

from featherweight.apps.imaging.sealed import DecisionRule, encode
from featherweight.apps.imaging.synthetic.radiographs import LEVELS, synthetic_cases
from featherweight.apps.imaging.training.calibration import fit_decision, raw_threshold
from featherweight.apps.imaging.training.cases import Cases, Split
from featherweight.apps.imaging.training.description import read_description
from featherweight.apps.imaging.training.layouts import read_split
from featherweight.core.arrays import GreyBytes, Labels, Scores
from featherweight.core.errors import UsageError
from featherweight.core.population import DataStatement, describe_split
from featherweight.core.recipe.commented import RecipeExample
from featherweight.core.record.training import training_notes
from featherweight.core.task import CaseView, HeldOut, HeldOutName, SealedFiles, SplitName
from featherweight.core.tensors import Tensors

if TYPE_CHECKING:
    from torch import Tensor

    from featherweight.apps.imaging.training.trained import Trained
    from featherweight.core.losses import TaskLoss

REFERENCE_BLOCKS = 16
"""Blocks along a side of a reference input: an image of them compresses to a hundredth, and a network's arithmetic is
as busy."""

Stages = tuple[tuple[Annotated[int, msgspec.Meta(ge=8, le=4096)], Annotated[int, msgspec.Meta(ge=0, le=10_000)]], ...]


class SourceSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The keys of [source] in a recipe for imaging."""

    network: str
    """Folder that `featherweight imaging train` wrote."""
    data: str
    """Path of the labelled images that the network was trained on, or the catalogue's name of a fetched data set."""
    reader: str
    """Layout of the data: folder (a folder with a labels.csv), kermany or medmnist."""
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    """Random seed of the split by patient into training and validation, as `--split-seed` of the training."""
    batch: Annotated[int, msgspec.Meta(ge=1)] = 32
    """Images in one training step of `recover`."""
    stages: Stages = ()
    """Progressive resizing of `recover` as [[side, epochs], ...]: so many epochs on images of this side in pixels.
    Epochs that it does not name are at the network's full size."""
    reference_standard: str = ""
    """Who or what decided which label an image has, for the evidence. Empty: what the layout itself says."""
    reference_source: str = ""
    """Where the reference standard is stated: a publication, a protocol."""


RECIPE = RecipeExample(Path(__file__).parents[1] / "recipes" / "new.toml", SourceSettings)
"""For `featherweight recipe new imaging`."""


_KERMANY = "Kermany et al., Cell 172, 1122-1131 (2018)"
REFERENCES: Mapping[str, tuple[str, str]] = {
    "kermany": (
        "graded by two expert physicians, the test images checked by a third, after unreadable ones were left out",
        _KERMANY,
    ),
    "medmnist": (
        "the labels that the set was published with; of PneumoniaMNIST those of the chest x-rays that it is made from",
        f"Yang et al., Scientific Data 10, 41 (2023); {_KERMANY}",
    ),
    "folder": ("the column label of labels.csv; who decided it, and how, is not stated", ""),
}
"""Layout -> (reference standard, its source), as the data sets state them."""


class ImagingTask:
    """Fulfils core.task.Task for a network with one grey input and one logit. reference: the reference standard and its
    source; cluster_noun: what those are called whose images depend on each other; notes: see StatesNotes."""

    def __init__(
        self,
        trained: Trained,
        split: Split,
        batch: int = 32,
        stages: Stages = (),
        *,
        reference: tuple[str, str] = ("", ""),
        cluster_noun: str = "patients",
        notes: tuple[str, ...] = (),
    ) -> None:
        self.trained, self.split, self.batch = trained, split, batch
        self.reference, self.cluster_noun, self.notes = reference, cluster_noun, notes
        self._sides = [side for side, epochs in stages for _ in range(epochs)]
        self.baseline = trained.model()
        self.positive_threshold = raw_threshold(trained.decision)
        self.baseline_probability = trained.decision.probabilities

    def training_batches(self, epoch: int, seed: int) -> Iterable[tuple[Tensor, Tensor]]:
        """See Task."""
        from featherweight.apps.imaging.training.fit import Epoch

        side = self._sides[epoch] if epoch < len(self._sides) else self.trained.description.side
        return Epoch(self.split.train, epoch, batch=self.batch, side=side, seed=seed)

    def training_loss(self) -> TaskLoss:
        """See Task."""
        from featherweight.core.losses import BINARY

        return BINARY

    def training_digest(self) -> str:
        """See Task."""
        from featherweight.core.tensors import digest_tensors

        train = self.split.train
        return digest_tensors({"images": train.images, "labels": train.labels})

    def training_inputs(self) -> Iterator[Tensors]:
        """See StatesSplits."""
        images = self.split.train.images
        return (_inputs(images[start : start + 64]) for start in range(0, len(images), 64))

    def split_clusters(self, split: SplitName) -> Sequence[str]:
        """See StatesSplits: the patients."""
        parts = {"training": self.split.train, "validation": self.split.validation, "test": self.split.test}
        return parts[split].patients

    def data_statement(self) -> DataStatement:
        """See core.task.StatesData."""
        train = self.split.train
        negative, positive = self.trained.description.labels
        standard, source = self.reference
        clusters = np.unique(train.patients, return_inverse=True)[1].astype(np.int64)
        population = describe_split(train.labels, clusters, train.groups, {"image": train.images})
        return DataStatement(f"tells {positive} from {negative} on a grey medical image", standard, source, population)

    def calibration_batches(self, samples: int, seed: int) -> Iterator[Tensors]:
        """See Task."""
        order = np.random.default_rng(seed).permutation(len(self.split.train))[:samples]
        for start in range(0, len(order), 8):
            yield _inputs(self.split.train.images[np.sort(order[start : start + 8])])

    def validation_cases(self) -> HeldOut:
        """See Task."""
        return self._held_out(self.split.validation)

    def calibration_cases(self) -> HeldOut:
        """See Task: the validation cases in several views."""
        from featherweight.apps.imaging.training.fit import calibration_views

        return self._held_out(calibration_views(self.split.validation))

    def test_cases(self) -> HeldOut:
        """See Task."""
        return self._held_out(self.split.test)

    def scores(self, outputs: Tensors) -> Scores:
        """float64 [N]: the program's logits."""
        return outputs["logit"][:, 0].astype(np.float64)

    def reference_inputs(self, count: int, seed: int) -> Tensors:
        """Drawn radiographs in coarse blocks, some upside down, some as negatives: a network says yes to some of such
        images and no to others."""
        side, generator = self.trained.description.side, np.random.default_rng(seed)
        coarse = min(side, REFERENCE_BLOCKS)
        place = np.arange(side) * coarse // side
        images = np.stack([case.pixels for case in synthetic_cases(count, seed, side=coarse)]).astype(np.uint32)
        turned, negative = generator.integers(0, 2, (2, count)).astype(bool)
        images[turned] = images[turned, ::-1]
        images[negative] = LEVELS - 1 - images[negative]
        return _inputs((images[:, place][:, :, place] * 255 // (LEVELS - 1)).astype(np.uint8))

    def show(self, part: HeldOutName, indices: Sequence[int]) -> list[CaseView]:
        """See Task: the columns and the picture of each case."""
        cases = self.split.validation if part == "validation" else self.split.test
        return [
            CaseView({column: str(values[index]) for column, values in cases.groups.items()}, cases.images[index])
            for index in indices
        ]

    def seal(self, scores: Scores, labels: Labels) -> tuple[SealedFiles, float]:
        """See Task. scores: float64 [N]; labels: int64 [N]."""
        return self._sealed(fit_decision(scores, labels, self.trained.decision.prevalence))

    def seal_unchanged(self) -> SealedFiles:
        """See Task: the baseline's own decision."""
        return self._sealed(self.trained.decision)[0]

    def _held_out(self, cases: Cases) -> HeldOut:
        patients = np.unique(cases.patients, return_inverse=True)[1].astype(np.int64)
        inputs, noun = _inputs(cases.images), self.cluster_noun
        return HeldOut(cases.ids, inputs, cases.labels, cases.groups, patients, cluster_noun=noun)

    def _sealed(self, decision: DecisionRule) -> tuple[SealedFiles, float]:
        files = {"preprocess.json": encode(self.trained.preprocess), "decision.json": encode(decision)}
        description = self.trained.description
        sealed = SealedFiles("imaging", description.labels, files, description.source, decision.probabilities)
        return sealed, raw_threshold(decision)


def _inputs(images: GreyBytes) -> Tensors:
    return {"image": images[:, None].astype(np.float32) / 255}


def open_task(settings: Mapping[str, Any]) -> ImagingTask:
    """The task of a recipe's [source], whose keys are those of `SourceSettings`. Raises UsageError, DataError."""
    try:
        source = msgspec.convert(settings, SourceSettings)
    except msgspec.ValidationError as error:
        raise UsageError(
            f"[source] of an imaging recipe: {error}; its keys are {', '.join(SourceSettings.__struct_fields__)}"
        ) from error
    description, *_ = read_description(Path(source.network), data=source.data, reader=source.reader)
    split = read_split(source.data, source.reader, side=description.side, seed=source.seed)
    from featherweight.apps.imaging.training.trained import read_trained

    trained = read_trained(Path(source.network))
    standard, stated_in = REFERENCES[source.reader]
    if source.reference_standard:  # which is not stated where the layout's own is
        standard, stated_in = source.reference_standard, ""
    reference = standard, source.reference_source or stated_in
    noun = "images" if source.reader == "medmnist" else "patients"  # which names no patients
    notes = training_notes(Path(source.network))
    return ImagingTask(trained, split, source.batch, source.stages, reference=reference, cluster_noun=noun, notes=notes)
