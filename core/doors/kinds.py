"""Kinds of models by the names of their files. Importing this loads nothing."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from featherweight.core.doors.user_module import names_object

FILES: Mapping[str, str] = {
    ".onnx": "onnx",
    ".txt": "lightgbm",
    ".json": "json",
    ".ubj": "xgboost",
    ".pt2": "exported",
    ".skops": "skops",
}
"""Suffix -> kind of file."""
PICKLED = (".pkl", ".pickle", ".joblib", ".pt", ".pth", ".ckpt", ".bin", ".sav", ".npy", ".dill", ".cloudpickle")
"""Suffixes of files that are unpickled when they are read."""
OTHERS: Mapping[str, str] = {
    ".safetensors": "holds weights without the network; name the module that loads them, as module:name",
    ".h5": "is a file of Keras; export an ONNX file of it (tf2onnx)",
    ".keras": "is a file of Keras; export an ONNX file of it (tf2onnx)",
    ".pb": "is a file of TensorFlow; export an ONNX file of it (tf2onnx)",
    ".tflite": "is a file of TensorFlow Lite; optimize the model that it was made from",
    ".cbm": "is CatBoost's own format; save the model by save_model('model.json', format='json')",
    ".pmml": "is a file in PMML; load the model that it was made from",
}
"""Suffix -> why such a file is not read, and what to do."""


def is_model_source(source: str) -> bool:
    """Whether a text names a model rather than a recipe: by its suffix, or as `module:name`."""
    suffix = Path(source).suffix.lower()
    return names_object(source) or suffix in {*FILES, *PICKLED, *OTHERS}
