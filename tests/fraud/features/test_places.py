"""The catalogue's order is the only place that says where a feature stands: kernels write by name, and what numba has
kept for another order is not used."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import featherweight
from featherweight.apps.fraud.features import kernels
from featherweight.apps.fraud.features.catalogue import CUSTOMER, TERMINAL, number

SHOW = """
import json, numpy as np
from featherweight.apps.fraud.features.catalogue import CUSTOMER_FEATURES
from featherweight.apps.fraud.features.kernels import DAY, customer_features
from featherweight.core.compiled import compilations

out = np.full(len(CUSTOMER_FEATURES), -5, np.float32)
history = np.array([[day * DAY << 1 | day % 2, cents, day] for day, cents in enumerate((1_000, 2_500, 90_000))])
customer_features(history, 3 * DAY, 1_700, 3, out)
print(json.dumps([compilations.count, dict(zip(CUSTOMER_FEATURES, out.tolist()))]))
"""
HALF = '    "half_amount": "Half the amount.",\n'


def show(**places: str) -> tuple[int, dict[str, float]]:
    """(functions compiled, the customer's features by name) of a process of its own."""
    environment = {**os.environ, **places}
    run = subprocess.run([sys.executable, "-c", SHOW], check=True, capture_output=True, env=environment)
    count, features = json.loads(run.stdout)
    return count, features


def insert(path: Path, new: str, before: str) -> None:
    """In front of the first place."""
    content = path.read_text()
    assert before in content
    path.write_text(content.replace(before, new + before, 1))


def test_a_feature_in_the_middle_moves_the_others_and_changes_none(tmp_path: Path) -> None:
    package = tmp_path / "featherweight"
    shutil.copytree(Path(featherweight.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "data"))
    catalogue, kernel = (package / "apps" / "fraud" / "features" / name for name in ("catalogue.py", "kernels.py"))
    places = {"PYTHONPATH": str(tmp_path), "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONDONTWRITEBYTECODE": "1"}
    places["NUMBA_OPT"] = "1"  # what is compiled here runs once; 0 keeps nothing of it

    insert(catalogue, HALF, before='    "is_night":')
    insert(kernel, "    out[CUSTOMER.half_amount] = cents / 200\n", before="    out[CUSTOMER.is_night]")
    _, features = show()
    count, more = show(**places)
    assert count > 0
    assert list(more).index("half_amount") == list(features).index("is_night")
    assert more == features | {"half_amount": 8.5}
    assert show(**places) == (0, more), "a second process finds what the first has kept"

    catalogue.write_text(catalogue.read_text().replace(HALF, ""))
    insert(catalogue, HALF, before='    "customer_max_ratio_30d":')
    count, moved = show(**places)
    assert list(moved) != list(more)
    assert moved == more
    assert count > 0, "what numba has kept has the earlier places"


class Written:
    """Stands for a row: keeps which places are written."""

    def __init__(self) -> None:
        self.places: list[int] = []

    def __setitem__(self, place: int, value: float) -> None:
        self.places.append(place)


@pytest.mark.parametrize("events", [0, 5])
def test_every_place_is_written_once(monkeypatch: pytest.MonkeyPatch, events: int) -> None:
    plain: Any = kernels
    monkeypatch.setattr(kernels, "usual_amounts", plain.usual_amounts.py_func)
    history = np.array([[hour * kernels.HOUR << 1 | hour % 2, 100 * hour, hour] for hour in range(events)], np.int64)
    history = history.reshape(-1, 3)
    first, second = Written(), Written()
    plain.customer_features.py_func(history, kernels.DAY, 100, 1, first)
    plain.terminal_features.py_func(history, kernels.DAY, 100, 0, second)
    assert Counter(first.places) == Counter(CUSTOMER)
    assert Counter(second.places) == Counter(TERMINAL)


def test_places_are_counted_by_the_order_of_the_names() -> None:
    assert number("Places", ("b", "a"))._asdict() == {"b": 0, "a": 1}
    assert list(CUSTOMER) == list(range(len(CUSTOMER)))
