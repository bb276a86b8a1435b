"""Trees in ONNX files that another program converted: read as ONNX Runtime reads them, or refused."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from featherweight.core.doors.load import load
from featherweight.core.doors.loaded import LoadedModel
from featherweight.core.doors.rows import run_model
from featherweight.core.errors import FeatherweightError, UsageError
from tests.core.doors.models import FEATURES, MODELS, NO_MISSING, rows_and_labels
from tests.core.doors.test_load import notes_of

WORDS = ["BRANCH_LEQ", "BRANCH_LT", "BRANCH_GTE", "BRANCH_GT"]


def trees(seed: int, *, modes: Sequence[str] = WORDS, forest: bool = False, count: int = 5) -> dict[str, Any]:
    """The attributes of `count` trees of three splits with thresholds at whole numbers, which rows then hit."""
    generator = np.random.default_rng(seed)
    found: dict[str, Any] = {"post_transform": "NONE" if forest else "LOGISTIC", "classlabels_strings": ["no", "yes"]}
    for tree in range(count):
        for node in range(7):
            split = node < 3
            entries: dict[str, Any] = {
                "nodes_treeids": tree,
                "nodes_nodeids": node,
                "nodes_featureids": int(generator.integers(FEATURES)) if split else 0,
                "nodes_modes": modes[int(generator.integers(len(modes)))] if split else "LEAF",
                "nodes_values": float(generator.integers(0, 6)) if split else 0.0,
                "nodes_truenodeids": 2 * node + 1 if split else 0,
                "nodes_falsenodeids": 2 * node + 2 if split else 0,
                "nodes_missing_value_tracks_true": int(generator.integers(2)) if split else 0,
            }
            if not split:
                weight = generator.random() / count if forest else generator.normal()
                entries |= {"class_treeids": tree, "class_nodeids": node, "class_ids": 0, "class_weights": weight}
            for name, value in entries.items():
                found.setdefault(name, []).append(value)
    return found


def file_of(
    attributes: dict[str, Any],
    before: Sequence[onnx.NodeProto] = (),
    behind: Sequence[onnx.NodeProto] = (),
    *,
    constants: dict[str, Any] | None = None,
    operator: str = "TreeEnsembleClassifier",
    kind: int = TensorProto.FLOAT,
) -> bytes:
    """As a converter writes it: the label and a map of the probabilities come out."""
    outputs = ["label", "sums"] if operator == "TreeEnsembleClassifier" else ["sums"]
    taken = before[-1].output[0] if before else "X"
    given = behind[-1].output[0] if behind else "sums"
    nodes = [*before, helper.make_node(operator, [taken], outputs, domain="ai.onnx.ml", **attributes), *behind]
    shown = [helper.make_tensor_value_info(given, TensorProto.FLOAT, None)]
    if "label" in outputs:
        nodes.append(
            helper.make_node("ZipMap", [given], ["map"], domain="ai.onnx.ml", classlabels_strings=["no", "yes"])
        )
        mapped = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, []))
        shown = [
            helper.make_tensor_value_info("label", TensorProto.STRING, ["N"]),
            helper.make_value_info("map", helper.make_sequence_type_proto(mapped)),
        ]
    graph = helper.make_graph(
        nodes,
        "converted",
        [helper.make_tensor_value_info("X", kind, ["N", FEATURES])],
        shown,
        [numpy_helper.from_array(np.asarray(value, np.float32), name) for name, value in (constants or {}).items()],
    )
    imports = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]
    content: bytes = helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString()
    return content


def node(operator: str, inputs: Sequence[str], output: str, **attributes: Any) -> onnx.NodeProto:
    domain = "ai.onnx.ml" if operator in ("Scaler", "Imputer", "Normalizer") else ""
    return helper.make_node(operator, inputs, [output], domain=domain, **attributes)


def whole_rows() -> Any:
    """Small whole numbers, many of them on the thresholds, and missing values."""
    generator = np.random.default_rng(1)
    rows = generator.integers(-1, 8, (600, FEATURES)).astype(np.float32)
    rows[generator.random(rows.shape) < 0.1] = np.nan
    return rows


def check_agrees(path: Path, content: bytes) -> LoadedModel:
    """Its trees give what ONNX Runtime makes of the file itself, on every row."""
    path.write_bytes(content)
    loaded = load(path)
    rows = whole_rows()
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    answer = session.run(None, {session.get_inputs()[0].name: rows})[-1]
    expected = [one["yes"] for one in answer] if isinstance(answer, list) else answer[:, -1]
    score = run_model(loaded.model, {"features": rows})["score"][:, 0].astype(float)
    np.testing.assert_allclose(1 / (1 + np.exp(-score)), expected, atol=2e-6)
    (note,) = notes_of(loaded, rows, np.arange(600) % 2)
    assert note == "The model agrees with ONNX Runtime on 600 rows of the data, within 1e-05."
    return loaded


@pytest.mark.parametrize("forest", [False, True])
def test_trees_say_what_onnx_runtime_makes_of_them(tmp_path: Path, forest: bool) -> None:
    loaded = check_agrees(tmp_path / "model.onnx", file_of(trees(5, forest=forest, count=20)))
    assert loaded.classes == ("no", "yes")


def test_a_base_and_weights_of_both_classes(tmp_path: Path) -> None:
    check_agrees(tmp_path / "base.onnx", file_of({**trees(0), "base_values": [-0.7]}))
    both = trees(1, forest=True)
    for name in ("class_treeids", "class_nodeids"):
        both[name] = both[name] * 2
    both["class_ids"] = [0] * 20 + [1] * 20
    both["class_weights"] = [0.2 - weight for weight in both["class_weights"]] + both["class_weights"]
    check_agrees(tmp_path / "both.onnx", file_of(both))


def test_what_stands_before_the_trees_is_taken_up_into_their_thresholds(tmp_path: Path) -> None:
    before = [
        node("Imputer", ["X"], "filled", imputed_value_floats=[1.5] * FEATURES, replaced_value_float=float("nan")),
        node("Scaler", ["filled"], "scaled", offset=[1.0, 2, 3, 0, 1], scale=[0.3, 2, 1, 0.01, 7]),
        node("Cast", ["scaled"], "cast", to=TensorProto.FLOAT),
        node("Mul", ["cast", "steps"], "multiplied"),
        node("Clip", ["multiplied", "", "most"], "clipped"),
    ]
    constants = {"steps": np.full(FEATURES, 1.7), "most": np.float32(40)}
    behind = [node("Normalizer", ["sums"], "normal", norm="L1"), node("Identity", ["normal"], "same")]
    check_agrees(tmp_path / "model.onnx", file_of(trees(2), before, behind, constants=constants))


def test_a_regressor_with_a_sigmoid_behind_it(tmp_path: Path) -> None:
    attributes = {name.replace("class_", "target_"): value for name, value in trees(3).items()}
    del attributes["classlabels_strings"]
    attributes |= {"post_transform": "NONE", "n_targets": 1, "base_values": [0.25]}
    behind = [node("Sigmoid", ["sums"], "chance")]
    check_agrees(tmp_path / "model.onnx", file_of(attributes, behind=behind, operator="TreeEnsembleRegressor"))
    (tmp_path / "plain.onnx").write_bytes(file_of(attributes, operator="TreeEnsembleRegressor"))
    with pytest.raises(UsageError, match="not the probability of a yes"):
        load(tmp_path / "plain.onnx")


def test_an_input_for_each_column(tmp_path: Path) -> None:
    """As skl2onnx makes it of a DataFrame: the columns have names, and come in any order."""
    model = onnx.load_model_from_string(file_of(trees(4), [node("Concat", list("badce"), "joined", axis=1)]))
    del model.graph.input[:]
    model.graph.input.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1]) for name in "abcde")
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    loaded = load(tmp_path / "model.onnx")
    assert loaded.columns == tuple("badce")
    rows = whole_rows()
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    answer = session.run(None, {name: rows[:, [place]] for place, name in enumerate("badce")})[-1]
    score = run_model(loaded.model, {"features": rows})["score"][:, 0].astype(float)
    np.testing.assert_allclose(1 / (1 + np.exp(-score)), [one["yes"] for one in answer], atol=2e-6)


SCALED = [node("Scaler", ["X"], "scaled", offset=[0.0] * FEATURES, scale=[1.0, 1, -1, 1, 1])]
TWO = [helper.make_node("TreeEnsembleClassifier", ["X"], ["l", "s"], domain="ai.onnx.ml", **trees(9)), *SCALED]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (
            lambda: file_of(trees(0), behind=[node("Mul", ["sums", "half"], "o")], constants={"half": 0.5}),
            "changes the",
        ),
        (lambda: file_of(trees(0), SCALED), "do not score as ONNX Runtime does"),
        (lambda: file_of(trees(0), [node("MatMul", ["X", "w"], "o")], constants={"w": np.eye(5)}), "'MatMul' before"),
        (lambda: file_of(trees(0), [node("Normalizer", ["X"], "o", norm="L2")]), "'Normalizer' before"),
        (lambda: file_of(trees(0), behind=[node("Exp", ["sums"], "o")]), "'Exp' behind"),
        (lambda: file_of(trees(0, modes=["BRANCH_EQ"])), "splits of the kind BRANCH_EQ"),
        (lambda: file_of({**trees(0), "classlabels_strings": ["a", "b", "c"]}), "tells 3 classes apart"),
        (lambda: file_of({**trees(0), "post_transform": "NONE"}), "scores that are no probabilities"),
        (lambda: file_of({**trees(0), "post_transform": "PROBIT"}), "scores that are no probabilities"),
        (lambda: file_of(trees(0), kind=TensorProto.DOUBLE), r"takes double \[0, 5\]; expected float"),
        (lambda: file_of(trees(0), TWO), "2 ensembles of trees"),
        (lambda: file_of({**trees(0), "nodes_truenodeids": [0] * 35}), "no root, or with two"),
        (lambda: file_of({**trees(0), "nodes_truenodeids": [99] * 35}), "names a node that is not there"),
        (lambda: file_of({**trees(0), "nodes_featureids": [50] * 35}), "a feature outside 0..4"),
        (lambda: file_of({**trees(0), "nodes_values": [1.0]}), "1 numbers nodes_values for 35 nodes"),
        (lambda: file_of({**trees(0), "class_nodeids": [0] * 20}), "gives a weight to a split"),
    ],
)
def test_what_cannot_be_right_is_refused_with_the_reason(tmp_path: Path, content: Any, says: str) -> None:
    (tmp_path / "model.onnx").write_bytes(content())
    with pytest.raises(FeatherweightError, match=says) as caught:
        load(tmp_path / "model.onnx")
    assert str(caught.value).startswith(f"{tmp_path / 'model.onnx'}: ")


def test_weights_that_were_read_wrongly_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fault is planted: the first class's weights are taken for the second one's."""
    from featherweight.core.doors import tree_attributes

    summed = tree_attributes._summed
    monkeypatch.setattr(tree_attributes, "_summed", lambda *given: -summed(*given))
    (tmp_path / "model.onnx").write_bytes(file_of(trees(0)))
    with pytest.raises(UsageError, match="do not score as ONNX Runtime does"):
        load(tmp_path / "model.onnx")


