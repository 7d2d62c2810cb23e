"""Blocks of transformers, as exporters write them: [N, L, 12] in and out, 3 heads of 4."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto, helper

D, HEADS, SIZE = 12, 3, 4


def dense(s, x, read, made, *, bias=True):
    y = s.add("MatMul", x, s.weight(read, made))
    return s.add("Add", *s.one_of([(y, b := s.vector(made)), (b, y)])) if bias else y


def target(s, x, *behind, form=None):
    """Return the target of a Reshape, as constants or computed from the shape."""
    form = s.below(3) if form is None else form
    if form == 0:
        return s.integers(0, 0, *behind)
    if form == 1:
        return s.integers(0, -1, *behind)
    rows = [s.dimension(x, 0), s.dimension(x, 1)]
    return s.add("Concat", *rows, s.integers(*behind), axis=0)


def in_heads(s, x, count=HEADS):
    y = s.add("Reshape", x, target(s, x, count, SIZE))
    return s.add("Transpose", y, perm=[0, 2, 1, 3])


def joined(s, y, x):
    """[N, heads, L, size] to [N, L, D]."""
    y = s.add("Transpose", y, perm=[0, 2, 1, 3])
    return s.add("Reshape", y, target(s, x, D))


def three(s, x):
    """Return queries, keys and values [N, heads, L, size] in one of many variants."""
    form = s.below(7)
    if form == 0:
        return [in_heads(s, dense(s, x, D, D)) for _ in range(3)]
    packed = dense(s, x, D, 3 * D)
    if form == 1:
        return [in_heads(s, y) for y in s.split(packed, (D, D, D), 2)]
    if form == 2:
        return [in_heads(s, s.slice(packed, D * n, D * n + D, 2)) for n in range(3)]
    if form == 3:
        y = s.add("Reshape", packed, target(s, x, HEADS, 3 * SIZE))
        y = s.add("Transpose", y, perm=[0, 2, 1, 3])
        return s.split(y, (SIZE,) * 3, 3)
    y = s.add("Reshape", packed, target(s, x, 3, HEADS, SIZE))
    y = s.add("Transpose", y, perm=[2, 0, 3, 1, 4])
    if form == 4:
        return [s.add("Gather", y, s.constant(np.int64(n)), axis=0) for n in range(3)]
    if form == 5:
        return [s.add("Squeeze", z, s.integers(0)) for z in s.split(y, (1, 1, 1), 0)]
    return [s.add("Squeeze", s.slice(y, n, n + 1, 0), s.integers(0)) for n in range(3)]


def rotated(s, x, y):
    """Rotary embedding of [N, heads, L, size]."""
    half = SIZE // 2
    turned = s.add(
        "Concat", s.add("Neg", s.slice(y, half, SIZE, 3)), s.slice(y, 0, half, 3), axis=3
    )
    if s.below(2):
        places = s.add("Range", s.constant(np.int64(0)),
                       s.add("Squeeze", s.dimension(x, 1), s.integers(0)),
                       s.constant(np.int64(1)))  # fmt: skip
        angles = s.add("Unsqueeze", s.add("Cast", places, to=TensorProto.FLOAT), s.integers(1))
        cosine, sine = (s.add(op, s.add("Mul", angles, s.vector(1, SIZE))) for op in ("Cos", "Sin"))
    else:
        cosine, sine = s.vector(1, 1, 1, SIZE), s.vector(SIZE)
    return s.add("Add", s.add("Mul", y, cosine), s.add("Mul", turned, sine))


def attention(s, x):
    q, k, v = three(s, x)
    if s.below(4) == 0:
        q, k = rotated(s, x, q), rotated(s, x, k)
    scores = s.add("MatMul", q, s.add("Transpose", k, perm=[0, 1, 3, 2]))
    form = s.below(4)
    if form == 0:
        size = s.add("Cast", s.dimension(q, 3), to=TensorProto.FLOAT)
        scores = s.add("Div", scores, s.add("Sqrt", size))
    elif form == 1:
        scores = s.add("Add", s.add("Mul", scores, s.number(0.5)), s.vector(1, HEADS, 1, 1))
    elif form == 2:
        low = s.add("Less", scores, s.number(-3))
        scores = s.add("Where", low, s.number(-1e9), scores)
    y = s.add("MatMul", s.add("Softmax", scores, axis=-1), v)
    return s.add("Add", x, dense(s, joined(s, y, x), D, D))


def by_einsum(s, x):
    q, k, v = (s.add("Reshape", dense(s, x, D, D), target(s, x, HEADS, SIZE)) for _ in range(3))
    scores = s.add("Einsum", q, k, equation="blhd,bmhd->bhlm")
    y = s.add("Softmax", s.add("Div", scores, s.number(2)), axis=-1)
    y = s.add("Einsum", y, v, equation=s.one_of(["bhlm,bmhd->blhd", "...lm,bm...d->bl...d"][:1]))
    if s.below(2):
        made = s.add("Einsum", y, s.weight(HEADS, SIZE, D), equation="blhd,hde->ble")
    else:
        made = dense(s, s.add("Reshape", y, target(s, x, D)), D, D)
    return s.add("Add", x, made)


def merged(s, x):
    """Add nn.MultiheadAttention, with heads next to the batch."""
    first = s.add("Transpose", x, perm=[1, 0, 2])
    parts = []
    for y in s.split(dense(s, first, D, 3 * D), (D,) * 3, 2):
        flat = s.add("Reshape", y, s.add(
            "Concat", s.dimension(first, 0),
            s.add("Mul", s.dimension(first, 1), s.integers(HEADS)), s.integers(SIZE), axis=0,
        ))  # fmt: skip
        parts.append(s.add("Transpose", flat, perm=[1, 0, 2]))
    q, k, v = parts
    scores = s.add("MatMul", q, s.add("Transpose", k, perm=[0, 2, 1]))
    y = s.add("MatMul", s.add("Softmax", scores, axis=-1), v)
    y = s.add("Transpose", y, perm=[1, 0, 2])
    y = s.add("Reshape", y, s.add(
        "Concat", s.add("Mul", s.dimension(first, 0), s.dimension(first, 1)), s.integers(D), axis=0,
    ))  # fmt: skip
    y = s.add("Gemm", y, s.weight(D, D), s.vector(D), transB=1)
    back = s.add("Concat", s.dimension(first, 0), s.dimension(first, 1), s.integers(D), axis=0)
    y = s.add("Transpose", s.add("Reshape", y, back), perm=[1, 0, 2])
    return s.add("Add", x, y)


def repeated(s, x):
    """Add attention with two heads of keys and values for four of queries."""
    q = in_heads(s, dense(s, x, D, 4 * SIZE), 4)
    parts = []
    for _ in range(2):
        y = in_heads(s, dense(s, x, D, 2 * SIZE), 2)
        y = s.add("Unsqueeze", y, s.integers(2))
        if s.below(2):
            y = s.add("Tile", y, s.integers(1, 1, 2, 1, 1))
        else:
            y = s.add("Expand", y, s.integers(1, 1, 2, 1, 1))
        parts.append(s.add("Reshape", y, s.integers(0, 4, -1, SIZE)))
    k, v = parts
    scores = s.add("MatMul", q, s.add("Transpose", k, perm=[0, 1, 3, 2]))
    y = s.add("Transpose", s.add("MatMul", s.add("Softmax", scores, axis=-1), v), perm=[0, 2, 1, 3])
    return s.add("Add", x, dense(s, s.add("Reshape", y, target(s, x, 4 * SIZE)), 4 * SIZE, D))


def one_operator(s, x):
    """Attention as an operator of ONNX or of onnxruntime."""
    form = s.below(3)
    if form == 0:
        made = s.add("Attention", x, s.weight(D, 3 * D), s.vector(3 * D), domain="com.microsoft",
                     num_heads=HEADS)  # fmt: skip
    else:
        parts = [dense(s, x, D, D) for _ in range(3)]
        if form == 1 or s.opset < 23:
            made = s.add("MultiHeadAttention", *parts, domain="com.microsoft", num_heads=HEADS)
        else:
            made = s.add("Attention", *parts, q_num_heads=HEADS, kv_num_heads=HEADS)
    return s.add("Add", x, dense(s, made, D, D))


def feed_forward(s, x):
    """Add a feed-forward layer with one of many activations."""
    wide = s.one_of([8, 10])
    y = dense(s, x, D, wide)
    form = s.below(7)
    if form == 0:
        half = s.add("Mul", y, s.number(0.5))
        grown = s.add("Erf", s.add("Div", y, s.number(2**0.5)))
        y = s.add("Mul", half, s.add("Add", grown, s.number(1)))
    elif form == 1:
        cube = s.add("Mul", s.add("Pow", y, s.number(3)), s.number(0.0447))
        grown = s.add("Tanh", s.add("Mul", s.add("Add", y, cube), s.number(0.798)))
        y = s.add("Mul", s.add("Mul", s.add("Add", grown, s.number(1)), y), s.number(0.5))
    elif form == 2:
        y = s.add("Mul", s.add("Mul", y, s.add("Sigmoid", y)), dense(s, x, D, wide, bias=False))
    elif form == 3:
        y = s.add(s.one_of(["Sigmoid", "Softplus", "Exp"]), y)
    elif form == 4:
        y = s.add("BiasGelu", y, s.vector(wide), domain="com.microsoft")
    elif form == 5:
        y = s.add("QuickGelu", y, domain="com.microsoft")
    else:
        y = s.add("Relu", y)
    return s.add("Add", dense(s, y, wide, D), x)


def layer_norm(s, x):
    form = s.below(6)
    if form == 0:
        return s.add("LayerNormalization", x, s.vector(D), s.vector(D), axis=-1)
    if form == 1:
        return s.add("LayerNormalization", x, s.vector(D), axis=2, epsilon=1e-3)
    if form == 2:
        scale = s.add("Sqrt", s.add("Add", s.mean(s.add("Mul", x, x), -1), s.number(1e-5)))
        return s.add("Mul", s.vector(D), s.add("Div", x, scale))
    if form == 3:
        return s.add("SkipLayerNormalization", x, dense(s, x, D, D), s.vector(D), s.vector(D),
                     domain="com.microsoft")  # fmt: skip
    if form == 4:
        return s.add("SkipSimplifiedLayerNormalization", x, dense(s, x, D, D), s.vector(D),
                     domain="com.microsoft")  # fmt: skip
    centered = s.add("Sub", x, s.mean(x, -1))
    variance = s.mean(s.add("Pow", centered, s.number(2)), -1)
    inverse = s.add("Div", s.number(1), s.add("Sqrt", s.add("Add", variance, s.number(1e-5))))
    return s.add("Add", s.add("Mul", s.add("Mul", centered, inverse), s.vector(D)), s.vector(D))


def windows(s, x):
    """Roll by one place, as Swin does along an axis."""
    y = s.add("Concat", s.slice(x, 1, 2**31, 1), s.slice(x, 0, 1, 1), axis=1)
    y = dense(s, y, D, D)
    y = s.add("Concat", s.slice(y, -1, 2**31, 1), s.slice(y, 0, -1, 1), axis=1)
    return s.add("Add", x, y)


def along(s, x):
    """A convolution along the sequence."""
    y = s.add("Transpose", x, perm=[0, 2, 1])
    group = s.one_of([1, D, HEADS])
    y = s.add("Conv", y, s.weight(D, D // group, 3), pads=[1, 1], group=group)
    return s.add("Add", x, s.add("Transpose", s.add("Relu", y), perm=[0, 2, 1]))


def recurrent(s, x):
    kind = s.one_of(["LSTM", "GRU"])
    gates = 4 if kind == "LSTM" else 3
    first = s.add("Transpose", dense(s, x, D, 10), perm=[1, 0, 2])
    y = s.add(kind, first, s.weight(1, gates * 6, 10), s.weight(1, gates * 6, 6), hidden_size=6)
    y = s.add("Transpose", s.add("Squeeze", y, s.integers(1)), perm=[1, 0, 2])
    return dense(s, y, 6, D)


def branching(s, x):
    """Add an If that reads outer values."""
    y = dense(s, x, D, D)
    then, other = (
        helper.make_graph(
            [helper.make_node(op, [y], [f"{y}_{op}"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{y}_{op}", TensorProto.FLOAT, [None] * 3)],
        )
        for op in ("Relu", "Tanh")
    )
    some = s.add("Greater", s.mean(x, 0, 1, 2, keepdims=0), s.number(0))
    return s.add("Add", s.add("If", some, then_branch=then, else_branch=other), dense(s, y, D, D))


BLOCKS = [
    attention, attention, attention, by_einsum, merged, repeated, one_operator, feed_forward,
    feed_forward, layer_norm, layer_norm, windows, along, recurrent, branching,
]  # fmt: skip


def start(s, *, free=True):
    """Add embeddings of tokens, or of patches with a class token."""
    n = "n" if free else 2
    if s.below(3):
        ids = s.feed("ids", [n, "l" if free else 6], TensorProto.INT64)
        x = s.add("Gather", s.weight(20, D), ids)
        if s.below(2):
            places = s.add("Unsqueeze", s.add("Slice", s.weight(40, D), s.integers(0),
                           s.dimension(ids, 1), s.integers(0)), s.integers(0))  # fmt: skip
            x = s.add("Add", x, places)
        return x
    x = s.feed("x", [n, 3, 8, 8])
    x = s.add("Conv", x, s.weight(D, 3, 4, 4), s.vector(D), strides=[4, 4])
    x = s.add("Transpose", s.reshape(x, 0, D, -1), perm=[0, 2, 1])
    batch = s.add("Concat", s.dimension(x, 0), s.integers(1, D), axis=0)
    token = s.add("Expand", s.vector(1, 1, D), batch)
    return s.add("Add", s.add("Concat", token, x, axis=1), s.vector(1, 5, D))


def head(s, x):
    """Add an output, and return its rank."""
    form = s.below(4)
    if form == 0:
        x = s.add("Gather", x, s.constant(np.int64(0)), axis=1)
        return s.add("Gemm", x, s.weight(4, D), s.vector(4), transB=1), 2
    if form == 1:
        return dense(s, s.mean(x, 1, keepdims=0), D, 3), 2
    if form == 2:
        return s.add("Softmax", dense(s, x, D, 5), axis=-1), 3
    table = next((n for n, w in s.weights.items() if w.shape == (20, D)), None) or s.weight(20, D)
    return s.add("MatMul", x, s.add("Transpose", table, perm=[1, 0])), 3
