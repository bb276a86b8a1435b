"""Whether training already told figures of the test cases: a use that no record of uses has."""

from __future__ import annotations

from pathlib import Path

import msgspec

from featherweight.core.files import read_errors

_NOTE = (
    "Training reported figures of the test cases (--report-test): a use of them that the record of uses does not count "
    "unless it was entered by hand."
)


def training_notes(folder: Path) -> tuple[str, ...]:
    """What is to be said of a trained model's folder, whose `metrics.json` keeps what training told. Raises DataError
    for a file that cannot be read as JSON."""
    path = folder / "metrics.json"
    with read_errors(path, also=(msgspec.DecodeError, UnicodeDecodeError, RecursionError)):
        if not path.is_file():
            return ()
        found = msgspec.json.decode(path.read_bytes(), type=dict[str, object])
    return (_NOTE,) if "test" in found else ()
