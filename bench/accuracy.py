"""Test AUC and accuracy at the sealed threshold of trained baselines. Run it last: nothing may be chosen by it.

python -m bench.accuracy runs/chest-xray:chest_xray_224:kermany runs/pneumoniamnist-{0,1,2}:pneumoniamnist:medmnist
"""

from __future__ import annotations

import statistics
import sys
from collections import defaultdict
from pathlib import Path

from bench.timing import show
from featherweight.apps.imaging.training.command import metrics
from featherweight.apps.imaging.training.fit import predict
from featherweight.apps.imaging.training.layouts import read_split
from featherweight.apps.imaging.training.trained import read_trained


def main() -> None:
    if len(sys.argv) == 1:
        raise SystemExit(__doc__)
    found: dict[str, list[dict[str, float]]] = defaultdict(list)
    rows = []
    for word in sys.argv[1:]:
        folder, data, reader = word.split(":")
        trained = read_trained(Path(folder))
        test = read_split(data, reader, side=trained.description.side, seed=0).test
        figures = metrics(predict(trained.network, test.images), test.labels, trained.decision)
        found[data].append(figures)
        rows.append([folder, *(f"{figures[name]:.4f}" for name in COLUMNS)])
    for data, several in found.items():
        if len(several) > 1:
            means = (statistics.mean(figures[name] for figures in several) for name in COLUMNS)
            rows.append([f"mean of {len(several)} on {data}", *(f"{mean:.4f}" for mean in means)])
    show("test sets, fp32 baselines, decisions at the threshold sealed on validation data", ["network", *COLUMNS], rows)


COLUMNS = ("auc", "accuracy", "balanced_accuracy", "sensitivity", "specificity")

if __name__ == "__main__":
    main()
