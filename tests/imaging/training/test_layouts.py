"""The table of layouts: every name leads to a reader, and a name alone loads none."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

from featherweight.apps.imaging.training.layouts import LAYOUTS

ROOM = "featherweight.apps.imaging.training"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_name_leads_to_a_reader_of_the_same_form(name: str) -> None:
    assert list(inspect.signature(LAYOUTS[name].load()).parameters) == ["path", "seed", "side"]


def test_the_table_the_types_and_each_reader_load_nothing_of_the_others() -> None:
    """Of the public sets' readers none needs the codecs, and the types know no reader."""
    loaded = {
        module: set(
            subprocess.run(
                [sys.executable, "-c", f"import sys, {ROOM}.{module}; print(*sys.modules)"],
                capture_output=True,
                text=True,
                check=True,
            ).stdout.split()
        )
        for module in ("cases", "layouts", "public_sets", "folder")
    }
    for module, readers in {
        "cases": ("public_sets", "folder", "layouts"),
        "layouts": ("public_sets", "folder"),
        "public_sets": ("folder", "layouts"),
        "folder": ("public_sets", "layouts"),
    }.items():
        assert not {f"{ROOM}.{name}" for name in readers} & loaded[module], module
    assert "featherweight.apps.imaging.readers" not in loaded["public_sets"]
