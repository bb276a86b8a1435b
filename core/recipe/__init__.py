"""Recipe: what to do to a model, where to measure it and what it must keep. A versioned TOML file.

    version = 1
    name = "chest-xray"
    seed = 0
    card = "card.md"            # optional: the words of the model card; paths are relative to the current folder
    objective = "smallest"      # optional: of those that keep all limits; else "fastest", or {speed = 0.7, size = 0.3}

    [source]
    task = "imaging"            # an entry point of the group featherweight.tasks; the other keys are the app's own
    network = "runs/chest"

    [[step]]
    kind = "prune-channels"     # of trees: prune-trees
    ratio = [0.3, 0.5, 0.7]     # several values: each is tried
    scope = "sensitivity"       # optional: "layer" (one ratio for all), "network", or by measured sensitivity

    [[step]]
    kind = "recover"
    epochs = 6

    [[step]]
    kind = "quantize"
    precision = "int8"
    float_operators = [0, 2]    # optional: so many operators, those that int8 hurts most, stay in float
    weight_bits = 8             # optional: 7 for processors with AVX2 and no VNNI

    [measure]
    backends = ["onnxruntime", "openvino"]
    threads = [1, 2]            # one number or several: each is tried
    watts_per_core = 10         # optional, with watts_per_core_range = [5, 15] and price_per_hour = 0.2

    [limits]
    auc_loss = 0.005

    [decision]
    recalibrate = true          # false: the baseline's own calibration and threshold stay

    [cases]
    record = "uses.jsonl"       # optional: where every use of the test cases is written down

    [reasons]                   # why each margin is what it is, for `featherweight evidence plan`
    auc_loss = "what two readers differ by"

Parsing is pure and reports every fault of a file at once, each with its key.
"""

from featherweight.core.recipe.limits_file import read_limits
from featherweight.core.recipe.objective import FASTEST, SMALLEST, Objective
from featherweight.core.recipe.parse import MAX_CANDIDATES, parse_recipe, read_card, read_recipe
from featherweight.core.recipe.types import (
    VERSION,
    Candidate,
    CaseRules,
    Choices,
    Measure,
    Recalibration,
    Recipe,
    Setting,
    Source,
    candidates,
    describe,
    render_recipe,
    render_value,
)

__all__ = [
    "FASTEST",
    "MAX_CANDIDATES",
    "SMALLEST",
    "VERSION",
    "Candidate",
    "CaseRules",
    "Choices",
    "Measure",
    "Objective",
    "Recalibration",
    "Recipe",
    "Setting",
    "Source",
    "candidates",
    "describe",
    "parse_recipe",
    "read_card",
    "read_limits",
    "read_recipe",
    "render_recipe",
    "render_value",
]
