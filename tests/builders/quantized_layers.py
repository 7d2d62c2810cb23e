"""Quantized layers for tests of integer kernels in LiteRT."""

import numpy as np

RNG = np.random.default_rng(7)


def int8(*shape):
    return RNG.integers(-127, 128, shape).astype(np.int8)


def scales(n, scale=0.004):
    return (scale * RNG.uniform(0.5, 1.5, n)).astype(np.float32)


def layer(q, kind, image, weight, out, *, bias=True, axis=0, channels=None, **attributes):
    """Add a layer with int8 weights per channel and an int32 bias."""
    per_channel = scales(channels or weight.shape[axis])
    inputs = [image, q.stored("w", weight, per_channel, axis)]
    if bias:
        integers = RNG.integers(-2000, 2000, per_channel.size).astype(np.int32)
        inputs.append(q.stored("b", integers, per_channel * np.float32(0.05)))
    return q.add(kind, inputs, out, **attributes)


def convolution(q):
    return layer(q, "Conv", q.fed("x", [1, 3, 8, 8]), int8(8, 3, 3, 3), 0.06, pads=[1, 1, 1, 1])


def softmax(q):
    return q.add("Softmax", [q.fed("x", [3, 10])], 1 / 256, 0, axis=-1)
