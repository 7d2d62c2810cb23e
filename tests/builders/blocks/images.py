"""Blocks of convolutional networks, as exporters write them: [N, C, H, W] in and out."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper


def conv(s, x, read, made, size=1, *, stride=1, group=1, bias=None):
    bias = s.below(2) if bias is None else bias
    inputs = [x, s.weight(made, read // group, size, size), *([s.vector(made)] if bias else [])]
    pads = [size // 2] * 4
    return s.add(
        "Conv", *inputs, kernel_shape=[size, size], pads=pads, strides=[stride] * 2, group=group
    )


def norm(s, x, width):
    return s.add("BatchNormalization", x, *(s.vector(width) for _ in range(4)))


def active(s, x):
    kind = s.one_of(["Relu", "LeakyRelu", "Elu", "HardSwish", "silu", "relu6", "Softplus", "PRelu"])
    if kind == "silu":
        return s.add("Mul", x, s.add("Sigmoid", x))
    if kind == "relu6":
        return s.add("Clip", x, s.number(0), s.number(6))
    if kind == "PRelu":
        return s.add("PRelu", x, s.vector(1))
    return s.add(kind, x)


def plain(s, x, c):
    wide = s.one_of([4, 6, 8])
    return conv(s, active(s, norm(s, conv(s, x, c, wide, 3), wide)), wide, wide), wide


def identity(s, x, c):
    y = conv(s, active(s, conv(s, x, c, 6, 3)), 6, c, 3)
    return s.add("Relu", s.add("Add", x, y)), c


def projection(s, x, c):
    y = conv(s, s.add("Relu", conv(s, x, c, 4)), 4, 8, 3)
    return s.add("Add", norm(s, conv(s, x, c, 8), 8), norm(s, y, 8)), 8


def pre_activation(s, x, c):
    y = conv(s, s.add("Relu", norm(s, x, c)), c, 6, 3)
    return s.add("Add", conv(s, s.add("Relu", norm(s, y, 6)), 6, c, 3), x), c


def padded(s, x, c):
    y = conv(s, x, c, c + 4, 3)
    pads = s.integers(0, 2, 0, 0, 0, 2, 0, 0)
    return s.add("Add", s.add("Pad", x, pads), y), c + 4


def dense(s, x, c):
    for _ in range(2):
        x = s.add("Concat", x, conv(s, s.add("Relu", norm(s, x, c)), c, 3, 3), axis=1)
        c += 3
    return conv(s, x, c, 6), 6


def grouped(s, x, c):
    y = conv(s, s.add("Relu", conv(s, x, c, 12)), 12, 12, 3, group=s.one_of([2, 3, 4]))
    return s.add("Add", conv(s, s.add("Relu", y), 12, c), x), c


def separable(s, x, c):
    """Add a depthwise convolution with squeeze and excitation."""
    y = active(s, conv(s, conv(s, x, c, 8), 8, 8, 3, group=8))
    pooled = s.add("GlobalAveragePool", y) if s.below(2) else s.mean(y, 2, 3)
    if s.below(2):
        gate = conv(s, s.add("Relu", conv(s, pooled, 8, 4, bias=1)), 4, 8, bias=1)
    else:
        flat = s.add("Flatten", pooled, axis=1)
        small = s.add("Relu", s.add("Gemm", flat, s.weight(4, 8), s.vector(4), transB=1))
        gate = s.reshape(s.add("Gemm", small, s.weight(4, 8), s.vector(8)), 0, -1, 1, 1)
    gate = s.add(s.one_of(["HardSigmoid", "Sigmoid"]), gate)
    return conv(s, s.add("Mul", *s.one_of([(y, gate), (gate, y)])), 8, 6), 6


def parted(s, x, c):
    a, b = s.split(conv(s, x, c, 8), s.one_of([(4, 4), (4, 4), (3, 5)]), 1)
    wide = 8
    return s.add("Concat", s.add("Relu", b), a, conv(s, x, c, 2), axis=1), wide + 2


def sliced(s, x, c):
    y = conv(s, x, c, 9, 3)
    a, b = s.slice(y, 0, 4, 1), s.slice(y, *s.one_of([(3, 9), (-6, 2**31)]), 1)
    return s.add("Concat", a, s.add("Relu", b), axis=1), 10


def halved(s, x, c):
    """Split by bounds that are computed from the shape, as a traced chunk."""
    y = conv(s, x, c, 8)
    half = s.add("Div", s.add("Add", s.dimension(y, 1), s.integers(1)), s.integers(2))
    a = s.add("Slice", y, s.integers(0), s.add("Mul", half, s.integers(1)), s.integers(1))
    b = s.add("Slice", y, half, s.add("Mul", half, s.integers(2)), s.integers(1))
    return s.add("Mul", a, s.add("Sigmoid", b)), 4


def shuffled(s, x, c):
    y = conv(s, conv(s, x, c, 12), 12, 12, group=2)
    y = s.add("Transpose", s.reshape(y, 0, 2, 6, 8, 8), perm=[0, 2, 1, 3, 4])
    y = s.reshape(y, s.one_of([0, -1]), 12, 8, 8)
    return conv(s, y, 12, 12, 3, group=s.one_of([1, 2, 12])), 12


def normed(s, x, c):
    """Add GroupNormalization, composed of basic operators."""
    y = conv(s, x, c, 8)
    groups = s.one_of([1, 2, 4])
    shape = s.add("Shape", y)
    flat = s.reshape(y, 0, groups, -1)
    y = s.add("InstanceNormalization", flat, s.vector(groups), s.vector(groups))
    y = s.add("Mul", s.add("Reshape", y, shape), s.vector(8, 1, 1))
    return s.add("Add", y, s.vector(8, 1, 1)), 8


def group_norm(s, x, c):
    y = conv(s, x, c, 8)
    if s.opset < 21:
        return s.add("InstanceNormalization", y, s.vector(8), s.vector(8)), 8
    groups = s.one_of([2, 4])
    return s.add("GroupNormalization", y, s.vector(8), s.vector(8), num_groups=groups), 8


def layer_norm(s, x, c):
    """Add a layer norm over the channels, composed of basic operators."""
    y = conv(s, x, c, 8)
    centered = s.add("Sub", y, s.mean(y, 1))
    square = s.add("Pow", centered, s.number(2)) if s.below(2) else s.add("Mul", centered, centered)
    scale = s.add("Sqrt", s.add("Add", s.mean(square, 1), s.number(1e-5)))
    y = s.add("Mul", s.add("Div", centered, scale), s.vector(8, 1, 1))
    return s.add("Add", y, s.vector(8, 1, 1)), 8


def bare_norm(s, x, c):
    """Add a layer norm without scales, after which zeros are no longer zero."""
    y = conv(s, x, c, 6)
    centered = s.add("Sub", y, s.mean(y, 1))
    variance = s.mean(s.add("Mul", centered, centered), 1)
    return s.add("Div", centered, s.add("Sqrt", s.add("Add", variance, s.number(1e-3)))), 6


def up_and_down(s, x, c):
    a = s.add("PRelu", conv(s, x, c, 6, 3), s.vector(6, 1, 1))
    low = s.add("MaxPool", a, kernel_shape=[2, 2], strides=[2, 2])
    b = s.add("Relu", conv(s, low, 6, 8, 3))
    form = s.below(3)
    if form == 0:
        up = s.add("ConvTranspose", b, s.weight(8, 6, 2, 2), s.vector(6), strides=[2, 2])
    elif form == 1:
        up = s.add("Resize", conv(s, b, 8, 6), "", s.constant(np.float32([1, 1, 2, 2])),
                   mode="linear")  # fmt: skip
    else:
        low = conv(s, b, 8, 6)
        first = s.slice(s.add("Shape", low), 0, 2, 0)
        size = s.add("Concat", first, s.slice(s.add("Shape", a), 2, 4, 0), axis=0)
        up = s.add("Resize", low, "", "", size, mode="nearest")
    return conv(s, s.add("Concat", up, a, axis=1), 12, 6, 3), 6


def pixels(s, x, c):
    y = conv(s, x, c, 16)
    if s.below(2):
        y = s.add("DepthToSpace", y, blocksize=2, mode=s.one_of(["DCR", "CRD"]))
    else:
        y = s.reshape(y, 0, 4, 2, 2, 8, 8)
        y = s.reshape(s.add("Transpose", y, perm=[0, 1, 4, 2, 5, 3]), 0, 4, 16, 16)
    return s.add("AveragePool", y, kernel_shape=[2, 2], strides=[2, 2]), 4


def transposed(s, x, c):
    y = conv(s, x, c, 12)
    y = s.add("ConvTranspose", y, s.weight(12, s.one_of([1, 2]), 1, 1), group=s.one_of([3, 6]))
    width = y_width(s)
    return s.add("ConvTranspose", y, s.weight(width, 1, 3, 3), pads=[1] * 4, group=width), width


def y_width(s):
    """Return the channels of the grouped convolution that was added last."""
    node = s.nodes[-1]
    groups = next(a.i for a in node.attribute if a.name == "group")
    return s.weights[node.input[1]].shape[1] * groups


def masked(s, x, c):
    """Add Where with a mask that is broadcast over the channels."""
    y = conv(s, x, c, 6)
    low = s.add("Less", s.mean(y, 1), s.number(0))
    if s.below(2):
        return s.add("Where", low, s.number(s.one_of([0, 1])), y), 6
    filled = s.add(
        "ConstantOfShape", s.add("Shape", y),
        value=helper.make_tensor("v", TensorProto.FLOAT, [1], [float(s.below(2))]),
    )  # fmt: skip
    return s.add("Add", y, filled), 6


def spread(s, x, c):
    """Add a vector that is expanded to the shape of the other operand."""
    y = conv(s, x, c, 6)
    vector = s.add("GlobalMaxPool", conv(s, x, c, 6))
    wide = s.add("Expand", vector, s.add("Shape", y))
    return s.add(s.one_of(["Add", "Mul", "Max"]), y, wide), 6


def shared(s, x, c):
    """Add one weight that is read twice, and one bias of two layers."""
    w, b = s.weight(c, c, 3, 3), s.vector(c)
    once = s.add("Relu", s.add("Conv", x, w, b, pads=[1] * 4))
    twice = s.add("Conv", once, w, b, pads=[1] * 4)
    return s.add("Concat", once, twice, axis=1), 2 * c


def turned(s, x, c):
    """Transpose to channels last, multiply, and transpose back."""
    y = s.add("Transpose", x, perm=[0, 2, 3, 1])
    y = s.add("Add", s.add("MatMul", y, s.weight(c, 6)), s.vector(6))
    if s.below(2):
        y = s.add("LayerNormalization", y, s.vector(6), s.vector(6), axis=-1)
    return s.add("Transpose", y, perm=[0, 3, 1, 2]), 6


def odd(s, x, c):
    """Add an operator that computes along channels, or that has no rule."""
    y = conv(s, x, c, 6)
    form = s.below(6)
    if form == 0:
        return s.add("LRN", y, size=3), 6
    if form == 1:
        return s.add("Softmax", y, axis=1), 6
    if form == 2:
        return s.add("CumSum", y, s.constant(np.int64(1))), 6
    if form == 3:
        return s.add("Gather", y, s.integers(5, 0, 0, 3), axis=1), 4
    if form == 4:
        return s.add("MeanVarianceNormalization", y, axes=[0, 2, 3]), 6
    picked = s.add("TopK", y, s.integers(3), outputs=2, axis=1)
    return picked[0], 3


BLOCKS = [
    plain, identity, projection, pre_activation, padded, dense, grouped, separable, parted, sliced,
    halved, shuffled, normed, group_norm, layer_norm, bare_norm, up_and_down, pixels, transposed,
    masked, spread, shared, turned, odd,
]  # fmt: skip


def head(s, x, c):
    """Add an output, and return its rank."""
    form = s.below(5)
    if form == 0:
        flat = s.add("Flatten", x)
        return s.add("Gemm", flat, s.weight(3, c * 64), s.vector(3), transB=1), 2
    if form == 1:
        return s.add("MatMul", s.mean(x, 2, 3, keepdims=0), s.weight(c, 3)), 2
    if form == 2:
        return s.add("Sigmoid", conv(s, x, c, 2)), 4
    pooled = s.reshape(s.add("GlobalAveragePool", x), *s.one_of([(0, c), (-1, c), (0, -1)]))
    if form == 3:
        return s.add("Gemm", pooled, s.weight(c, 3), s.vector(1, 3), alpha=0.5, beta=2.0), 2
    hidden = s.add("Tanh", s.add("Gemm", pooled, s.weight(c, 10), s.vector(10)))
    return s.add("Gemm", s.weight(3, 10), hidden, transB=1), 2
