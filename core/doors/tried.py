"""Files that a library's own compiled code reads, read and scored by another process first: a damaged or hostile one
may end that, and never this one. The main program of that process is here too."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Final

import numpy as np

from featherweight.core.arrays import Floats
from featherweight.core.errors import DataError
from featherweight.core.processes import Limits, run_module

_LIMITS: Final = Limits(memory_bytes=8 << 30, stack_bytes=64 << 20, cpu_s=600)
_SECONDS: Final = 600.0
_ANSWER = b"scored"


def check_loads(path: Path, content: bytes, library: str) -> None:
    """library: lightgbm, xgboost or catboost. Raises DataError for a file that it does not load, or that ends its
    process."""
    answer = run_module(
        "featherweight.core.doors.tried",
        json.dumps({"library": library}).encode() + b"\n" + content,
        timeout_s=_SECONDS,
        what=f"{path}: reading it by {library}",
        failure=DataError,
        limits=_LIMITS,
    )
    if not answer.endswith(_ANSWER):
        raise DataError(f"{path}: {library} cannot read it ({answer.decode('utf-8', 'replace')[:300]})")


def main() -> None:
    """Load what comes on standard input, and score a few rows with it."""
    asked, _, content = sys.stdin.buffer.read().partition(b"\n")
    try:
        _score(json.loads(asked)["library"], content)
    except Exception as error:  # noqa: BLE001 - the libraries' own errors have no common class
        lines = str(error).strip().splitlines() or [type(error).__name__]
        sys.stdout.write(lines[0])
        return
    sys.stdout.buffer.write(_ANSWER)


def _score(library: str, content: bytes) -> None:
    if library == "lightgbm":
        import lightgbm

        model = lightgbm.Booster(model_str=content.decode("utf-8"))
        model.dump_model()
        model.predict(_rows(model.num_feature()), num_threads=1)
        return
    if library == "catboost":
        import catboost

        model = catboost.CatBoost()
        with tempfile.NamedTemporaryFile(suffix=".json") as file:  # it reads JSON from a file alone
            file.write(content)
            file.flush()
            model.load_model(file.name, format="json")
        model.predict(_rows(len(model.feature_names_)), prediction_type="RawFormulaVal", thread_count=1)
        return
    import xgboost

    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    booster.save_raw("json")
    booster.predict(xgboost.DMatrix(_rows(booster.num_features()), nthread=1), validate_features=False)


def _rows(features: int) -> Floats:
    generator = np.random.default_rng(0)
    rows = generator.normal(size=(64, features)) * 10.0 ** generator.integers(-3, 9, (64, features))
    rows[generator.random(rows.shape) < 0.2] = np.nan
    return rows


if __name__ == "__main__":
    main()
