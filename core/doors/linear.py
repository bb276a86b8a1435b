"""scikit-learn's linear models and MLPClassifier as networks, with what a pipeline does to their columns before."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor, nn

from featherweight.core.arrays import Array, Floats, Floats32, Integers, Probabilities
from featherweight.core.doors.columns import Columns, as_frame
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.scores import Meaning, probabilities
from featherweight.core.doors.trees import class_labels, estimator_answer, feature_names
from featherweight.core.errors import UsageError
from featherweight.core.model import Model
from featherweight.core.terminal import counted
from featherweight.core.trees.ensemble import INPUT, tensor_specs

_LOGISTIC: Final = ("LogisticRegression", "LogisticRegressionCV", "LinearDiscriminantAnalysis", "MLPClassifier")
"""Models whose scores are log-odds."""
LINEAR: Final = (*_LOGISTIC, "SGDClassifier", "LinearSVC", "RidgeClassifier", "RidgeClassifierCV", "Perceptron")
_ACTIVATIONS: Final = {"identity": nn.Identity, "logistic": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


class Sums(nn.Module):
    """Missing values filled in, then layers: float32 [N, F] to log-odds [N, 1], or to K logits [N, K]."""

    fill: Tensor

    def __init__(self, fill: Floats, layers: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("fill", torch.from_numpy(fill.astype(np.float32)))
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, F] to [N, 1] or [N, K]."""
        found: Tensor = self.layers(torch.where(torch.isnan(x), self.fill, x))
        return found


class SumsOfCategories(nn.Module):
    """Numbers, missing ones filled in, and which category other columns are or that they are missing; then layers:
    float32 [N, F] to log-odds [N, 1], or to K logits [N, K]."""

    fill: Tensor
    numbers: Tensor
    columns: Tensor
    values: Tensor
    encoded: Tensor

    def __init__(self, inputs: Inputs, layers: nn.Sequential) -> None:
        super().__init__()
        self.register_buffer("fill", torch.from_numpy(inputs.fill.astype(np.float32)))
        self.register_buffer("numbers", torch.from_numpy(inputs.numbers))
        self.register_buffer("columns", torch.from_numpy(inputs.columns))
        self.register_buffer("values", torch.from_numpy(inputs.values))
        self.register_buffer("encoded", torch.from_numpy(inputs.encoded))
        self.layers = layers

    def forward(self, x: Tensor) -> Tensor:
        """float32 [N, F] to [N, 1] or [N, K]."""
        numbers = x[:, self.numbers]
        filled = torch.where(torch.isnan(numbers), self.fill, numbers)
        are = (x[:, self.columns] == self.values).float()
        lacks = torch.isnan(x[:, self.encoded]).float()
        found: Tensor = self.layers(torch.cat([filled, are, lacks], dim=1))
        return found


@dataclass(frozen=True, eq=False)
class Inputs:
    """What the first layer adds up. numbers, fill: int64, float64 [A], columns that are numbers and what a missing one
    is; columns, values: int64, float32 [B], columns and one category of each; encoded: int64 [C], columns that may be
    missing; weight: float64 [A + B + C, H]; bias: float64 [H]."""

    numbers: Integers
    fill: Floats
    columns: Integers
    values: Floats32
    encoded: Integers
    weight: Floats
    bias: Floats


