"""Random ONNX graphs as exporters write them, float and QDQ, from a seed."""

from __future__ import annotations

import numpy as np

from tests.builders.random.draft import (
    _FLOAT,
    Draft,
    Impossible,
)
from tests.builders.random.layers import activate, convolution, pool, transposed_convolution


def _broadcast_shape(d, shape):
    """Return a shape that broadcasts to another shape."""
    kept = tuple(1 if d.chance(0.5) else s for s in shape)
    return kept[d.below(len(kept) + 1) :] if d.chance(0.5) else kept


def arithmetic(d):
    x = d.pick()
    shape = d.shape(x)
    kind = d.one_of(["Add", "Add", "Mul", "Mul", "Sub", "Div", "Max", "Min"])
    other = d.constant(d.noise(*_broadcast_shape(d, shape)))
    if kind == "Div":
        other = d.constant(np.abs(d.noise(*_broadcast_shape(d, shape))) + 0.5)
        d.add(kind, x, other)
    elif d.chance(0.5):
        d.add(kind, other, x)
    else:
        d.add(kind, x, other)


def residual(d):
    x, y = d.pick(), d.pick()
    try:
        np.broadcast_shapes(d.shape(x), d.shape(y))
    except ValueError as error:
        raise Impossible from error
    out = d.add(d.one_of(["Add", "Add", "Mul", "Sub", "Max"]), x, y)
    if d.chance(0.4):
        activate(d, out)


def _without(shape, axis):
    return shape[:axis] + shape[axis + 1 :]


def join(d):
    x = d.pick(least=1)
    axis = d.below(len(d.shape(x)))
    others = [n for n, a in self_floats(d) if a.ndim == len(d.shape(x))]
    rest = [n for n in others if _without(d.shape(n), axis) == _without(d.shape(x), axis)]
    parts = [d.one_of(rest) for _ in range(1 + d.below(2))]
    if d.chance(0.2):
        parts.append(d.constant(d.noise(*d.shape(x))))
    if axis == 0:
        raise Impossible
    d.add("Concat", x, *parts, axis=axis if d.chance(0.5) else axis - len(d.shape(x)))


def self_floats(d):
    return [(n, a) for n, a in d.arrays.items() if a.dtype == _FLOAT]


def split(d):
    x = d.pick(least=2)
    axis = 1 + d.below(len(d.shape(x)) - 1)
    size = d.shape(x)[axis]
    if size < 2:
        raise Impossible
    first = 1 + d.below(size - 1)
    d.add("Split", x, d.integers(first, size - first), axis=axis, count=2)


def cut(d):
    x = d.pick(least=2)
    axis = 1 + d.below(len(d.shape(x)) - 1)
    size = d.shape(x)[axis]
    begin, end, step = d.below(size), d.one_of([size, 2**31 - 1, -1]), 1 + d.below(2)
    if d.chance(0.2):
        begin, end, step = size - 1, -(2**31), -1
    d.add("Slice", x, *map(d.integers, (begin, end, axis, step)))


def pad(d):
    x = d.pick(least=2)
    rank = len(d.shape(x))
    pads = [0] + [d.below(2) for _ in range(rank - 1)]
    ends = [0] + [d.below(3) for _ in range(rank - 1)]
    mode = d.one_of(["constant", "constant", "reflect", "edge"])
    more = [d.constant(np.float32(d.one_of([0, -1.5])))] if mode == "constant" else []
    d.add("Pad", x, d.integers(*pads, *ends), *more, mode=mode)


def turn(d):
    x = d.pick(least=2)
    d.add("Transpose", x, perm=[0, *(1 + int(n) for n in d.rng.permutation(len(d.shape(x)) - 1))])


