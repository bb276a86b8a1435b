"""The closed set of steps a recipe may hold. Plain values: importing this loads no framework.

A field's `Number` or `Choice` says which values it may have; the recipe's parser reads the bounds from there, and so
does the reference.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, assert_never


@dataclass(frozen=True)
class Number:
    """Bounds of a numeric field, both included; `whole` wants an integer."""

    low: float
    high: float
    whole: bool = False

    def __str__(self) -> str:
        return f"{'a whole number' if self.whole else 'a number'} from {self.low:g} to {self.high:g}"


@dataclass(frozen=True)
class Choice:
    """A setting that has one of these values."""

    options: tuple[str, ...]

    def __str__(self) -> str:
        return "one of " + ", ".join(f'"{option}"' for option in self.options)


Bound = Number | Choice


def bounded(bound: Bound, *, added: bool = False, **default: Any) -> Any:
    """A dataclass field that carries its bound; `default=` as in dataclasses.field. added: after recipes were in use;
    rendered recipes have it only where it says something, so that those without it keep their digests."""
    return field(metadata={"bound": bound, "added": added}, **default)


@dataclass(frozen=True)
class PruneChannelsStep:
    """Remove the `ratio` of every layer's channels, and of every attention's heads, that matter least; widths that stay
    are multiples of `round_to`. Layers that tie their channels together in groups stay whole."""

    kind: ClassVar[str] = "prune-channels"
    ratio: float = bounded(Number(0.01, 0.95))
    """Share of the channels to remove."""
    round_to: int = bounded(Number(1, 64, whole=True), default=16)
    """Widths that stay are multiples of this: processors work on so many channels at once."""
    scope: Literal["layer", "network", "sensitivity"] = bounded(
        Choice(("layer", "network", "sensitivity")), default="layer"
    )
    """layer: the same ratio everywhere. network: channels of all layers compete with each other. sensitivity: as many
    multiply-accumulates go as with the scope "layer", from the layers whose channels the outputs miss least."""


@dataclass(frozen=True)
class PruneWeightsStep:
    """Set the `sparsity` of all weights that are smallest to zero. The file compresses better; nothing runs faster."""

    kind: ClassVar[str] = "prune-weights"
    sparsity: float = bounded(Number(0.01, 0.99))
    """Share of the weights to set to zero."""


@dataclass(frozen=True)
class PruneTreesStep:
    """Collapse the subtrees that the scores miss least, until `ratio` of all splits are gone; trees that become one
    leaf leave. The leaves that stay are fitted anew to the scores of the unpruned trees, without labels."""

    kind: ClassVar[str] = "prune-trees"
    ratio: float = bounded(Number(0.001, 0.99))
    """Share of all splits to remove."""
    calibration_samples: int = bounded(Number(1, 1_000_000, whole=True), default=20_000)
    """Training rows on which the scores are compared and the leaves fitted."""


@dataclass(frozen=True)
class RecoverStep:
    """Fine-tune with the unpruned network as teacher."""

    kind: ClassVar[str] = "recover"
    epochs: int = bounded(Number(1, 1000, whole=True))
    """Passes over the training data."""
    learning_rate: float = bounded(Number(1e-7, 1.0), default=1e-3)
    """Largest learning rate of the schedule."""
    weight_decay: float = bounded(Number(0.0, 1.0), default=0.02)
    """Decoupled weight decay of the optimizer."""
    teacher_weight: float = bounded(Number(0.0, 1.0), default=0.7)
    """Share of the teacher in the loss; the rest is the true label."""
    temperature: float = bounded(Number(0.5, 20.0), default=2.0)
    """Temperature that softens the logits of teacher and student before they are compared."""
    ema_decay: float = bounded(Number(0.0, 0.9999), default=0.99)
    """Decay of the moving average of the weights, which is what is kept; 0 keeps the last weights."""


@dataclass(frozen=True)
class QuantizeStep:
    """int8: static quantization, calibrated on training inputs; of trees, int8 leaves. The other precisions are for
    networks only, as are the fields from `method` on."""

    kind: ClassVar[str] = "quantize"
    precision: Literal["int8", "int8-dynamic", "int8-weights", "fp16-weights", "bf16"] = bounded(
        Choice(("int8", "int8-dynamic", "int8-weights", "fp16-weights", "bf16")), default="int8"
    )
    """Number format of the program's arithmetic. int8-dynamic: matrix products find the ranges of their inputs in each
    run; every case is run by itself, because a case's output would depend on the others of its batch. int8-weights,
    fp16-weights: the file is smaller and the arithmetic stays float32; but OpenVINO rounds what it multiplies with int8
    weights too, each case for itself, and is faster for it. bf16: the same file, run with bfloat16 arithmetic."""
    calibration_samples: int = bounded(Number(1, 100_000, whole=True), default=256)
    """Training inputs from which the ranges of int8 are taken."""
    method: Literal["minmax", "percentile", "entropy"] = bounded(
        Choice(("minmax", "percentile", "entropy")), default="minmax"
    )
    """How the range of each tensor is chosen from the calibration inputs."""
    percentile: float = bounded(Number(90.0, 100.0), default=99.99)
    """Used by the method "percentile": the share of values that the range keeps, in percent."""
    float_operators: int = bounded(Number(0, 1000, whole=True), default=0)
    """So many operators stay in float: those whose quantization alone changes the outputs most."""
    weight_bits: int = bounded(Number(7, 8, whole=True), default=8)
    """7: weights from -64 to 64. Processors with AVX2 and no VNNI add pairs of products in 16 bits, which weights of 8
    bits overflow: there the same program gives other results."""
    weight_scales: Literal["channel", "tensor"] = bounded(Choice(("channel", "tensor")), default="channel", added=True)
    """Whether each channel of a layer's int8 weights has a scale of its own. One for the whole layer makes a smaller
    file and moves the outputs further."""
    change_max: float = bounded(Number(0.0, 1.0), default=0.0, added=True)
    """How far int8 may move the outputs for 64 calibration inputs: mean squared change relative to their variance. As
    many operators as it takes go back to float, the worst first, found by measuring. 0 asks nothing."""

    @property
    def program_precision(self) -> Literal["fp32", "bf16", "int8"]:
        """The precision of the program that comes out: what a backend is asked for."""
        match self.precision:
            case "bf16":
                return "bf16"
            case "fp16-weights":
                return "fp32"
            case "int8" | "int8-dynamic" | "int8-weights":
                return "int8"
            case _:
                assert_never(self.precision)


Step = PruneChannelsStep | PruneWeightsStep | PruneTreesStep | RecoverStep | QuantizeStep
STEPS: dict[str, type[Step]] = {
    step.kind: step for step in (PruneChannelsStep, PruneWeightsStep, PruneTreesStep, RecoverStep, QuantizeStep)
}
