"""What is asked wrongly is told before a framework is imported, which would take seconds and half a gigabyte."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import safetensors.numpy

import featherweight.apps.fraud.sealed as cards
import featherweight.apps.imaging.sealed as images
from featherweight.apps.fraud.training.description import SplitDays, Training
from featherweight.apps.fraud.training.models import COLUMNS, HISTORIES
from featherweight.apps.imaging.training.description import Description
from featherweight.core.bundled import data_directory

RECIPE = """
version = 1
name = "mine"
[source]
task = "imaging"
network = "network"
data = "images"
reader = "folder"
"""
CARDS = """
version = 1
name = "mine"
[source]
task = "fraud"
model = "model"
data = "cards"
reader = "records"
"""
STEP = '[[step]]\nkind = "prune-channels"\nratio = 0.5\n'
RECIPES = {
    "not TOML": ("version = = 1", "not TOML"),
    "unknown step": (RECIPE + '[[step]]\nkind = "prune-chanels"\n', "did you mean"),
    "unknown key": (RECIPE + STEP + "ration = 0.5\n", "unknown key"),
    "wrong limit": (RECIPE + "[limits]\nauc_loss = -1\n", "auc_loss"),
    "unknown app": (RECIPE.replace('"imaging"', '"audio"'), "no app is called 'audio'"),
    "unknown backend": (RECIPE + '[measure]\nbackends = ["abacus"]\n', "no backend is called 'abacus'"),
    "no card": ('card = "none.md"\n' + RECIPE, "none.md"),
    "unknown source key": (RECIPE + 'datum = "x"\n', "unknown field `datum`"),
    "no network": (RECIPE.replace('"network"', '"nowhere"'), "no weights.safetensors"),
    "unknown reader": (RECIPE.replace('"folder"', '"papyrus"'), "data format 'papyrus'"),
    "no images": (RECIPE.replace('"images"', '"nowhere"'), "no data set named 'nowhere'"),
    "wrong images": (RECIPE, "2 faults"),
    "unknown card key": (CARDS + 'datum = "x"\n', "unknown field `datum`"),
    "no model": (CARDS.replace('"model"', '"nowhere"'), "no training.json"),
    "half a model": (CARDS.replace('"model"', '"half"'), "no trees.safetensors"),
    "no cards": (CARDS, "no labels.jsonl"),
}
IMAGING = ["imaging", "train", "--data", "images", "--out", "new"]
FRAUD = ["fraud", "train", "--data", "cards", "--out", "new"]
EXPORT = ["artifact", "export", "--out", "new", "--target"]
WRONG = {
    "imaging train: no data": (
        [*IMAGING, "--data", "no/where"],
        "no/where: there is no such file or folder, and no data set",
    ),
    "imaging train: reader": ([*IMAGING, "--format", "papyrus"], "data format 'papyrus'"),
    "imaging train: network": ([*IMAGING, "--network", "net"], "network 'net'"),
    "imaging train: start": ([*IMAGING, "--init-from", "nowhere"], "no weights.safetensors"),
    "imaging train: start of another": ([*IMAGING, "--init-from", "network"], "holds a compact"),
    "imaging train: list": (IMAGING, "2 faults"),
    "imaging train: out": ([*IMAGING, "--out", "file/new"], "cannot be written"),
    "fraud train: no data": ([*FRAUD, "--data", "nowhere"], "there is no such file or folder, and no data set"),
    "fraud train: reader": ([*FRAUD, "--format", "papyrus"], "data format 'papyrus'"),
    "fraud train: model": ([*FRAUD, "--model", "net"], "model 'net'"),
    "fraud train: day": ([*FRAUD, "--until", "2018-99-01"], "is not a day"),
    "fraud train: files": (FRAUD, "no labels.jsonl"),
    "fraud train: out": ([*FRAUD, "--data", "images", "--format", "ulb", "--out", "file/new"], "cannot be written"),
    "export: target": ([*EXPORT, "papyrus", "network"], "no export target"),
    "export: artifact": ([*EXPORT, "litert", "network"], "manifest.json"),
    "export: kind": ([*EXPORT, "litert", str(data_directory() / "models" / "card-fraud")], "trees"),
    "export: out below a file": ([*EXPORT, "litert", "network", "--out", "file/new"], "cannot be written"),
    "imaging train: no labels": ([*IMAGING, "--data", "model"], "labels.csv: there is no such file"),
    "classify: out below a file": (["imaging", "classify", "images", "--out", "file/new"], "choose another --out"),
    "export: out": ([*EXPORT, "litert", "network", "--out", "file"], "is there already"),
    "optimize: out": (["optimize", "unknown source key.toml", "--out", "file/new"], "cannot be written"),
    "optimize: no recipe": (["optimize", "nowhere.toml", "--out", "new"], "no such recipe"),
}
HEAVY = {"torch", "torchvision", "sklearn", "onnx", "openvino", "onnxruntime", "lightgbm", "xgboost", "numba"}
EACH = f"""
import contextlib, io, json, sys
from featherweight.core.cli import main
for words in json.loads(sys.stdin.read()):
    sys.argv = ["featherweight", *words]
    with contextlib.redirect_stderr(io.StringIO()) as said:
        try: main()
        except SystemExit as end: code = end.code
    print(json.dumps([code, said.getvalue(), sorted({HEAVY!r} & sys.modules.keys())]))
