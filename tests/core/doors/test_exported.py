"""Programs of torch.export: read where they are plain, refused where torch would run what is in them."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from featherweight.core.doors.load import load
from featherweight.core.errors import DataError, UsageError
from featherweight.core.export import export


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.last = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(torch.relu(self.norm(self.conv(x))).mean((2, 3)))
        return found


def written(path: Path, change: Callable[[str, bytes], bytes | None] = lambda name, part: part) -> Path:
    """A program whose members `change` may replace or leave out."""
    network = Small().eval()
    dynamic = ({0: torch.export.Dim("cases")},)
    program = torch.export.export(network, (torch.zeros(2, 1, 8, 8),), dynamic_shapes=dynamic)
    content = io.BytesIO()
    torch.export.save(program, content)
    with zipfile.ZipFile(content) as source, zipfile.ZipFile(path, "w") as target:
        for member in source.infolist():
            part = change(member.filename.partition("/")[2], source.read(member))
            if part is not None:
                target.writestr(member.filename, part)
    return path


def test_a_program_is_read_and_exported_as_the_module_it_was_made_of(tmp_path: Path) -> None:
    torch.manual_seed(0)
    loaded = load(written(tmp_path / "model.pt2"))
    torch.manual_seed(0)
    network, inputs = Small().eval(), torch.randn(3, 1, 8, 8)
    assert str(loaded.model.inputs[0]) == "x: float32 [N, 1, 8, 8]"
    torch.testing.assert_close(loaded.model.module("a test")(inputs), network(inputs))
    assert export(loaded.model)[0].content


class _Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def _in_program(old: str, new: str) -> Callable[[str, bytes], bytes]:
    def change(name: str, part: bytes) -> bytes:
        if name == "models/model.json":
            assert old.encode() in part
            return part.replace(old.encode(), new.encode())
        return part

    return change


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("torch.ops.aten.relu.default", "torch.os.system"),
        ('"conv.bias"', '"__import__(chr(111)+chr(115)).remove(chr(120))"'),
        ("builtins.tuple", "os.system"),
        ("\"Symbol('", "\"exit() or Symbol('"),
    ],
)
def test_a_text_that_could_be_code_is_refused(tmp_path: Path, old: str, new: str) -> None:
    with pytest.raises(UsageError, match="can run any code when it is read"):
        load(written(tmp_path / "model.pt2", _in_program(old, new)))


def test_what_torch_would_unpickle_is_refused_and_nothing_of_it_runs(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    trap = pickle.dumps(_Trap(ran))

    def pickled_weights(name: str, part: bytes) -> bytes:
        if name != "data/weights/model_weights_config.json":
            return trap if name == "data/weights/weight_0" else part
        document = json.loads(part)
        for entry in document["config"].values():
            entry["use_pickle"] = True
        return json.dumps(document).encode()

    with pytest.raises(UsageError, match="pickled weights"):
        load(written(tmp_path / "weights.pt2", pickled_weights))
    with zipfile.ZipFile(written(tmp_path / "object.pt2"), "a") as archive:
        archive.writestr("archive/data/constants/custom_obj_0", trap)
    with pytest.raises(UsageError, match="custom_obj_0"):
        load(tmp_path / "object.pt2")
    # Examples, which torch unpickles in all cases, are not given to it.
    examples = written(
        tmp_path / "examples.pt2", lambda name, part: trap if name == "data/sample_inputs/model.pt" else part
    )
    assert load(examples).model.outputs
    assert not ran.exists()


@pytest.mark.parametrize("content", [b"", b"PK\3\4", b"x" * 100])
def test_another_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "model.pt2").write_bytes(content)
    with pytest.raises(DataError, match="not an archive that"):
        load(tmp_path / "model.pt2")