def reshape(d):
    x = d.pick(least=1)
    shape = d.shape(x)
    kind = d.one_of(["flat", "merge", "split", "squeeze", "unsqueeze", "flatten", "minus"])
    if kind == "flat":
        d.add("Reshape", x, d.integers(1, -1))
    elif kind == "minus":
        d.add("Reshape", x, d.integers(0, -1))
    elif kind == "flatten":
        d.add("Flatten", x, axis=1 + d.below(len(shape)))
    elif kind == "unsqueeze":
        if len(shape) > 4:
            raise Impossible
        d.add("Unsqueeze", x, d.integers(d.below(len(shape) + 1)))
    elif kind == "squeeze":
        d.add("Squeeze", x, d.integers(d.one_of([i for i, s in enumerate(shape) if s == 1])))
    elif kind == "merge":
        at = d.one_of(range(1, len(shape) - 1))
        d.add("Reshape", x, d.integers(*shape[:at], shape[at] * shape[at + 1], *shape[at + 2 :]))
    else:
        at = d.one_of([i for i, s in enumerate(shape) if s % 2 == 0])
        if len(shape) > 4:
            raise Impossible
        parts = d.one_of([(2, shape[at] // 2), (shape[at] // 2, 2)])
        d.add("Reshape", x, d.integers(*shape[:at], *parts, *shape[at + 1 :]))


def reduce(d):
    x = d.pick(least=2)
    rank = len(d.shape(x))
    kind = d.one_of(["ReduceMean", "ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin", "ReduceL2"])
    axes = sorted({1 + d.below(rank - 1) for _ in range(1 + d.below(2))})
    if d.chance(0.3):
        axes = [a - rank for a in axes]
    if kind == "ReduceSum":
        d.add(kind, x, d.integers(*axes), keepdims=d.below(2))
    else:
        d.add(kind, x, axes=axes, keepdims=d.below(2))


def softmax(d):
    x = d.pick(least=2)
    rank = len(d.shape(x))
    d.add(d.one_of(["Softmax", "Softmax", "LogSoftmax"]), x, axis=d.one_of([-1, *range(1, rank)]))


def dense(d):
    x = d.pick(2)
    columns, made = d.shape(x)[1], 1 + d.below(8)
    if d.chance(0.5):
        turned = d.below(2)
        w = d.noise(*((made, columns) if turned else (columns, made)), scale=0.5)
        ends = [d.constant(d.noise(*d.one_of([(made,), (1, made), ()])))] if d.chance(0.7) else []
        how = {"alpha": 0.5, "beta": 2.0} if d.chance(0.2) else {}
        out = d.add("Gemm", x, d.constant(w), *ends, transB=turned, **how)
    else:
        out = d.add("MatMul", x, d.constant(d.noise(columns, made, scale=0.5)))
        if d.chance(0.5):
            out = d.add("Add", out, d.constant(d.noise(made)))
    if d.chance(0.5):
        activate(d, out)


def product(d):
    x = d.pick(least=3)
    shape = d.shape(x)
    made = 1 + d.below(6)
    kind = d.one_of(["last", "left", "batch", "self"])
    if kind == "last":
        out = d.add("MatMul", x, d.constant(d.noise(shape[-1], made, scale=0.5)))
        if d.chance(0.5):
            d.add("Add", out, d.constant(d.noise(made)))
    elif kind == "left":
        d.add("MatMul", d.constant(d.noise(made, shape[-2], scale=0.5)), x)
    elif kind == "batch":
        w = d.noise(*shape[:-2], shape[-1], made, scale=0.5)
        d.add("MatMul", x, d.constant(w[0] if d.chance(0.3) else w))
    else:
        perm = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
        d.add("MatMul", x, d.add("Transpose", x, perm=perm))


def layer_norm(d):
    x = d.pick(least=2)
    size = d.shape(x)[-1]
    if size < 2:
        raise Impossible
    mean = d.add("ReduceMean", x, axes=[-1])
    off = d.add("Sub", x, mean)
    squares = d.add("Pow", off, d.constant(np.float32(2))) if d.chance(0.5) else None
    squares = squares or d.add("Mul", off, off)
    spread = d.add("ReduceMean", squares, axes=[-1])
    root = d.add("Sqrt", d.add("Add", spread, d.constant(np.float32(1e-2))))
    out = d.add("Mul", d.add("Div", off, root), d.constant(d.noise(size)))
    d.add("Add", out, d.constant(d.noise(size)))


def attention(d):
    x = d.pick(3)
    _, steps, width = d.shape(x)
    if width % 2 or width > 16:
        raise Impossible
    heads = []
    for n in range(3):
        y = d.add("MatMul", x, d.constant(d.noise(width, width, scale=0.4)))
        if d.chance(0.7):
            y = d.add("Add", y, d.constant(d.noise(width, scale=0.3)))
        y = d.add("Reshape", y, d.integers(0, 0, 2, width // 2))
        heads.append(d.add("Transpose", y, perm=[0, 2, 3, 1] if n == 1 else [0, 2, 1, 3]))
    scores = d.add("MatMul", heads[0], heads[1])
    scores = d.add("Div", scores, d.constant(np.float32(np.sqrt(width // 2))))
    if d.chance(0.3):
        mask = np.triu(np.full((steps, steps), -30, np.float32), 1)
        scores = d.add("Add", scores, d.constant(mask))
    seen = d.add("MatMul", d.add("Softmax", scores, axis=-1), heads[2])
    y = d.add("Reshape", d.add("Transpose", seen, perm=[0, 2, 1, 3]), d.integers(1, -1, width))
    d.add("Add", x, d.add("MatMul", y, d.constant(d.noise(width, width, scale=0.4))))


def squeeze_excite(d):
    x = d.pick(4)
    channels = d.shape(x)[1]
    y = d.add("GlobalAveragePool", x) if d.chance(0.5) else d.add("ReduceMean", x, axes=[2, 3])
    if len(d.shape(y)) == 4:
        y = d.add("Relu", d.add("Conv", y, d.constant(d.noise(2, channels, 1, 1))))
        y = d.add("Conv", y, d.constant(d.noise(channels, 2, 1, 1)), d.constant(d.noise(channels)))
    d.add("Mul", x, d.add(d.one_of(["Sigmoid", "HardSigmoid"]), y))


def shuffle(d):
    x = d.pick(4)
    n, channels, height, width = d.shape(x)
    if d.chance(0.5):
        if channels % 2:
            raise Impossible
        y = d.add("Reshape", x, d.integers(n, 2, channels // 2, height, width))
        y = d.add("Transpose", y, perm=[0, 2, 1, 3, 4])
        d.add("Reshape", y, d.integers(n, -1, height, width))
    elif channels % 4 == 0:
        if d.chance(0.5):
            d.add("DepthToSpace", x, blocksize=2, mode=d.one_of(["DCR", "CRD"]))
            return
        y = d.add("Reshape", x, d.integers(n, channels // 4, 2, 2, height, width))
        y = d.add("Transpose", y, perm=[0, 1, 4, 2, 5, 3])
        d.add("Reshape", y, d.integers(n, channels // 4, height * 2, width * 2))
    elif height % 2 == 0 and width % 2 == 0:
        d.add("SpaceToDepth", x, blocksize=2)


def resize(d):
    x = d.pick(4)
    mode = d.one_of(["nearest", "linear"])
    how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    if mode == "linear":
        kinds = ["half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel"]
        how = {"coordinate_transformation_mode": d.one_of(kinds)}
    wide = (2, 2) if "align_corners" in how.values() else d.one_of([(2, 2), (2, 1), (1.5, 2)])
    scales = d.constant(np.asarray([1, 1, *wide], np.float32))
    d.add("Resize", x, "", scales, mode=mode, **how)


def gather(d):
    x = d.pick(least=2)
    axis = 1 + d.below(len(d.shape(x)) - 1)
    size = d.shape(x)[axis]
    picked = d.rng.integers(-size, size, size=d.one_of([(), (1,), (3,), (2, 2)]))
    d.add("Gather", x, d.constant(np.asarray(picked, np.int64)), axis=axis)


def odd_ends(d):
    x = d.pick(least=2)
    kind = d.one_of(["Identity", "Tile", "Expand", "ArgMax", "Where", "Norm", "Instance"])
    shape = d.shape(x)
    if kind == "Identity":
        d.add("Identity", x)
    elif kind == "Tile":
        d.add("Tile", x, d.integers(*[1 if n == 0 else 1 + d.below(2) for n in range(len(shape))]))
    elif kind == "Expand":
        d.add("Expand", x, d.integers(*[s if s > 1 or n == 0 else 2 for n, s in enumerate(shape)]))
    elif kind == "ArgMax":
        d.add("ArgMax", x, axis=d.below(len(shape)), keepdims=d.below(2))
    elif kind == "Where":
        where = d.constant(d.rng.random(_broadcast_shape(d, shape)) < 0.5)
        d.add("Where", where, x, d.constant(d.noise(*_broadcast_shape(d, shape))))
    elif kind == "Norm":
        axis = d.one_of([1, -1, 2][: len(shape)])
        size = shape[axis:]
        d.add("LayerNormalization", x, d.constant(d.noise(*size)), axis=axis, epsilon=0.01)
    elif len(shape) > 2:
        size = shape[1]
        more = [d.constant(d.noise(size)), d.constant(d.noise(size))]
        d.add("InstanceNormalization", x, *more, epsilon=0.01)


STEPS = [
    convolution, convolution, convolution, convolution, transposed_convolution, pool, pool,
    activate, activate, arithmetic, arithmetic, arithmetic, residual, residual, residual, join,
    join, split, cut, pad, turn, turn, reshape, reshape, reduce, softmax, dense, dense, product,
    layer_norm, attention, squeeze_excite, shuffle, shuffle, resize, gather, odd_ends,
]  # fmt: skip


def draft(seed, *, least=2, most=12):
    """Build a random graph of some steps."""
    d = Draft(seed)
    for _ in range(1 + d.below(2)):
        d.feed(*d.one_of([
            (1, 4, 6, 6), (1, 3, 8, 5), (1, 8, 5, 4), (1, 6, 8), (1, 5, 3, 3), (1, 12),
            (1, 4, 1, 1), (1, 4, 4, 4), (1, 4, 4),
        ]))  # fmt: skip
    wanted, tried = least + d.below(most - least), 0
    while wanted > 0 and tried < 60:
        tried += 1
        kept = (list(d.nodes), dict(d.weights), dict(d.arrays))
        try:
            d.one_of(STEPS)(d)
            wanted -= 1
        except (Impossible, IndexError):
            d.nodes, d.weights, d.arrays = kept
    return d
