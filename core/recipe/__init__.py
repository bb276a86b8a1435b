"""Recipe: what to do to a model, where to measure it and what it must keep. A versioned TOML file.

    version = 1
    name = "chest-xray"
    seed = 0
    card = "card.md"            # optional: the words of the model card; paths are relative to the current folder

    [source]
    task = "imaging"            # an entry point of the group featherweight.tasks; the other keys are the app's own
    network = "runs/chest"

    [[step]]
    kind = "prune-channels"     # of trees: prune-trees
    ratio = [0.3, 0.5, 0.7]     # several values: each is tried

    [[step]]
    kind = "recover"
    epochs = 6

    [[step]]
    kind = "quantize"
    precision = "int8"

    [measure]
    backends = ["onnxruntime", "openvino"]

    [limits]
    auc_loss = 0.005

Parsing is pure and reports every fault of a file at once, each with its key.
"""

from core.recipe.parse import MAX_CANDIDATES, parse_recipe, read_recipe
from core.recipe.types import (
    VERSION,
    Candidate,
    Choices,
    Measure,
    Recipe,
    Setting,
    Source,
    candidates,
    describe,
    render_recipe,
)

__all__ = [
    "MAX_CANDIDATES",
    "VERSION",
    "Candidate",
    "Choices",
    "Measure",
    "Recipe",
    "Setting",
    "Source",
    "candidates",
    "describe",
    "parse_recipe",
    "read_recipe",
    "render_recipe",
]
