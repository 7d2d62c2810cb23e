"""Random convolutions, pools and activations, each added to a graph under construction."""

from __future__ import annotations

import numpy as np

from tests.builders.random.draft import (
    _pads,
)


def convolution(d):
    rank = d.one_of([3, 4, 4, 4])
    x = d.pick(rank)
    channels = d.shape(x)[1]
    space = rank - 2
    group = d.one_of([g for g in (1, 1, 1, channels, 2) if channels % g == 0])
    made = group * (1 + d.below(3)) if group > 1 else 1 + d.below(8)
    size = [1 + d.below(3) for _ in range(space)]
    w = d.constant(d.noise(made, channels // group, *size, scale=0.5))
    ends = [d.constant(d.noise(made))] if d.chance(0.6) else []
    how = {"strides": [1 + d.below(2) for _ in range(space)]} if d.chance(0.4) else {}
    if d.chance(0.2):
        how["dilations"] = [1 + d.below(2) for _ in range(space)]
    if d.chance(0.2):
        how["auto_pad"] = d.one_of(["SAME_UPPER", "SAME_LOWER", "VALID"])
    elif d.chance(0.7):
        how["pads"] = _pads(d, space) if d.chance(0.4) else [s // 2 for s in size] * 2
    out = d.add("Conv", x, w, *ends, group=group, kernel_shape=size, **how)
    if d.chance(0.3):
        made = d.shape(out)[1]
        scale = np.abs(d.noise(made)) + 0.5
        rest = [d.noise(made), d.noise(made, scale=0.3), np.abs(d.noise(made)) + 0.5]
        out = d.add("BatchNormalization", out, d.constant(scale), *map(d.constant, rest))
    if d.chance(0.6):
        activate(d, out)


def transposed_convolution(d):
    x = d.pick(d.one_of([4, 4, 3]))
    space = len(d.shape(x)) - 2
    group = d.one_of([1, 1, d.shape(x)[1]])
    size = [1 + d.below(3) for _ in range(space)]
    made = 1 + d.below(4)
    w = d.constant(d.noise(d.shape(x)[1], made, *size, scale=0.5))
    ends = [d.constant(d.noise(made * group))] if d.chance(0.5) else []
    strides = [1 + d.below(3) for _ in range(space)]
    how = {"pads": [d.below(2) for _ in range(2 * space)]} if d.chance(0.5) else {}
    if d.chance(0.2):
        how["output_padding"] = [d.below(s) for s in strides]
    d.add("ConvTranspose", x, w, *ends, strides=strides, group=group, **how)


def pool(d):
    x = d.pick(d.one_of([3, 4, 4, 4]))
    space = len(d.shape(x)) - 2
    kind = d.one_of(["MaxPool", "AveragePool", "GlobalAveragePool", "GlobalMaxPool"])
    if kind.startswith("Global"):
        d.add(kind, x)
        return
    size = [1 + d.below(3) for _ in range(space)]
    how = {"strides": [1 + d.below(2) for _ in size]} if d.chance(0.7) else {}
    if d.chance(0.4):
        how["pads"] = [d.below(max(s // 2 + 1, 1)) for s in size] * 2
    if d.chance(0.2):
        how["ceil_mode"] = 1
    if kind == "AveragePool" and d.chance(0.4):
        how["count_include_pad"] = 1
    d.add(kind, x, kernel_shape=size, **how)


_ACTIVATIONS = [
    "Relu", "Relu", "Relu", "Sigmoid", "Tanh", "HardSwish", "LeakyRelu", "Elu", "Softplus",
    "HardSigmoid", "Erf", "Abs", "Neg", "Clip", "PRelu", "Swish", "Gelu", "Exp", "Sqrt",
    "Softsign", "Selu", "Celu", "ThresholdedRelu", "Hard3",
]  # fmt: skip


def activate(d, x=None):
    x = d.pick() if x is None else x
    kind = d.one_of(_ACTIVATIONS)
    if kind == "Clip":
        low, high = d.one_of([(0.0, 6.0), (-1.0, 1.0), (0.0, 1.0), (-0.5, 2.0), (0.0, None)])
        ends = [d.constant(np.float32(low))]
        ends += [] if high is None else [d.constant(np.float32(high))]
        return d.add("Clip", x, *ends)
    if kind == "PRelu":
        shape = d.shape(x)
        slope = (shape[1], *[1] * (len(shape) - 2)) if len(shape) > 1 else (1,)
        return d.add("PRelu", x, d.constant(d.noise(*slope)))
    if kind == "Swish":
        return d.add("Mul", x, d.add("Sigmoid", x))
    if kind == "Gelu":
        half = d.add("Erf", d.add("Div", x, d.constant(np.float32(1.4142135))))
        wide = d.add("Add", half, d.constant(np.float32(1.0)))
        return d.add("Mul", d.add("Mul", x, wide), d.constant(np.float32(0.5)))
    if kind == "Hard3":
        more = d.add("Add", x, d.constant(np.float32(3.0)))
        clipped = d.add("Clip", more, d.constant(np.float32(0)), d.constant(np.float32(6)))
        if d.chance(0.5):
            clipped = d.add("Div", clipped, d.constant(np.float32(6.0)))
            return d.add("Mul", x, clipped)
        return d.add("Div", d.add("Mul", x, clipped), d.constant(np.float32(6.0)))
    if kind == "Sqrt":
        x = d.add("Add", d.add("Abs", x), d.constant(np.float32(0.1)))
    return d.add(kind, x)