"""


def write_folders(folder: Path) -> None:
    """A network and a model as `train` writes them, but for their weights, and data that are not valid."""
    for name in ("network", "images", "model", "half", "cards"):
        (folder / name).mkdir()
    (folder / "file").touch()
    about = Description(network="compact", side=32, mean=0.5, std=0.2, labels=("no", "yes"), source="a test")
    metadata = {"description": msgspec.json.encode(about).decode()}
    safetensors.numpy.save_file({"w": np.zeros(1)}, folder / "network" / "weights.safetensors", metadata)
    (folder / "network" / "preprocess.json").write_bytes(images.encode(images.Preprocess(side=32)))
    decision = images.DecisionRule(slope=1.0, intercept=0.0, threshold=0.5)
    (folder / "network" / "decision.json").write_bytes(images.encode(decision))
    (folder / "images" / "labels.csv").write_text("path,label,patient,split\na.png,7,p,train\nb.png,1,q,nowhere\n")
    schema = cards.FeatureSchema(names=COLUMNS, reference_values=(1.0,) * len(COLUMNS))
    rule = cards.DecisionRule(
        slope=1.0, intercept=0.0, review_threshold=0.5, decline_threshold=0.9, chosen_for="a test"
    )
    settings = HISTORIES["lightgbm"]
    training = Training(settings=settings, layout=SplitDays(), alerts_per_day=1.0, seed=0, source="a test")
    for name in ("model", "half"):
        (folder / name / "features.json").write_bytes(cards.encode(schema))
        (folder / name / "decision.json").write_bytes(cards.encode(rule))
        (folder / name / "training.json").write_bytes(msgspec.json.encode(training))
    (folder / "model" / "trees.safetensors").touch()


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[int, str, list[str]]]:
    """Name of a wrong request -> exit code, message, what of HEAVY is imported by then. All in one process, one after
    the other, since what one of them imports stays."""
    folder = tmp_path_factory.mktemp("wrong")
    write_folders(folder)
    requests = {}
    for name, (text, _) in RECIPES.items():
        (folder / f"{name}.toml").write_text(text)
        requests[name] = ["optimize", f"{name}.toml", "--out", "new"]
    requests |= {name: words for name, (words, _) in WRONG.items()}
    done = subprocess.run(
        [sys.executable, "-c", EACH],
        input=json.dumps(list(requests.values())),
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (folder / "new").exists()
    return dict(zip(requests, map(json.loads, done.stdout.splitlines()), strict=True))


@pytest.mark.parametrize("name", [*RECIPES, *WRONG])
def test_it_is_told_before_a_framework_is_imported(name: str, told: dict[str, tuple[int, str, list[str]]]) -> None:
    code, said, imported = told[name]
    assert (RECIPES | WRONG)[name][1] in said
    assert code in (2, 5, 6)
    assert imported == []
