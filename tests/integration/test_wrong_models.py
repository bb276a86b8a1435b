"""A path that is not a valid model for a command is exit code 2 in every command: nothing is damaged."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from featherweight.core import cli
from featherweight.core.bundled import data_directory

IMAGING, FRAUD = (str(data_directory() / "models" / name) for name in ("chest-xray", "card-fraud"))
COMMANDS = {
    "classify": (["imaging", "classify", "source", "--out", "out"], FRAUD),
    "score": (["fraud", "score", "--input", "source", "--output", "out"], IMAGING),
    "serve": (["fraud", "serve", "--port", "0"], IMAGING),
    "stream": (["fraud", "stream", "--bootstrap-servers", "localhost:1"], IMAGING),
}


@pytest.mark.parametrize("name", COMMANDS)
def test_another_model_is_asked_for(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command, others = COMMANDS[name]
    monkeypatch.chdir(tmp_path)
    Path("source").write_text("")
    Path("empty").mkdir()
    Path("trained").mkdir()
    Path("trained", "digests.sha256").write_text("")
    for model, told in {
        others: "is a model of the app",
        "nowhere": "there is no such folder",
        "source": "is not a folder",
        "empty": "is empty",
        "trained": "holds a trained model",
    }.items():
        monkeypatch.setattr(sys, "argv", ["featherweight", *command, "--model", model])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        said = capsys.readouterr().err
        assert told in " ".join(said.split())
        assert ended.value.code == 2
        assert "copy" not in said
        assert not Path("out").exists()
