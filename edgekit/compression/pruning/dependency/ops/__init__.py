"""Table of rules: how each operator propagates channels from its inputs to its outputs."""

from __future__ import annotations

from collections.abc import Callable

from onnx import NodeProto

from edgekit.compression.pruning.dependency.ops import (
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
from edgekit.compression.pruning.dependency.propagation import Walk
from edgekit.onnx_graph.operators import RECURRENT_OPS

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
    **dict.fromkeys(_UNARY, elementwise.propagate_unary),
    **dict.fromkeys(_BROADCAST, elementwise.propagate_broadcast),
    **dict.fromkeys(_REDUCE, along.propagate_reduction),
    **dict.fromkeys(_POOL, along.propagate_pooling),
    **dict.fromkeys(
        ["Softmax", "LogSoftmax", "Hardmax", "LpNormalization"], along.propagate_softmax
    ),
    **dict.fromkeys(["ArgMax", "ArgMin", "TopK", "CumSum"], along.propagate_arg_max),
    **dict.fromkeys(RECURRENT_OPS, along.propagate_recurrent),
    **dict.fromkeys(["BatchNormalization", "InstanceNormalization"], norms.propagate_batch_norm),
    **dict.fromkeys(["LRN", "ReverseSequence", "Trilu"], along.propagate_position_dependent),
    **dict.fromkeys(["GridSample", "RoiAlign"], along.propagate_grid_sample),
    **dict.fromkeys(
        ["RotaryEmbedding", "com.microsoft:RotaryEmbedding"], attention.propagate_rotary_embedding
    ),
    **dict.fromkeys(
        ["RMSNormalization", "SimplifiedLayerNormalization"], norms.propagate_layer_norm
    ),
    "com.microsoft:SkipLayerNormalization": norms.propagate_skip_layer_norm,
    "com.microsoft:SkipSimplifiedLayerNormalization": norms.propagate_skip_layer_norm,
    "GroupNormalization": norms.propagate_group_norm,
    "MeanVarianceNormalization": norms.propagate_mean_variance_norm,
    "Attention": attention.propagate_attention,
    "com.microsoft:Attention": attention.propagate_packed_attention,
    "com.microsoft:MultiHeadAttention": attention.propagate_multi_head_attention,
    "com.microsoft:FusedConv": convolution.propagate_conv,
    "com.microsoft:FusedGemm": products.propagate_gemm,
    "com.microsoft:FusedMatMul": products.propagate_matmul,
    "Einsum": einsum.propagate_einsum,
    **dict.fromkeys(["Reshape", "Flatten", "Squeeze", "Unsqueeze"], shapes.propagate_reshape),
    "LayerNormalization": norms.propagate_layer_norm,
    "Conv": convolution.propagate_conv,
    "ConvTranspose": convolution.propagate_conv_transpose,
    "MatMul": products.propagate_matmul,
    "Gemm": products.propagate_gemm,
    "Transpose": shapes.propagate_transpose,
    "DepthToSpace": shapes.propagate_depth_to_space,
    "SpaceToDepth": shapes.propagate_space_to_depth,
    "Expand": shapes.propagate_expand,
    "ConstantOfShape": shapes.propagate_constant_of_shape,
    "Resize": shapes.propagate_resize,
    "Upsample": shapes.propagate_resize,
    "Shape": shapes.propagate_shape,
    "Concat": joining.propagate_concat,
    "Split": joining.propagate_split,
    "Slice": joining.propagate_slice,
    "Gather": joining.propagate_gather,
    "Pad": joining.propagate_pad,
    "Tile": joining.propagate_tile,
    "Where": elementwise.propagate_where,
}
