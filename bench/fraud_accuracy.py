"""Accuracy of the fraud models: the Fraud Detection Handbook's protocol and the ULB cards, beside published figures.

python -m bench.fraud_accuracy              validation folds: what models and parameters are chosen by
python -m bench.fraud_accuracy --test       test folds too. Run it last: nothing may be chosen by it.

Add names of models to run only those. The handbook's figures to compare with: Le Borgne et al., 2022, chapters 5 to 7.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from statistics import mean

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from bench.timing import show
from featherweight.apps.fraud.features.catalogue import CATALOGUE, HANDBOOK
from featherweight.apps.fraud.files.readers import read_handbook
from featherweight.apps.fraud.labels import DAY_MS, label_later
from featherweight.apps.fraud.training.fit import fit, margins
from featherweight.apps.fraud.training.models import CARDS, COLUMNS, HISTORIES, Logistic, ModelSettings
from featherweight.apps.fraud.training.protocol import (
    PREQUENTIAL,
    SINGLE,
    VALIDATION,
    Figures,
    Fold,
    evaluate,
    test_rows,
    train_rows,
)
from featherweight.apps.fraud.training.replay import replay
from featherweight.apps.fraud.training.split import split_cards
from featherweight.core.arrays import Clusters, FeatureRows, Integers, Labels
from featherweight.core.datasets.catalogue import local_copy

COLUMNS_SHOWN = ("ROC AUC", "average precision", "card precision@100")
PUBLISHED_SINGLE = (
    ("published: logistic regression", (0.871, 0.606, 0.291)),
    ("published: random forest", (0.867, 0.658, 0.287)),
    ("published: XGBoost", (0.862, 0.639, 0.273)),
)
PUBLISHED_PREQUENTIAL = (
    ("published: logistic regression", (0.868, 0.623, 0.297)),
    ("published: random forest", (0.870, 0.678, 0.299)),
    ("published: XGBoost", (0.869, 0.687, 0.303)),
    ("published: feed-forward network", (0.876, 0.675, 0.303)),
    ("published: LSTM", (0.876, 0.665, 0.297)),
    ("published: balanced bagging", (0.879, 0.680, 0.305)),
)


@dataclass(frozen=True)
class Data:
    features: FeatureRows
    labels: Labels
    days: Integers
    customers: Clusters

    def judge(self, settings: ModelSettings, names: Sequence[str], fold: Fold) -> Figures:
        """Fit on the fold's training days, figures of its test days."""
        columns = [CATALOGUE.index(name) for name in names]
        train, test = train_rows(self.days, fold), test_rows(self.days, self.customers, self.labels, fold)
        model = fit(settings, np.ascontiguousarray(self.features[train][:, columns]), self.labels[train])
        scores = margins(model, np.ascontiguousarray(self.features[test][:, columns]))
        return evaluate(scores, self.days[test], self.customers[test], self.labels[test])


def read_rows() -> Data:
    rows = replay(label_later(read_handbook(_copy("fraud_handbook"))))
    return Data(rows.features, (rows.labels == 1).astype(np.int64), rows.time_ms // DAY_MS, rows.customers)


def _copy(name: str) -> Path:
    path = local_copy(name)
    if path is None:
        raise SystemExit(f"needs the data set {name}; see: featherweight data list")
    return path


def main(words: Sequence[str]) -> None:
    test, kinds = "--test" in words, [word for word in words if word != "--test"] or list(HISTORIES)
    if unknown := set(kinds) - set(HISTORIES):
        raise SystemExit(f"{', '.join(sorted(unknown))}: expected some of {', '.join(HISTORIES)}\n\n{__doc__}")
    data = read_rows()
    models: dict[str, Callable[[Fold], Figures]] = {
        "logistic, the handbook's 15 features": cache(partial(data.judge, Logistic(), HANDBOOK))
    }
    for kind in kinds:
        models[kind] = cache(partial(data.judge, HISTORIES[kind], COLUMNS))
    _table("handbook, mean of the four validation folds", models, VALIDATION)
    if test:
        _table("handbook, single split, test", models, (SINGLE,), PUBLISHED_SINGLE)
        _table("handbook, prequential, mean of four test folds", models, PREQUENTIAL, PUBLISHED_PREQUENTIAL)
    _cards(kinds, test=test)


def _table(
    title: str,
    models: dict[str, Callable[[Fold], Figures]],
    folds: Sequence[Fold],
    published: Sequence[tuple[str, tuple[float, float, float]]] = (),
) -> None:
    rows = []
    for name, judge in models.items():
        found = [judge(fold) for fold in folds]
        means = [mean(getattr(one, key) for one in found) for key in ("roc_auc", "average_precision", "card_precision")]
        rows.append([name, *(f"{value:.4f}" for value in means)])
    rows += [[name, *(f"{value:.3f}" for value in values)] for name, values in published]
    show(title, ["model", *COLUMNS_SHOWN], rows)


def _cards(kinds: Sequence[str], *, test: bool) -> None:
    """Fitted on the first 70% of the ULB cards."""
    parts = split_cards(_copy("creditcard"))
    judged = [("validation", parts.validation), *([("test", parts.test)] if test else [])]
    rows = []
    for kind in kinds:
        model = fit(CARDS[kind], parts.train.features, parts.train.labels)
        for name, part in judged:
            scores = margins(model, part.features)
            figures = average_precision_score(part.labels, scores), roc_auc_score(part.labels, scores)
            rows.append([f"{kind}, {name}, {part.labels.sum()} frauds", *(f"{value:.4f}" for value in figures)])
    show("ULB cards, chronological 70/10/20", ["model", "average precision", "ROC AUC"], rows)


if __name__ == "__main__":
    main(sys.argv[1:])
