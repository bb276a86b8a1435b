"""A user's own model and data, the whole road: from a file, without a line of code, to an artifact that is verified,
opened and run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import onnxruntime
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import featherweight
from featherweight.core.recipe import parse_recipe
from tests.core.doors.test_onnx_trees import file_of, trees
from tests.custom.conftest import MEANT, run


def test_a_file_becomes_a_verified_artifact(folder: Path, artifact: Path) -> None:
    assert "reproduces the artifact's" in run(folder, "artifact", "verify", "models/x")
    recipe = parse_recipe((folder / "runs" / "x.toml").read_text())
    assert dict(recipe.source.settings)["model"] == "model.txt"
    assert (folder / "runs" / "test-uses.jsonl").is_file()
    assert (artifact / "recipe.toml").is_file()


def test_it_decides_from_a_table_as_the_model_does(folder: Path, artifact: Path) -> None:
    table = pq.read_table(folder / "cases.parquet")
    with featherweight.open_model(artifact) as model:
        found = model.predict({name: table[name].to_numpy() for name in table.column_names})
        rows = np.stack([table[name].to_numpy() for name in ("age", "dose", "weight", "height")], axis=1)
        same = model.predict(rows)
        assert model.evidence.passed
    own = lightgbm.Booster(model_file=folder / "model.txt").predict(rows)
    assert found.positive == "ill"
    np.testing.assert_array_equal(found.decisions, same.decisions)
    assert ((found.decisions == "ill") == (own >= 0.5)).mean() > 0.95
    with featherweight.open_model(artifact) as model:
        for wrong, says in (
            ({"age": rows[:, 0]}, "the table lacks dose, weight, height"),
            (rows[:, :3], r"expected numbers \[N, 4\]"),
            (np.full((1, 4), np.inf), "column 'age'"),
        ):
            with pytest.raises(featherweight.TensorError, match=says):
                model.predict(wrong)


def test_a_recipe_is_proposed_with_reasons(folder: Path) -> None:
    text = run(folder, "recipe", "new", "--model", "model.txt", "--data", "cases.parquet", *MEANT)
    recipe = parse_recipe(text)
    assert recipe.source.task == "custom"
    assert {"auc_loss", "flip_ratio_max"} <= set(recipe.limits)
    assert "# Proposed from the numbers of cases alone" in text
    assert "auc_loss = " in text.partition("# Proposed")[2].partition("[limits]")[0]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("model.txt",), "is a model, not a recipe; name its labelled cases too, by --data"),
        (("recipe.toml", "--data", "cases.parquet"), "is a recipe, which names its data itself"),
        (("absent.toml", "--label", "y"), "--label is for a model of your own"),
        (
            ("model.txt", "--data", "cases.parquet", "--label", "y"),
            "the labels are 'ill', 'well'; name the positive one",
        ),
        (("model.txt", "--data", "cases.parquet", *MEANT, "--steps", "int4"), "step 'int4' is not known"),
        (("model.txt", "--data", "cases.parquet", *MEANT, "--steps", "prune-trees=2"), "what is asked for: 1 fault"),
        (("model.txt", "--data", "cases.parquet", *MEANT, "--limit", "acu_loss=1"), "did you mean"),
        (("model.txt", "--data", "cases.parquet", *MEANT, "--threshold", "0.9999"), "says yes to none of the"),
        (("model.pkl", "--data", "cases.parquet", *MEANT), "is a pickle"),
        (("absent.txt", "--data", "cases.parquet", *MEANT), "absent.txt"),
    ],
)
def test_a_wrong_request_is_told_in_a_line(folder: Path, words: tuple[str, ...], says: str) -> None:
    said = run(folder, "optimize", *words, "--out", "models/y", code=2)
    assert says in " ".join(said.split())
    assert "Traceback" not in said


def _network(rows: Any, labels: Any) -> bytes:
    """A network as an exporter writes it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(5, 48), nn.ReLU(), nn.Linear(48, 32), nn.ReLU(), nn.Linear(32, 1))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    shown, truth = torch.from_numpy(rows), torch.from_numpy(labels).float()[:, None]
    for _ in range(80):
        optimizer.zero_grad()
        nn.functional.binary_cross_entropy_with_logits(network(shown), truth).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    shapes = ({0: torch.export.Dim("N")},)
    program = torch.onnx.export(network.eval(), (shown[:2],), dynamic_shapes=shapes, dynamo=True, verbose=False)
    assert program is not None
    content: bytes = program.model_proto.SerializeToString()
    return content


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["network", "converted trees"])
def test_an_onnx_file_without_a_line_of_code(tmp_path: Path, kind: str) -> None:
    """One command makes the artifact, another one verifies it, a third one scores the table."""
    generator = np.random.default_rng(0)
    rows = generator.normal(2, 1.5, (3000, 5)).astype(np.float32)
    if kind == "network":
        labels = (rows[:, 0] + rows[:, 1] + generator.normal(0, 0.5, 3000) > 4).astype(np.int64)
        content = _network(rows[:1000], labels[:1000])
    else:
        content = file_of(trees(5, count=20))
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        chances = [one["yes"] for one in session.run(None, {"X": rows})[-1]]
        labels = (generator.random(3000) < chances).astype(np.int64)
    (tmp_path / "model.onnx").write_bytes(content)
    names = {True: ["0", "1"], False: ["no", "yes"]}[kind == "network"]
    table: dict[str, Any] = {f"c{place}": rows[:, place] for place in range(5)}
    table |= {"y": np.array(names)[labels], "split": np.repeat(["train", "validation", "test"], 1000)}
    pq.write_table(pa.table(table), tmp_path / "cases.parquet")

    command = "optimize model.onnx --data cases.parquet --label y --split split --steps int8 --limit auc_loss=0.02"
    said = run(tmp_path, *command.split(), "--out", "models/x")
    assert "The model agrees with ONNX Runtime on 3,000 rows" in said
    assert "reproduces the artifact's" in run(tmp_path, "artifact", "verify", "models/x")
    words = ("predict", "models/x", "--data", "cases.parquet", "--keep", "y", "--out", "scores.parquet")
    run(tmp_path, *words)

    found = pq.read_table(tmp_path / "scores.parquet")
    own = featherweight.open(tmp_path / "models" / "x")(rows)
    assert found["decision"].to_pylist() == own.decisions.tolist()


def test_a_torch_module_in_three_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of one's own with loaders, pruned and recovered; its loss is inferred."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    torch.set_num_threads(1)
    inputs = torch.randn(1500, 6)
    labels = (inputs[:, 0] + inputs[:, 1] > 0).long()
    network = nn.Sequential(nn.Linear(6, 64), nn.ReLU(), nn.Linear(64, 2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(60):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(inputs), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    train, validation, test = (TensorDataset(inputs[part::3], labels[part::3]) for part in range(3))

    data = featherweight.Data(train=DataLoader(train, batch_size=64), validation=validation, test=test)
    steps = ["prune-channels=0.5", "recover=2", "int8"]
    outcome = featherweight.optimize(network, data, steps=steps, limits={"auc_loss": 0.05}, out="models/mine")

    assert not outcome.forced
    assert featherweight.read_evidence("models/mine").passed
    with featherweight.open_model("models/mine") as model:
        found = model.predict(inputs.numpy())
    assert ((found.decisions == "1") == labels.numpy().astype(bool)).mean() > 0.9
    assert network[0].weight.shape == (64, 6)  # the user's own is as it was
