"""What the tests of the whole batch job share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.imaging.tiny import write_model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("model") / "tiny"
    write_model(directory)
    return directory
