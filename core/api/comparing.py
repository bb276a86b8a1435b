"""`featherweight compare`, for programs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from featherweight.core.compare.cases import Columns
from featherweight.core.compare.comparison import ComparisonOutcome, compare_models
from featherweight.core.compare.request import ComparisonRequest, Source, Threshold, one_number, threshold_in_force
from featherweight.core.compare.tables import table_of
from featherweight.core.errors import UsageError
from featherweight.core.recipe import read_limits

Given = str | PathLike[str] | Mapping[str, Any]
"""A path, or a table in memory: a dict or DataFrame of column -> values."""


def compare(
    a: Given,
    b: Given,
    *,
    data: Given,
    label: str,
    out: str | PathLike[str],
    limits: str | PathLike[str] | Mapping[str, float | str],
    threshold: Threshold | tuple[Threshold, Threshold] = None,
    in_force: float | None = None,
    prevalence: float | None = None,
    cost_missed: float | None = None,
    cost_alarm: float | None = None,
    positive: str | None = None,
    id_column: str = "id",
    cluster: str | Sequence[str] | None = None,
    groups: str | Sequence[str] = (),
    inputs: Given | None = None,
    features: str | Sequence[str] = (),
    seed: int = 0,
    record: str | PathLike[str] | None = None,
    show_test: bool = False,
) -> ComparisonOutcome:
    """Judge whether model B may take the place of model A, on labelled cases, and write the evidence into `out`.

    a, b: each a table of predictions (columns id, score and perhaps probability: CSV, Parquet, or in memory), an ONNX
    file, or the folder of an artifact. data: a table with one row a case: id, the truth in the column `label` (0 and 1,
    or names with `positive`), whom a case belongs to in the column `cluster` (or two of them, that cut across
    each other), and columns of `groups`. limits: a dict
    like a recipe's [limits], or the path of a TOML file with one. threshold: on the score, of both models or (A, B);
    a dict, name of the outcome that begins there -> threshold, where the app acts on several; an artifact brings its
    own. in_force: a threshold that a site keeps; the page then says what changes there, with
    `prevalence` and both costs what it costs. inputs: what models are run on, the data unless given; features: columns
    that make up the one input of an ONNX file. record: the file in which the uses of the cases are written down,
    `test-uses.jsonl` beside the file of limits or beside `out` unless given. show_test: tell the figures though limits
    are missed.

    That a limit is missed raises nothing: `passed` says so. Raises UsageError and RecipeError for what was asked,
    DataError for tables that do not fit together and programs that fail, ArtifactError, OutputError, MissingExtraError
    without the extra `compare`.

    >>> import featherweight
    >>> cases = {"id": range(400), "y": [0, 1] * 200}
    >>> old = {"id": range(400), "score": [0.1, 0.9] * 200}
    >>> new = {"id": range(400), "score": [0.2, 0.8] * 199 + [0.9, 0.8]}
    >>> outcome = featherweight.compare(
    ...     old, new, data=cases, label="y", limits={"specificity_loss": 0.001}, threshold=0.5, out="verdict",
    ...     show_test=True,
    ... )
    >>> outcome.passed, outcome.page.name
    (False, 'evidence.html')
    >>> print(outcome.checks[0].explanation)  # doctest: +ELLIPSIS
    Specificity fell by 0.0050; with 95% confidence the loss is at most ...
    """
    given = list(threshold) if isinstance(threshold, tuple | list) else [threshold, threshold]
    if len(given) != 2:
        raise UsageError(f"threshold: found {len(given)} of them; expected one for both models, or (A, B)")
    first, second = map(_threshold, given)
    found = read_limits(None, limits) if isinstance(limits, Mapping) else read_limits(Path(limits), {})
    request = ComparisonRequest(
        _source("a", a),
        _source("b", b),
        _source("data", data),
        Columns(label, id_column, _names(cluster), _names(groups), positive),
        found,
        (first, second),
        threshold_in_force(in_force, prevalence, cost_missed, cost_alarm),
        None if inputs is None else _source("inputs", inputs),
        _names(features),
        seed,
        None if record is None else Path(record),
        show_test,
        None if isinstance(limits, Mapping) else Path(limits),
    )
    return compare_models(request, Path(out))


def _threshold(given: Threshold) -> Threshold:
    if isinstance(given, Mapping):
        return {str(name): one_number(f"threshold {name}", value) for name, value in given.items()}
    return None if given is None else one_number("threshold", given)


def _names(given: str | Sequence[str] | None) -> tuple[str, ...]:
    return (given,) if isinstance(given, str) else tuple(given or ())


def _source(name: str, given: Given) -> Source:
    if isinstance(given, str | PathLike):
        return Path(given)
    return table_of(name, given)
