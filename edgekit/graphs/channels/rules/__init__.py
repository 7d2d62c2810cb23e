"""Table of rules: how each operator propagates channels from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.graphs.channels.rules import (
    along,
    attention,
    convolution,
    einsum,
    elementwise,
    joining,
    norms,
    products,
    shapes,
)
from edgekit.graphs.channels.walking import Walk

_UNARY = [
    "Abs", "Acos", "Acosh", "Asin", "Asinh", "Atan", "Atanh", "BitwiseNot", "Cast", "Ceil", "Celu",
    "Clip", "Cos", "Cosh", "Dropout", "Elu", "Erf", "Exp", "Floor", "Gelu", "HardSigmoid",
    "HardSwish", "Identity", "IsInf", "IsNaN", "LeakyRelu", "Log", "Mish", "Neg", "Not",
    "Reciprocal", "Relu", "Round", "Selu", "Shrink", "Sigmoid", "Sign", "Sin", "Sinh", "Softplus",
    "Softsign", "Sqrt", "Swish", "Tan", "Tanh", "ThresholdedRelu",
    "com.microsoft:Gelu", "com.microsoft:QuickGelu",
]  # fmt: skip
_BROADCAST = [
    "Add", "And", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "Div", "Equal", "Greater",
    "GreaterOrEqual", "Less", "LessOrEqual", "Max", "Mean", "Min", "Mod", "Mul", "Or", "PRelu",
    "Pow", "Sub", "Sum", "Xor", "com.microsoft:BiasGelu", "com.microsoft:FastGelu",
]  # fmt: skip
_REDUCE = [
    "GlobalAveragePool", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax",
    "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare",
]  # fmt: skip
_POOL = ["AveragePool", "GlobalLpPool", "GlobalMaxPool", "LpPool", "MaxPool"]

RULES: dict[str, Callable[[Walk, NodeProto], None]] = {
    **dict.fromkeys(_UNARY, elementwise.passes),
    **dict.fromkeys(_BROADCAST, elementwise.broadcasts),
    **dict.fromkeys(_REDUCE, along.reduces),
    **dict.fromkeys(_POOL, along.pools),
    **dict.fromkeys(["Softmax", "LogSoftmax", "Hardmax", "LpNormalization"], along.looks_along),
    **dict.fromkeys(["ArgMax", "ArgMin", "TopK", "CumSum"], along.picks_along),
    **dict.fromkeys(["LSTM", "GRU", "RNN"], along.recurrent),
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization"], norms.per_channel),
    **dict.fromkeys(["LRN", "ReverseSequence", "Trilu"], along.apart),
    **dict.fromkeys(["GridSample", "RoiAlign"], along.sampled),
    **dict.fromkeys(["RotaryEmbedding", "com.microsoft:RotaryEmbedding"], attention.rotary),
    **dict.fromkeys(["RMSNormalization", "SimplifiedLayerNormalization"], norms.layer_norm),
    "com.microsoft:SkipLayerNormalization": norms.skip_norm,
    "com.microsoft:SkipSimplifiedLayerNormalization": norms.skip_norm,
    "GroupNormalization": norms.group_norm,
    "MeanVarianceNormalization": norms.mean_variance,
    "Attention": attention.attention,
    "com.microsoft:Attention": attention.packed,
    "com.microsoft:MultiHeadAttention": attention.multi_head,
    "com.microsoft:FusedConv": convolution.conv,
    "com.microsoft:FusedGemm": products.gemm,
    "com.microsoft:FusedMatMul": products.matmul,
    "Einsum": einsum.einsum,
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], shapes.reshape),
    "LayerNormalization": norms.layer_norm,
    "Conv": convolution.conv,
    "ConvTranspose": convolution.conv_transpose,
    "MatMul": products.matmul,
    "Gemm": products.gemm,
    "Transpose": shapes.transpose,
    "DepthToSpace": shapes.depth_to_space,
    "SpaceToDepth": shapes.space_to_depth,
    "Expand": shapes.expand,
    "ConstantOfShape": shapes.filled,
    "Resize": shapes.resize,
    "Upsample": shapes.resize,
    "Shape": shapes.shape_of,
    "Concat": joining.concat,
    "Split": joining.split,
    "Slice": joining.slices,
    "Gather": joining.gather,
    "Pad": joining.pad,
    "Tile": joining.tile,
    "Where": elementwise.where,
}
