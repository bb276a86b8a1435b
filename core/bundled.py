"""Where the files that come with Featherweight lie: the catalogue of data sets and the reference models."""

from __future__ import annotations

from pathlib import Path


def checkout_directory() -> Path | None:
    """The repository's root when this runs from a checkout (an editable install too), else None."""
    root = Path(__file__).resolve().parent.parent
    return root if (root / "pyproject.toml").is_file() and (root / "data" / "catalogue.toml").is_file() else None


def data_directory() -> Path:
    """The folder with `catalogue.toml` and `models/`: `data/` of a checkout, `core/data/` of an installed wheel."""
    root = checkout_directory()
    return Path(__file__).resolve().parent / "data" if root is None else root / "data"


def bundled_model(name: str) -> Path:
    """The folder of the reference artifact of this name."""
    return data_directory() / "models" / name
