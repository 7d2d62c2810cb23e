"""Random ONNX graphs as exporters write them, float and QDQ, from a seed."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from onnx import helper, numpy_helper

_OPSET = 17
_LARGEST = 60.0
_ODD_NAMES = ["{}", "/layer.{}/Out:0", "a b {}", "élan{}", "w;{}", "{}/x", "::{}"]
_FLOAT = np.dtype(np.float32)


class Impossible(Exception):
    """A step that does not fit the values that are there."""


class Draft:
    """A graph in the making; every value is known for one feed."""

    def __init__(self, seed):
        self.rng = np.random.default_rng(seed)
        self.nodes, self.weights, self.arrays, self.inputs = [], {}, {}, []
        self.names = _ODD_NAMES[self.below(len(_ODD_NAMES))] if self.chance(0.3) else "v{}"

    def below(self, limit):
        return int(self.rng.integers(limit))

    def chance(self, share):
        return self.rng.random() < share

    def one_of(self, things):
        if not len(things):
            raise Impossible
        return things[self.below(len(things))]

    def name(self):
        return self.names.format(len(self.arrays) + len(self.weights))

    def noise(self, *shape, scale=1.0):
        return (self.rng.normal(size=shape) * scale).astype(np.float32)

    def feed(self, *shape):
        name = self.name()
        self.arrays[name] = self.noise(*shape)
        self.inputs.append(name)
        return name

    def constant(self, array):
        name = self.name()
        self.weights[name] = np.asarray(array)
        return name

    def integers(self, *numbers):
        return self.constant(np.asarray(numbers, np.int64))

    def shape(self, name):
        return (self.arrays[name] if name in self.arrays else self.weights[name]).shape

    def add(self, kind, *inputs, count=1, **attributes):
        """An operator; the name of its output, or of each if there are many."""
        made = [f"{self.name()}.{n}" if count > 1 else self.name() for n in range(count)]
        node = helper.make_node(kind, list(inputs), made, name=f"n{len(self.nodes)}", **attributes)
        known = {n: self.arrays[n] for n in inputs if n in self.arrays}
        weights = {n: self.weights[n] for n in inputs if n in self.weights}
        found = _run(_model([node], known, dict.fromkeys(made), weights), known)
        for array in found:
            if array.size == 0 or array.size > 6000:
                raise Impossible
            if array.dtype == _FLOAT and not np.abs(array).max() < _LARGEST:
                raise Impossible
        self.nodes.append(node)
        self.arrays.update(zip(made, found, strict=True))
        return made if count > 1 else made[0]

    def pick(self, rank=None, *, least=0):
        """A value of floats; later ones are likelier."""
        fit = [
            n for n, a in self.arrays.items()
            if a.dtype == _FLOAT and (a.ndim == rank if rank is not None else a.ndim >= least)
        ]  # fmt: skip
        if not fit:
            raise Impossible
        return fit[-1 - min(int(self.rng.exponential(1.5)), len(fit) - 1)]

    def finished(self, *, output_share=0.15):
        read = {n for node in self.nodes for n in node.input}
        made = [n for node in self.nodes for n in node.output]
        outputs = [n for n in made if n not in read or self.chance(output_share)]
        known = {n: self.arrays[n] for n in self.inputs}
        return _model(self.nodes, known, {n: self.arrays[n] for n in outputs}, self.weights)


def _info(name, array):
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    return helper.make_tensor_value_info(name, kind, array.shape)


def _model(nodes, inputs, outputs, weights):
    read = {n for node in nodes for n in node.input} | set(outputs)
    graph = helper.make_graph(
        nodes,
        "random",
        [_info(n, a) for n, a in inputs.items()],
        [
            helper.make_empty_tensor_value_info(n) if a is None
            else _info(n, a) for n, a in outputs.items()
        ],
        [numpy_helper.from_array(a, n) for n, a in weights.items() if n in read],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=8)


def _run(model, feeds):
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    options.intra_op_num_threads = 1
    try:
        session = ort.InferenceSession(model.SerializeToString(), options)
        return session.run(None, feeds)
    except Exception as error:
        raise Impossible(str(error)) from error


# ------------------------------------------------------------ steps


def _pads(d, count):
    return [d.below(3) for _ in range(2 * count)]


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


def _broadcast_shape(d, shape):
    """Something that broadcasts to a shape, of that rank or a lower one."""
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
    """A random graph of some steps."""
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


# ------------------------------------------------------------ QDQ


def quantised(d):
    """A draft as a quantiser writes it, on a random share of its values.

    Returns:
        The model, and the scale of every output that is quantised, by name.
    """
    share = d.one_of([0.5, 0.9, 1.0, 1.0])
    dtype = d.one_of([np.uint8, np.uint8, np.int8])
    weights, nodes, scales = dict(d.weights), [], {}
    for name in d.inputs:
        nodes += _pair(d, weights, scales, name, name, share, dtype)
    names = {n: (f"{n}_d" if n in scales else n) for n in d.inputs}
    last = {}
    for node in d.nodes:
        new = type(node)()
        new.CopyFrom(node)
        del new.input[:]
        new.input.extend(names.get(n, n) for n in node.input)
        if all(n not in ("", None) for n in node.input):
            _store(d, new, weights, nodes, scales, last, share)
        nodes.append(new)
        like = scales.get(node.input[0]) if node.op_type in _MOVES and d.chance(0.7) else None
        for made in node.output:
            nodes += _pair(d, weights, scales, made, made, share, dtype, like)
            names[made] = f"{made}_d" if made in scales else made
    read = {n for node in d.nodes for n in node.input}
    made = [n for node in d.nodes for n in node.output]
    outputs = [n for n in made if n not in read or d.chance(0.1)]
    known = {n: d.arrays[n] for n in d.inputs}
    ends = {names[n]: d.arrays[n] for n in outputs}
    steps = {names[n]: scales[n][0] for n in outputs if n in scales}
    return _model(nodes, known, ends, weights), steps


_MOVES = {"Reshape", "Transpose", "MaxPool", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather",
          "Identity", "Resize", "DepthToSpace", "Relu", "Split", "GlobalAveragePool"}  # fmt: skip


def _pair(d, weights, scales, value, key, share, dtype, like=None):
    array = d.arrays[value]
    if array.dtype != _FLOAT or not d.chance(share):
        return []
    if like is None:
        low, high = min(0.0, float(array.min())), max(0.0, float(array.max()))
        if d.chance(0.1):
            low, high = low / 2, high / 2  # clips
        scale = np.float32(max(high - low, 1e-3) / 255)
        bounds = np.iinfo(dtype)
        zero = dtype(np.clip(np.rint(-low / scale) + bounds.min, bounds.min, bounds.max))
        like = (scale, zero)
    scales[key] = like
    weights[f"{value}_s"], weights[f"{value}_z"] = like
    q = helper.make_node("QuantizeLinear", [value, f"{value}_s", f"{value}_z"], [f"{value}_q"])
    dq = helper.make_node(
        "DequantizeLinear", [f"{value}_q", f"{value}_s", f"{value}_z"], [f"{value}_d"]
    )
    return [q, dq]


_LAYERS = {"Conv": 0, "Gemm": None, "MatMul": None, "ConvTranspose": 1}


def _store(d, node, weights, nodes, scales, last, share):
    """Weights of layers as int8 under DequantizeLinear, biases as int32; numbers as uint8."""
    if node.op_type in _LAYERS and len(node.input) > 1 and node.input[1] in weights:
        weight = weights[node.input[1]]
        axis = _LAYERS[node.op_type]
        if axis is None:
            turned = any(a.name == "transB" and a.i for a in node.attribute)
            axis = 0 if turned else weight.ndim - 1
        plain = weight.ndim > 1 and (node.op_type != "ConvTranspose" or _group(node) == 1)
        axis = axis if plain and d.chance(0.7) else None
        given = _stored(node, 1, weight, axis, weights, nodes)
        source = node.input[0][:-2] if node.input[0].endswith("_d") else None
        if source in scales and len(node.input) > 2 and node.input[2] in weights:
            bias = weights[node.input[2]]
            if bias.ndim == 1:
                total = np.float32(scales[source][0] * given)
                _stored_bias(node, bias, total, weights, nodes)
    elif node.op_type in ("Add", "Mul", "Sub", "Concat", "Div", "MatMul", "Max"):
        for place, name in enumerate(list(node.input)):
            if name in weights and weights[name].dtype == _FLOAT and d.chance(share):
                _stored(node, place, weights[name], None, weights, nodes, np.int8)


def _group(node):
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def _stored(node, place, array, axis, weights, nodes, dtype=np.int8):
    stem = f"{node.name}_w{place}"
    rest = tuple(n for n in range(array.ndim) if n != axis) if axis is not None else None
    most = np.maximum(np.abs(array).max(axis=rest), 1e-3)
    scale = np.float32(most / 127)
    shape = [1] * array.ndim
    if axis is not None:
        shape[axis] = -1
    spread = scale.reshape(shape) if axis is not None else scale
    weights[f"{stem}_q"] = np.rint(array / spread).astype(dtype)
    weights[f"{stem}_s"], weights[f"{stem}_z"] = scale, np.zeros_like(scale, dtype)
    names = [f"{stem}_q", f"{stem}_s", f"{stem}_z"]
    how = {} if axis is None else {"axis": axis}
    nodes.append(helper.make_node("DequantizeLinear", names, [f"{stem}_d"], **how))
    node.input[place] = f"{stem}_d"
    return scale


def _stored_bias(node, bias, scale, weights, nodes):
    stem = f"{node.name}_b"
    weights[f"{stem}_q"] = np.rint(bias / scale).astype(np.int32)
    weights[f"{stem}_s"], weights[f"{stem}_z"] = scale, np.zeros_like(scale, np.int32)
    names = [f"{stem}_q", f"{stem}_s", f"{stem}_z"]
    nodes.append(helper.make_node("DequantizeLinear", names, [f"{stem}_d"], axis=0))
    node.input[2] = f"{stem}_d"
