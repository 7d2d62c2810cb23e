"""Convolutional networks, batched weights, chains of products, several inputs and outputs."""

from __future__ import annotations

import numpy as np

from tests.builders.exported.attention import activation, feed_forward, norm, project
from tests.builders.random.draft import Impossible


def convolution(d, x, made, *, size=None, group=1, stride=1, act=True):
    """Add a convolution with BatchNorm and activation."""
    channels, space = d.shape(x)[1], len(d.shape(x)) - 2
    size = size or d.one_of([1, 3, 3])
    w = d.weight(
        made, channels // group, *[size] * space, fan_in=channels // group * size**space, tie=0.05
    )
    ends = [d.constant(d.noise(made, scale=0.1))] if d.chance(0.5) else []
    how = {"pads": [size // 2] * 2 * space, "strides": [stride] * space, "group": group}
    y = d.add("Conv", x, w, *ends, kernel_shape=[size] * space, **how)
    if d.chance(0.4):
        scale, shift, mean = (d.noise(made, scale=0.1) for _ in range(3))
        spread = np.abs(d.noise(made)) + 0.5
        y = d.add("BatchNormalization", y, *map(d.constant, (1 + scale, shift, mean, spread)))
    if not act:
        return y
    if d.chance(0.2):
        slope = d.constant(np.full((made, *[1] * space), 0.2, np.float32))
        return d.add("PRelu", y, slope)
    return d.add("Relu", y) if d.chance(0.5) else activation(d, y)


def convolutions(d):
    """Add a trunk with residuals, concatenations and excitation, then a head or a decoder."""
    space = d.one_of([1, 2, 2, 2, 2, 3])
    sizes = {1: [16], 2: [8, 8], 3: [4, 4, 4]}[space]
    x = d.take(1, d.one_of([1, 3, 4]), *sizes, axes=("batch",))
    x = convolution(d, x, d.one_of([8, 16]), size=3)
    skips = [x]
    for _ in range(2 + d.below(3)):
        block = d.one_of([_residual, _depthwise, _join, _excite, _normalize, _plain])
        x = block(d, x)
        skips.append(x)
    form = d.one_of(["class", "class", "decoder", "maps"])
    if form == "class":
        pooled = d.add("GlobalAveragePool", x)
        flat = d.add("Flatten", pooled) if d.chance(0.5) else d.add(
            "Reshape", pooled, d.integers(-1, d.shape(x)[1])
        )  # fmt: skip
        return [project(d, flat, 10)]
    if form == "decoder":
        return [_decode(d, x, skips)]
    return [convolution(d, s, 4, size=1, act=False) for s in dict.fromkeys(skips[-2:])]


def _residual(d, x):
    channels = d.shape(x)[1]
    inside = convolution(d, x, d.one_of([channels, 24]))
    return activation(d, d.add("Add", convolution(d, inside, channels, act=False), x))


def _depthwise(d, x):
    channels = d.shape(x)[1]
    wide = convolution(d, x, 2 * channels, size=1)
    inside = convolution(d, wide, 2 * channels, size=3, group=2 * channels)
    return convolution(d, inside, channels, size=1, act=d.chance(0.5))


def _join(d, x):
    parts = [convolution(d, x, 8), convolution(d, x, d.one_of([8, 12]))]
    return d.add("Concat", x, *parts, axis=1)


def _excite(d, x):
    channels = d.shape(x)[1]
    pooled = d.add("GlobalAveragePool", x)
    few = d.add("Relu", convolution(d, pooled, 4, size=1, act=False))
    return d.add("Mul", x, d.add("Sigmoid", convolution(d, few, channels, size=1, act=False)))


def _normalize(d, x):
    channels, rank = d.shape(x)[1], len(d.shape(x))
    y = convolution(d, x, channels, act=False)
    form = d.one_of(["instance", "group", "last"])
    gain, shift = d.constant(1 + d.noise(channels, scale=0.1)), d.constant(d.noise(channels))
    if form == "instance":
        return d.add("InstanceNormalization", y, gain, shift)
    if form == "group":
        flat = d.add("Reshape", y, d.integers(0, 2, -1))
        ones = [d.constant(np.ones(2, np.float32)), d.constant(np.zeros(2, np.float32))]
        flat = d.add("InstanceNormalization", flat, *ones)
        return d.add("Reshape", flat, d.integers(0, *d.shape(y)[1:]))
    turned = d.add("Transpose", y, perm=[0, *range(2, rank), 1])
    made = feed_forward(d, norm(d, turned))
    return d.add("Transpose", made, perm=[0, rank - 1, *range(1, rank - 1)])


def _plain(d, x):
    y = convolution(d, x, d.one_of([8, 16, 24]), stride=d.one_of([1, 1, 2]))
    if d.chance(0.3):
        space = len(d.shape(y)) - 2
        kind = d.one_of(["MaxPool", "AveragePool"])
        y = d.add(kind, y, kernel_shape=[2] * space, strides=[1] * space)
    return y


def _decode(d, x, skips):
    channels, space = d.shape(x)[1], len(d.shape(x)) - 2
    made = d.one_of([6, 12])
    w = d.weight(channels, made, *[2] * space, fan_in=channels)
    ends = [d.constant(d.noise(made, scale=0.1))] if d.chance(0.6) else []
    y = d.add("ConvTranspose", x, w, *ends, strides=[2] * space)
    y = activation(d, y)
    fit = [s for s in skips if d.shape(s)[2:] == d.shape(y)[2:]]
    if fit and d.chance(0.8):
        y = d.add("Concat", y, d.one_of(fit), axis=1)
    return convolution(d, y, 3, size=d.one_of([1, 3]), act=False)


def batched_weights(d):
    """Add products whose weights have a batch axis, or are the left operand."""
    groups, rows, wide = 1 + d.below(4), 2 + d.below(5), d.one_of([16, 24, 32])
    x = d.take(1, groups, rows, wide, axes=("batch",))
    for _ in range(1 + d.below(3)):
        made = d.one_of([16, 24, 32])
        wide = d.width(x)
        form = d.one_of(["batch", "batch", "left", "plain", "experts"])
        if form == "batch":
            x = d.add("MatMul", x, d.weight(groups, wide, made, fan_in=wide))
            if d.chance(0.5):
                x = d.add("Add", x, d.constant(d.noise(groups, 1, made, scale=0.1)))
        elif form == "left":
            rows = d.width(x, -2)
            x = d.add("MatMul", d.weight(8, rows, fan_in=rows), x)
        elif form == "experts":
            x = d.add("MatMul", x, d.weight(1, groups, wide, made, fan_in=wide))
        else:
            x = project(d, x, made)
        if d.chance(0.6):
            x = activation(d, x)
    if d.chance(0.5):
        return [project(d, x, 7)]
    turned = d.add("Transpose", x, perm=[0, 2, 1, 3])
    flat = d.add("Reshape", turned, d.integers(0, 0, -1))
    return [project(d, flat, 7)]


def products(d):
    """Add linear layers of rank 2 to 5, with several inputs and outputs and tied weights."""
    rank, wide = 2 + d.below(4), d.one_of([12, 16, 32])
    shape = [1 + d.below(3) for _ in range(rank - 2)]
    axes = ("batch", "length") if rank > 2 else ("batch",)
    values = [d.take(1, *shape, wide, axes=axes) for _ in range(1 + d.below(2))]
    x = values[0]
    outputs = []
    for _ in range(2 + d.below(4)):
        form = d.one_of(["layer", "layer", "ffn", "norm", "add", "join", "linear"])
        if form == "layer":
            x = activation(d, project(d, x, d.one_of([12, 16, 32, 48]), tie=0.3))
        elif form == "linear":
            x = project(d, x, d.one_of([12, 16, 1]), tie=0.3)
        elif form == "ffn":
            x = d.add("Add", x, feed_forward(d, x))
        elif form == "norm":
            x = norm(d, x)
        else:
            fit = [v for v in values if d.shape(v)[:-1] == d.shape(x)[:-1]]
            if form == "add":
                fit = [v for v in fit if d.shape(v) == d.shape(x)]
            other = d.one_of(fit)
            x = d.add("Add", x, other) if form == "add" else d.add("Concat", x, other, axis=-1)
        values.append(x)
        if d.chance(0.15):
            outputs.append(x)
    unread = set(d.inputs) - {n for node in d.nodes for n in node.input}
    for name in sorted(unread):
        if d.shape(name) != d.shape(x):
            raise Impossible
        x = d.add("Mul", x, name)
    return [project(d, x, 9), *outputs]