def test_damaged_files_are_refused_and_end_nothing(tmp_path: Path) -> None:
    content = file_of(trees(0))
    generator = np.random.default_rng(0)
    read = 0
    for place in range(12):
        damaged = bytearray(content[: generator.integers(20, len(content))] if place % 5 == 0 else content)
        damaged[generator.integers(len(damaged))] = generator.integers(256)
        (tmp_path / "model.onnx").write_bytes(damaged)
        try:
            load(tmp_path / "model.onnx")
            read += 1
        except FeatherweightError:
            continue
    assert read < 12


def converted(name: str, fitted: Any) -> bytes:
    """By the converter of the model's library."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the converters' own
        shape = [None, FEATURES]
        if name in ("LightGBM Booster", "LGBMClassifier", "XGBClassifier", "XGBClassifier that stopped early"):
            onnxmltools = pytest.importorskip("onnxmltools")
            kinds = pytest.importorskip("onnxmltools.convert.common.data_types")

            convert = onnxmltools.convert_xgboost if "XGB" in name else onnxmltools.convert_lightgbm
            found = convert(fitted, initial_types=[("input", kinds.FloatTensorType(shape))])
        else:
            skl2onnx = pytest.importorskip("skl2onnx")
            found = skl2onnx.to_onnx(fitted, np.zeros((1, FEATURES), np.float32))
    buffer = io.BytesIO(found.SerializeToString())
    return buffer.getvalue()


@pytest.mark.parametrize(
    "name",
    [
        "LightGBM Booster",
        "LGBMClassifier",
        "XGBClassifier",
        "random forest",
        "extra trees",
        "gradient boosting",
        "imputed and scaled boosting",
        "imputed forest",
    ],
)
def test_a_converters_file_scores_as_the_model_that_it_was_made_from(tmp_path: Path, name: str) -> None:
    fitted = MODELS[name]()
    (tmp_path / "model.onnx").write_bytes(converted(name, fitted))
    loaded = load(tmp_path / "model.onnx")
    rows, labels = rows_and_labels(0 if name in NO_MISSING else 0.05)
    (note,) = notes_of(loaded, rows, labels)
    assert note.startswith("The model agrees with ONNX Runtime")
    score = run_model(loaded.model, {"features": rows})["score"][:, 0].astype(float)
    own = fitted.predict(rows) if name == "LightGBM Booster" else fitted.predict_proba(rows)[:, 1]
    # A scaler in float32 moves a row across a threshold now and then: the file's own, and no fault of what reads it.
    assert (np.abs(1 / (1 + np.exp(-score)) - own) > 1e-5).mean() < 0.01
