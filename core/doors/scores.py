"""A program's outputs as raw scores, whatever form a model gives its answer in. Used where models are read and where
artifacts are served: it needs numpy alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, get_args

import msgspec
import numpy as np

from featherweight.core.arrays import Array, Probabilities, Scores
from featherweight.core.errors import UsageError
from featherweight.core.softmax import softmax
from featherweight.core.tensors import Tensors, TensorSpec

Meaning = Literal["binary", "classes", "labels", "value"]
"""What a model's scores are: log-odds of yes; logarithms of the shares of several classes, one of which is right;
log-odds of several labels, any of which may be; the value itself of a regression."""
MEANINGS: Mapping[Meaning, str] = {
    "binary": "log-odds of yes",
    "classes": "one of several classes",
    "labels": "several labels",
    "value": "a value",
}
"""In words, for messages."""
Form = Literal["logit", "probability", "logits", "probabilities"]
FORMS: tuple[Form, ...] = get_args(Form)
_LOWEST = 1e-30
_HIGHEST = 1 - 2.0**-25
"""Between float32's largest number below 1 and 1: a probability of 1 has a score of its own."""
_ROUNDING = 1e-4
"""By which the probabilities of all classes may miss a sum of 1."""


class ScoreForm(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which output is the model's answer, and in which form."""

    output: str
    """Name of the program's output."""
    form: Form
    """`logit` and `probability` are one number a case, of the positive class; `logits` and `probabilities` are those of
    the negative and the positive class, in this order, or of all classes in their order."""

    @property
    def is_probability(self) -> bool:
        """Whether the answer is already a probability."""
        return self.form in ("probability", "probabilities")


def raw_scores(outputs: Tensors, score: ScoreForm) -> Scores:
    """float64 [N], log-odds, of outputs [N], [N, 1] or [N, 2]; of more classes their logits [N, K]; NaN where an output
    is NaN."""
    found = outputs[score.output].astype(np.float64)
    columns = found.reshape(len(found), -1)
    match score.form:
        case "logit":
            return np.asarray(columns[:, 0])
        case "logits" if columns.shape[1] > 2:
            return columns
        case "logits":
            return np.asarray(columns[:, 1] - columns[:, 0])
        case "probability":
            chance = np.clip(columns[:, 0], _LOWEST, _HIGHEST)
            return np.asarray(np.log(chance) - np.log1p(-chance))
        case "probabilities":
            chance = np.clip(columns, _LOWEST, 1.0)
            if columns.shape[1] > 2:
                return np.asarray(np.log(chance))
            return np.asarray(np.log(chance[:, 1]) - np.log(chance[:, 0]))


def probabilities(scores: Scores) -> Probabilities:
    """The logistic function of scores [N], the softmax of scores [N, K]."""
    if scores.ndim > 1:
        return softmax(scores)
    return _logistic(scores)


def _logistic(scores: Scores) -> Probabilities:
    """Of each number by itself."""
    with np.errstate(over="ignore"):
        return np.asarray(1 / (1 + np.exp(-scores)))


def meant(scores: Scores, meaning: Meaning) -> Probabilities:
    """What scores [N] or [N, K] say: probabilities of yes, of each class, of each label, or the values themselves."""
    if meaning == "classes":
        return softmax(scores)
    return scores if meaning == "value" else _logistic(scores)


def log_odds(chances: Probabilities) -> Scores:
    """The scores of probabilities [N]."""
    chance = np.clip(chances, _LOWEST, _HIGHEST)
    return np.asarray(np.log(chance) - np.log1p(-chance))


def infer_score(
    outputs: Tensors, specs: Sequence[TensorSpec], output: str = "", form: str = "", classes: int = 2
) -> ScoreForm:
    """The form of a model's answer, from what it says of a few cases; output, form: what the user says of it; classes:
    how many there are.

    Numbers that all lie from 0 to 1 (and, of several classes, add up to 1) are taken for probabilities, all others for
    logits. Raises UsageError where no output, or more than one, is one or two numbers a case, or as many as there are
    classes where those are more than two.
    """
    shown = "; ".join(map(str, specs))
    if output and output not in {spec.name for spec in specs}:
        raise UsageError(f"score: no output is called {output!r}; the model gives {shown}")
    if form and form not in FORMS:
        raise UsageError(f"form: found {form!r}, expected one of {', '.join(FORMS)}")
    named = [spec for spec in specs if spec.name == output or not output]
    shapes: tuple[tuple[int, ...], ...] = ((), (1,), (2,)) if classes == 2 else ((classes,),)
    fit = [spec for spec in named if spec.dtype == "float32" and spec.shape[1:] in shapes]
    if len(fit) != 1:
        wanted = (
            "one or two float32 numbers a case, which decides yes or no"
            if classes == 2
            else f"{classes} float32 numbers a case, one for each class"
        )
        raise UsageError(
            f"the model gives {shown}; expected one output of {wanted}: name it by `output`, or wrap the model so that "
            "it gives one"
        )
    (spec,) = fit
    width = (spec.shape[1] or 1) if len(spec.shape) == 2 else 1
    if form and (form in ("logits", "probabilities")) != (width != 1):
        raise UsageError(f"form: {form} does not fit the output {spec}")
    return ScoreForm(output=spec.name, form=form or _likely_form(outputs[spec.name], width))


def _likely_form(values: Array, width: int) -> Form:
    found = values.astype(np.float64).reshape(len(values), -1)
    found = found[np.isfinite(found).all(axis=1)]
    in_range = len(found) > 0 and bool(((found >= 0) & (found <= 1)).all())
    if width == 1:
        return "probability" if in_range else "logit"
    return "probabilities" if in_range and bool((abs(found.sum(axis=1) - 1) < _ROUNDING).all()) else "logits"
