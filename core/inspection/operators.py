"""The operators that a program may use: what networks and trees are made of, and nothing that decides at run time how
long it goes on, how much it makes, or what it reads.

Left out on purpose: If, Loop, Scan, SequenceMap and all of sequences, optionals and texts; what draws random numbers;
ImageDecoder; and what gives more or fewer values by what stands in a tensor (NonZero, Compress, Unique,
NonMaxSuppression): with them a row could ask for any amount of memory.
"""

from __future__ import annotations

from collections.abc import Mapping

_ARITHMETIC = """
    Abs Acos Acosh Add And Asin Asinh Atan Atanh BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor Cast CastLike Ceil
    Celu Clip Cos Cosh CumSum Div Dropout Elu Equal Erf Exp Floor Gelu Greater GreaterOrEqual HardSigmoid HardSwish
    Hardmax Identity IsInf IsNaN LeakyRelu Less LessOrEqual Log LogSoftmax Max Mean Min Mish Mod Mul Neg Not Or PRelu
    Pow Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softmax Softplus Softsign Sqrt Sub Sum Swish Tan Tanh
    ThresholdedRelu Where Xor
"""
_LAYERS = """
    Attention AveragePool BatchNormalization Conv ConvInteger ConvTranspose DeformConv DequantizeLinear
    DynamicQuantizeLinear Einsum Flatten GRU Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample
    GroupNormalization InstanceNormalization LRN LSTM LayerNormalization LpNormalization LpPool MatMul MatMulInteger
    MaxPool MeanVarianceNormalization QLinearConv QLinearMatMul QuantizeLinear RMSNormalization RNN RotaryEmbedding
"""
_SHAPES = """
    ArgMax ArgMin Concat Constant ConstantOfShape DepthToSpace Expand EyeLike Gather GatherElements GatherND OneHot Pad
    Range ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum
    ReduceSumSquare Reshape Resize ReverseSequence ScatterElements ScatterND Shape Size Slice SpaceToDepth Split Squeeze
    Tile TopK Transpose Trilu Unsqueeze Upsample
"""
OPERATORS: Mapping[str, frozenset[str]] = {
    "": frozenset((_ARITHMETIC + _LAYERS + _SHAPES).split()),
    "ai.onnx.ml": frozenset(["Binarizer", "Imputer", "LinearRegressor", "Normalizer", "Scaler", "TreeEnsemble"]),
}

SHAPING: Mapping[str, tuple[int, ...]] = {
    "ConstantOfShape": (0,), "Expand": (1,), "OneHot": (1,), "Pad": (1, 3), "Range": (0, 1, 2),
    "Reshape": (1,), "Resize": (1, 2, 3), "Slice": (1, 2, 3, 4), "Split": (1,), "Squeeze": (1,), "Tile": (1,),
    "TopK": (1,), "Unsqueeze": (1,), "Upsample": (1,),
    **dict.fromkeys((name for name in _SHAPES.split() if name.startswith("Reduce")), (1,)),
}  # fmt: skip
"""Operator -> inputs that say how large its output is. They come from constants and from shapes, never from values:
then what a program takes and gives depends on the batch alone, and what was tried holds for every row."""

LARGEST: Mapping[str, tuple[int, int]] = {"ConstantOfShape": (0, 1 << 28), "Expand": (1, 1 << 28), "Tile": (1, 1 << 20)}
"""Operator -> (input, the largest product of it where it is a constant)."""

DIFFERING: Mapping[str, tuple[str, ...]] = {"Resize": ("antialias", "exclude_outside")}
"""Operator -> switches that ONNX's own tests see set otherwise by some of the runtimes (OpenVINO 2026.2): with them the
same program would decide differently from host to host."""

SCALED = frozenset({"QuantizeLinear", "DequantizeLinear"})
"""OpenVINO reads the first of their scales and zero points, also where there is none."""

SHAPE_OF = frozenset({"Shape", "Size"})
"""Their outputs say nothing of values."""
