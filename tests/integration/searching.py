"""A search as a process of its own: python -m tests.integration.searching FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

from featherweight.core.optimize import optimize
from featherweight.core.recipe import parse_recipe
from tests.fakes import TreesTask

RECIPE = """
version = 1
name = "rows"
[source]
task = "rows"
[[step]]
kind = "prune-trees"
ratio = [0.3, 0.6, 0.99]
calibration_samples = 2000
[measure]
backends = ["onnxruntime"]
repetitions = 5
[limits]
average_precision_loss = 0.02
"""

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    outcome = optimize(parse_recipe(RECIPE), TreesTask(), folder / "artifact", work=folder / "work", budget_s=600)
    sys.stdout.write(outcome.evidence.validation.candidate.name)
