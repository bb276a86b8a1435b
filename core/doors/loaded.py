"""A model that came in, whatever it was."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from featherweight.core.arrays import Array, Probabilities
from featherweight.core.doors.scores import Meaning
from featherweight.core.model import Model
from featherweight.core.terminal import counted
from featherweight.core.trees.ensemble import Ensemble

Reference = Callable[[Mapping[str, Array]], Probabilities]
"""What the model's own library says: its inputs [N, ...] by name, in the user's own precision, to probabilities [N], of
several classes or labels [N, K], or values [N]."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that `load` read: what the optimizer takes, and what is known of it besides.

    model: a network or trees, with the specs of its inputs and outputs; source: what it was, for the artifact; library:
    which one `reference` asks; reference: None where the model runs as it is, with nothing translated; columns: the
    names of its features, in its order, empty where it has none; classes: its labels, of two the positive one last,
    where it names them; missing_value: a number that it reads as missing, beside NaN; calibration: slope and intercept
    by which its scores become the log-odds of its probabilities; recalibrates: whether its scores are no log-odds, so
    that probabilities come only from the calibration that is fitted here; meaning: what the scores are.

    >>> import featherweight, lightgbm, numpy
    >>> rows, labels = numpy.random.default_rng(0).normal(size=(400, 3)), numpy.arange(400) % 2
    >>> fitted = lightgbm.LGBMClassifier(n_estimators=5, verbosity=-1).fit(rows, labels)
    >>> featherweight.load(fitted)
    <LoadedModel LGBMClassifier: trees of 3 features>
    """

    model: Model
    source: str
    library: str = ""
    reference: Reference | None = None
    columns: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    missing_value: float | None = None
    calibration: tuple[float, float] = (1.0, 0.0)
    recalibrates: bool = False
    notes: tuple[str, ...] = ()
    meaning: Meaning = "binary"

    @property
    def features(self) -> int | None:
        """How many columns of a table it takes; None where it takes something else."""
        inputs = self.model.inputs
        if len(inputs) == 1 and len(inputs[0].shape) == 2 and inputs[0].dtype in ("float32", "float64"):
            return inputs[0].shape[1]
        return None

    @property
    def categories(self) -> tuple[int, ...]:
        """The columns that hold categories, whole numbers."""
        network = self.model.network
        return tuple(network.categorical.tolist()) if isinstance(network, Ensemble) else ()

    def __repr__(self) -> str:
        features = self.features
        takes = "; ".join(map(str, self.model.inputs)) if features is None else counted(features, "features")
        return f"<LoadedModel {self.source.partition(',')[0]}: {self.model.kind} of {takes}>"