def read_linear(whole: Any, last: Any, columns: Columns | None) -> LoadedModel:
    """last: a fitted linear classifier or MLPClassifier of two or more classes; whole: the pipeline that it ends, or
    itself; columns: what the pipeline does before it. Raises UsageError for one that is not fitted, or of labels of
    which a case may have several."""
    name = type(last).__name__
    if not hasattr(last, "coef_" if name != "MLPClassifier" else "coefs_"):
        raise UsageError(f"this {name} is not fitted")
    count = len(last.classes_)
    if getattr(last, "out_activation_", "") == "logistic" and last.n_outputs_ != 1:
        raise UsageError(
            f"this {name} tells {counted(count, 'labels')}, of which a case may have several; no such model is judged"
        )
    if columns is not None and any(map(_clips, columns.steps)):
        raise UsageError("the pipeline cuts off what is too large or too small (clip=True); fit it without")
    weight, bias, *others = _layers(last)
    names = () if columns is None else columns.names
    width = len(weight) if columns is None else columns.width
    if columns is None:
        network: nn.Module = Sums(np.zeros(width), nn.Sequential(_layer(weight, bias), *others))
    else:
        inputs = _inputs(columns, weight, bias)
        layers = nn.Sequential(_layer(inputs.weight, inputs.bias), *others)
        simple = not columns.encoded.any() and np.array_equal(inputs.numbers, np.arange(width))
        network = Sums(inputs.fill, layers) if simple else SumsOfCategories(inputs, layers)
    logistic = name in _LOGISTIC or (name == "SGDClassifier" and last.loss == "log_loss")
    # Of several classes others than multinomial models fit a yes or no for each: no softmax gives their probabilities.
    if count > 2 and (name == "SGDClassifier" or _is_one_against_rest(last)):
        logistic = False

    meaning: Meaning = "binary" if count == 2 else "classes"

    def reference(given: Mapping[str, Array]) -> Probabilities:
        rows = as_frame(given[INPUT], names)
        if name == "MLPClassifier":
            return estimator_answer(whole, rows, meaning)
        return probabilities(np.asarray(whole.decision_function(rows), np.float64))

    return LoadedModel(
        Model(network.eval(), *tensor_specs(width, 1 if count == 2 else count)),
        name,
        "scikit-learn",
        reference,
        feature_names(whole),
        class_labels(last),
        recalibrates=not logistic,
        meaning=meaning,
    )


def _is_one_against_rest(last: Any) -> bool:
    """Of a logistic regression of several classes."""
    return getattr(last, "solver", "") == "liblinear" or getattr(last, "multi_class", "") == "ovr"


def _clips(step: Any) -> bool:
    inner = [one[1] for one in (*getattr(step, "steps", ()), *getattr(step, "transformers_", ()))]
    return bool(getattr(step, "clip", False)) or any(map(_clips, inner))


def _layers(last: Any) -> tuple[Any, ...]:
    """(weight [F, H] and bias [H] of the first layer, modules behind it)."""
    if type(last).__name__ != "MLPClassifier":
        outputs = 1 if len(last.classes_) == 2 else len(last.classes_)
        weight = np.asarray(last.coef_, np.float64).reshape(outputs, -1).T
        return weight, np.broadcast_to(np.ravel(last.intercept_), outputs).astype(np.float64)
    found: list[Any] = []
    for weight, bias in zip(last.coefs_[1:], last.intercepts_[1:], strict=True):
        found += [_ACTIVATIONS[last.activation](), _layer(np.asarray(weight), np.asarray(bias))]
    return np.asarray(last.coefs_[0], np.float64), np.asarray(last.intercepts_[0], np.float64), *found


def _layer(weight: Floats, bias: Floats) -> nn.Linear:
    layer = nn.Linear(*weight.shape)
    with torch.no_grad():
        layer.weight.copy_(torch.from_numpy(weight.T.astype(np.float32)))
        layer.bias.copy_(torch.from_numpy(bias.astype(np.float32)))
    return layer


def _inputs(columns: Columns, weight: Floats, bias: Floats) -> Inputs:
    """The same sums over the table's columns, by asking the steps what 0, 1, a missing value and each category become.
    A step that is not straight (a power, quantiles) shows itself on the user's rows, and is refused then."""
    zero, one, lost = (
        np.asarray(columns.asked(np.full((1, columns.width), value))[0], np.float64) for value in (0.0, 1.0, np.nan)
    )
    plain, slope = np.flatnonzero(~columns.encoded), one - zero
    with np.errstate(divide="ignore", invalid="ignore"):
        fill = np.where(slope != 0, (lost - zero) / slope, 0.0)[plain]
    bias = bias + zero[plain] @ weight[plain]
    values, at, parts, lacking = list[Floats32](), list[int](), list[Floats](), list[Floats]()
    for column, known in columns.categories.items():
        of_it = columns.origin == column
        told = columns.of_categories(column)[:, of_it] @ weight[of_it]
        bias = bias + told[-2]
        named = ~np.isnan(known)
        values.append(known[named])
        at += [column] * int(named.sum())
        parts.append(told[:-2][named] - told[-2])
        lacking.append(told[-1:] - told[-2])
    return Inputs(
        columns.origin[plain],
        fill,
        np.array(at, np.int64),
        np.concatenate([np.zeros(0, np.float32), *values]),
        np.array(list(columns.categories), np.int64),
        np.concatenate([weight[plain] * slope[plain, None], *parts, *lacking]),
        bias,
    )
