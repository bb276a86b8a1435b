"""What README, model cards, notes and `artifact verify` say of the bundled models is what is in their evidence."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx.numpy_helper
import pytest

from featherweight.core.artifact import Artifact, read_artifact
from featherweight.core.bundled import data_directory
from featherweight.core.parity.reproduction import check_parity

NAMES = ("chest-xray", "card-fraud")
ROOT = Path(__file__).resolve().parents[4]
RUNTIMES = {"onnxruntime": "ONNX Runtime", "openvino": "OpenVINO"}


def flat(path: Path) -> str:
    return " ".join(path.read_text(encoding="utf-8").split())


README, OPERATIONS = flat(ROOT / "README.md"), flat(ROOT / "docs" / "operations.md")


@pytest.fixture(scope="module")
def sealed() -> dict[str, Artifact]:
    return {name: read_artifact(data_directory() / "models" / name) for name in NAMES}


@pytest.fixture(scope="module")
def found(sealed: dict[str, Artifact]) -> dict[str, dict[str, Any]]:
    return {name: json.loads(sealed[name].evidence["evidence.json"]) for name in NAMES}


def short(value: float, digits: int = 3) -> str:
    return f"{value:.{digits}f}".lstrip("0")


def interval(figure: dict[str, float]) -> str:
    return f"{short(figure['estimate'])} ({short(figure['low'])} to {short(figure['high'])})"


def worst(test: dict[str, Any], name: str) -> str:
    (check,) = [one for one in test["checks"] if one["name"] == name]
    return short(check["found"], 4)


def test_the_readmes_chest_table_is_the_evidences(
    sealed: dict[str, Artifact], found: dict[str, dict[str, Any]]
) -> None:
    test = found["chest-xray"]["test"]
    before, after = test["baseline"], test["candidate"]
    old, new = before["metrics"], after["metrics"]
    cases = sum(after["confusion"].values())
    whole = sum(path.stat().st_size for path in sealed["chest-xray"].directory.rglob("*") if path.is_file())
    loss = old["auc"]["estimate"] - new["auc"]["estimate"]
    assert found["chest-xray"]["forced"]
    was, now = (part["size"]["compressed_bytes"] for part in (before, after))
    for claim in (
        f"on {cases} test images",
        f"| test AUC | {interval(old['auc'])} | {interval(new['auc'])} |",
        f"sealed threshold | {short(old['accuracy']['estimate'])} | {short(new['accuracy']['estimate'])} |",
        f"| | {worst(test, 'auc_loss')} (seen: {short(loss, 4)}) | .005: **missed** |",
        "**The gate refused it**",
        f"| | {worst(test, 'sensitivity_loss')} / {worst(test, 'specificity_loss')} | .03 / .06 |",
        f"| {was / 1e6:.1f} MB | {now / 1e6:.2f} MB, {was / now:.0f}x smaller; {whole / 1e6:.2f} MB with all evidence",
    ):
        assert claim in README


def test_the_readmes_fraud_figures_are_the_evidences(found: dict[str, dict[str, Any]]) -> None:
    evidence, test = found["card-fraud"], found["card-fraud"]["test"]
    old, new = (test[part]["metrics"] for part in ("baseline", "candidate"))
    cases, flips = sum(test["candidate"]["confusion"].values()), test["flips"]
    flipped = flips["to_positive"] + flips["to_negative"]
    (chosen,) = [one for one in evidence["candidates"] if one["chosen"]]
    pruned = evidence["steps"][chosen["steps"][0]]
    assert old["card_precision"] == new["card_precision"]
    for claim in (
        f"{pruned['facts']['trees_before']} trees, {pruned['settings']['ratio']:.0%} of their splits removed, "
        f"{pruned['facts']['trees_after']} trees left, int8 leaves",
        f"on {cases:,} simulated test transactions",
        f"average precision {short(new['average_precision']['estimate'])} (unpruned "
        f"{short(old['average_precision']['estimate'])}; loss at most {worst(test, 'average_precision_loss')} with 95%",
        f"card precision the same (loss at most {worst(test, 'card_precision_loss')}",
        "**It was sealed by force**",
        f"{flipped} decisions flipped ({flipped / cases:.2%}",
        f"program {test['candidate']['size']['bytes'] / 1e3:.1f} kB",
        f"falls from {short(old['auc']['estimate'])} to {short(new['auc']['estimate'])}",
    ):
        assert claim in README


@pytest.mark.parametrize("name", NAMES)
def test_the_model_card_has_the_evidences_figures(
    name: str, sealed: dict[str, Artifact], found: dict[str, dict[str, Any]]
) -> None:
    card, test = sealed[name].documents["MODEL_CARD.md"].decode(), found[name]["test"]
    rows = re.findall(r"^\| ([a-z ]+) \| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \| ([\d.]+) ", card, re.MULTILINE)
    assert len(rows) >= 8
    for figure, *shown, shown_before in rows:
        after, before = (test[part]["metrics"][figure.replace(" ", "_")] for part in ("candidate", "baseline"))
        assert shown == [f"{after[end]:.3f}" for end in ("estimate", "low", "high")]
        assert shown_before == f"{before['estimate']:.3f}"
    words = re.search(r"What it is\.\*\*(.*?)- \*\*", card, re.DOTALL)
    assert words is not None
    assert words[1] in (ROOT / recipe_card(sealed[name])).read_text(), (
        "the card in the source is the one that is sealed"
    )


def recipe_card(artifact: Artifact) -> str:
    card = re.search(r'^card = "(.*)"$', artifact.documents["recipe.toml"].decode(), re.MULTILINE)
    assert card is not None
    return card[1]


def test_the_chest_networks_steps_are_those_that_are_told(
    sealed: dict[str, Artifact], found: dict[str, dict[str, Any]]
) -> None:
    evidence = found["chest-xray"]
    (chosen,) = [one for one in evidence["candidates"] if one["chosen"]]
    settings: dict[str, Any] = {}
    for index in chosen["steps"]:
        settings |= evidence["steps"][index]["settings"]
    assert (settings["ratio"], settings["sparsity"], settings["weight_bits"]) == (0.75, 0.85, 7)
    card = " ".join(sealed["chest-xray"].documents["MODEL_CARD.md"].decode().split())
    for text in (README, card):
        assert "three quarters of" in text
        assert "85% of the weights that are left set to zero" in text
        assert "weights of 7 bits" in text
    (program,) = sealed["chest-xray"].programs
    graph = onnx.load_from_string(program.content).graph
    weights = [array for one in graph.initializer if (array := onnx.numpy_helper.to_array(one)).dtype == np.int8]
    assert max(int(np.abs(array.astype(int)).max()) for array in weights if array.size > 1) <= 64


def test_which_runtime_disagrees_is_stated_alike_everywhere(
    sealed: dict[str, Artifact], found: dict[str, dict[str, Any]]
) -> None:
    """Each runtime gives the same with and without VNNI; one of them disagrees with the other on a case. The
    notes are sealed, so they keep the words of the version that sealed them."""
    for name in NAMES:
        parity = found[name]["parity"]
        notes = [note for note in sealed[name].manifest.notes if "disagrees on the host" in note]
        flips: dict[str, set[int]] = {}
        for run in parity["runs"]:
            flips.setdefault(run["backend"], set()).add(run["flips"])
        assert all(len(seen) == 1 for seen in flips.values()), "restricted to AVX2 and not, in all batches and threads"
        differing = {backend: max(seen) for backend, seen in flips.items() if max(seen)}
        assert len(notes) == len(differing)
        assert not any(re.search(r"\bhere\b|8-bit|overflow", note) for note in notes)
        for backend, count in differing.items():
            (note,) = [one for one in notes if one.startswith(f"{backend} disagrees on the host that sealed it")]
            assert f"{count} of {parity['cases']} cases" in note
            assert "restricted to AVX2 too" in note
            preferred = sealed[name].manifest.preferences[0].backend
            assert backend not in {one.backend for one in sealed[name].manifest.preferences}
            told = f"{RUNTIMES[backend]} decides {count} of the {parity['cases']} parity cases differently from"
            assert f"{told} {RUNTIMES[preferred]}" in README
            assert f"{count} of its {parity['cases']} parity cases differently from {RUNTIMES[preferred]}" in OPERATIONS
    assert "decide alike" not in README


@pytest.mark.parametrize("name", NAMES)
def test_this_host_reproduces_the_reference_decisions(name: str, sealed: dict[str, Artifact]) -> None:
    artifact = sealed[name]
    assert artifact.manifest.parity is not None
    assert not [run.fault for run in check_parity(artifact, time_limit_s=250) if run.judged and run.fault]
    assert (
        f"models/{name}: this host reproduces the artifact's {artifact.manifest.parity.cases} reference decisions"
        in README
        or (name != "chest-xray")
    )
