"""Transformers in the variants that exporters write."""

from __future__ import annotations

import numpy as np

from tests.builders.random.draft import Impossible


def project(d, x, made, *, tie=0.05):
    """Add a linear layer over the last axis, in one of its exported variants."""
    wide = d.width(x)
    form = d.one_of(["matmul", "matmul", "bare", "turned", "gemm", "batch", "einsum"])
    if form == "gemm":
        flat = d.add("Reshape", x, d.integers(-1, wide))
        turned = d.below(2)
        w = d.weight(*((made, wide) if turned else (wide, made)), fan_in=wide, tie=tie)
        y = d.add("Gemm", flat, w, d.constant(d.noise(made, scale=0.1)), transB=turned)
        return d.add("Reshape", y, d.integers(*_kept_front(d, x), made))
    if form == "turned":
        w = d.add("Transpose", d.weight(made, wide, fan_in=wide, tie=tie), perm=[1, 0])
        y = d.add("MatMul", x, w)
    elif form == "batch":
        y = d.add("MatMul", x, d.weight(1, wide, made, fan_in=wide))
    elif form == "einsum":
        if len(d.shape(x)) != 3:
            raise Impossible
        y = d.add("Einsum", x, d.weight(wide, made, fan_in=wide), equation="abc,cd->abd")
    else:
        y = d.add("MatMul", x, d.weight(wide, made, fan_in=wide, tie=tie))
    if form == "bare":
        return y
    bias = d.constant(d.noise(made, scale=0.1))
    return d.add("Add", y, bias) if d.chance(0.5) else d.add("Add", bias, y)


def _kept_front(d, x):
    """Sizes before the last axis: the batch open, the others as they are."""
    return (-1, *d.shape(x)[1:-1])


def norm(d, x):
    """Add a normalization over the last axis."""
    wide = d.width(x)
    form = d.one_of(["layer", "parts", "rms", "none"])
    gain = d.constant(1 + d.noise(wide, scale=0.1))
    if form == "layer":
        return d.add("LayerNormalization", x, gain, d.constant(d.noise(wide, scale=0.1)), axis=-1)
    if form == "none":
        return x
    off = x
    if form == "parts":
        off = d.add("Sub", x, d.add("ReduceMean", x, axes=[-1], keepdims=1))
    square = d.add("Pow", off, d.scalar(2)) if d.chance(0.5) else d.add("Mul", off, off)
    spread = d.add("ReduceMean", square, axes=[-1], keepdims=1)
    root = d.add("Sqrt", d.add("Add", spread, d.scalar(1e-5)))
    return d.add("Mul", d.add("Div", off, root), gain)


def heads_of(d, x, count):
    """Reshape [batch, length, width] to [batch, heads, length, size]."""
    wide, form = d.width(x), d.one_of(["zeros", "computed", "minus"])
    if form == "zeros":
        shape = d.integers(0, 0, count, wide // count)
    elif form == "minus":
        shape = d.integers(0, -1, count, wide // count)
    else:
        whole = d.add("Shape", x)
        parts = [d.add("Gather", whole, d.constant(np.int64(n)), axis=0) for n in range(2)]
        parts = [d.add("Unsqueeze", part, d.integers(0)) for part in parts]
        shape = d.add("Concat", *parts, d.integers(count), d.integers(wide // count), axis=0)
    return d.add("Transpose", d.add("Reshape", x, shape), perm=[0, 2, 1, 3])


def queries_keys_values(d, x, heads):
    """Return queries, keys and values of [batch, heads, length, size]."""
    wide = d.width(x)
    form = d.one_of(["apart", "apart", "split", "stacked", "slices", "grouped"])
    if form == "apart":
        return [heads_of(d, project(d, x, wide), heads) for _ in range(3)]
    if form == "grouped":
        query = heads_of(d, project(d, x, wide), heads)
        few = [heads_of(d, project(d, x, wide // heads), 1) for _ in range(2)]
        return [query, *few]
    joined = project(d, x, 3 * wide)
    if form == "split":
        parts = d.add("Split", joined, d.integers(wide, wide, wide), axis=-1, count=3)
        return [heads_of(d, part, heads) for part in parts]
    if form == "slices":
        parts = [
            d.add("Slice", joined, *map(d.integers, (n * wide, (n + 1) * wide, 2, 1)))
            for n in range(3)
        ]
        return [heads_of(d, part, heads) for part in parts]
    shaped = d.add("Reshape", joined, d.integers(0, 0, 3, heads, wide // heads))
    turned = d.add("Transpose", shaped, perm=[2, 0, 3, 1, 4])
    return [d.add("Gather", turned, d.constant(np.int64(n)), axis=0) for n in range(3)]


def rotate(d, x, length, size):
    """Apply rotary embeddings."""
    angles = np.outer(np.arange(length), 10.0 ** -np.linspace(0, 2, size // 2))
    wide = np.concatenate([angles, angles], axis=1)[None, None]
    half = size // 2
    first = d.add("Slice", x, *map(d.integers, (0, half, 3, 1)))
    second = d.add("Slice", x, *map(d.integers, (half, 2**31 - 1, 3, 1)))
    turned = d.add("Concat", d.add("Neg", second), first, axis=-1)
    cosine, sine = (d.constant(f(wide).astype(np.float32)) for f in (np.cos, np.sin))
    return d.add("Add", d.add("Mul", x, cosine), d.add("Mul", turned, sine))


def attention(d, x, heads):
    """Add attention, and return its keys and values for a cache."""
    wide, length = d.width(x), d.width(x, 1)
    size = wide // heads
    query, key, value = queries_keys_values(d, x, heads)
    if d.chance(0.3) and size % 2 == 0:
        query, key = rotate(d, query, length, size), rotate(d, key, length, size)
    if d.chance(0.25):
        counts = d.shape(key)[1]
        pasts = [d.take(1, counts, 3, size, axes=("batch",)) for _ in range(2)]
        key, value = (
            d.add("Concat", past, now, axis=2)
            for past, now in zip(pasts, (key, value), strict=True)
        )
    if d.chance(0.5):
        query = d.add("Mul", query, d.scalar(size**-0.5))
    scores = d.add("MatMul", query, d.add("Transpose", key, perm=[0, 1, 3, 2]))
    if d.chance(0.5):
        scores = d.add("Div", scores, d.scalar(size**0.5))
    scores = _mask(d, scores)
    seen = d.add("MatMul", d.add("Softmax", scores, axis=-1), value)
    seen = d.add("Transpose", seen, perm=[0, 2, 1, 3])
    seen = d.add("Reshape", seen, d.integers(0, 0 if d.chance(0.5) else -1, wide))
    return project(d, seen, wide), key, value


def _mask(d, scores):
    rows, columns = d.shape(scores)[-2:]
    form = d.one_of(["none", "add", "where"])
    hidden = np.triu(np.ones((rows, columns), bool), 1 + columns - rows)
    if form == "add":
        return d.add("Add", scores, d.constant(np.where(hidden, -1e4, 0).astype(np.float32)))
    if form == "where":
        return d.add("Where", d.constant(hidden), d.scalar(-1e4), scores)
    return scores


def activation(d, x):
    """Add an activation of a feed-forward network."""
    form = d.one_of(["relu", "erf", "tanh", "swish", "leaky"])
    if form == "relu":
        return d.add("Relu", x)
    if form == "leaky":
        return d.add("LeakyRelu", x, alpha=0.1)
    if form == "swish":
        return d.add("Mul", x, d.add("Sigmoid", x))
    if form == "erf":
        half = d.add("Erf", d.add("Div", x, d.scalar(2**0.5)))
        return d.add("Mul", d.add("Mul", x, d.add("Add", half, d.scalar(1))), d.scalar(0.5))
    cube = d.add("Mul", d.add("Pow", x, d.scalar(3)), d.scalar(0.044715))
    inner = d.add("Mul", d.add("Add", x, cube), d.scalar(0.7978845))
    one = d.add("Add", d.add("Tanh", inner), d.scalar(1))
    return d.add("Mul", d.add("Mul", x, one), d.scalar(0.5))


def feed_forward(d, x):
    """Add two linear layers, or three with a gate."""
    wide, inside = d.width(x), d.one_of([32, 64, 96])
    if d.chance(0.3):
        gate = activation(d, project(d, x, inside))
        return project(d, d.add("Mul", gate, project(d, x, inside)), wide)
    return project(d, activation(d, project(d, x, inside)), wide)


def transformer(d):
    """Add one or two blocks over an embedding or features; return logits or a class."""
    length, heads = 3 + d.below(6), d.one_of([2, 4])
    wide = heads * d.one_of([4, 8, 16])
    table, vocabulary = None, 20 + d.below(60)
    if d.chance(0.6):
        ids = d.take(1, length, axes=("batch", "length"), limit=vocabulary)
        table = d.weight(vocabulary, wide, fan_in=1)
        x = d.add("Gather", table, ids, axis=0)
    else:
        x = d.take(1, length, wide, axes=("batch", "length"))
    if d.chance(0.5):
        x = d.add("Add", x, d.constant(d.noise(1, length, wide, scale=0.3)))
    kept, before = [], d.chance(0.6)
    for _ in range(1 + d.below(2)):
        seen, *states = attention(d, norm(d, x) if before else x, heads)
        kept += states if d.chance(0.2) else []
        x = d.add("Add", x, seen)
        x = x if before else norm(d, x)
        made = feed_forward(d, norm(d, x) if before else x)
        x = d.add("Add", x, made) if d.chance(0.9) else made
    x = norm(d, x)
    return [_head(d, x, table), *kept]


def _head(d, x, table):
    form = d.one_of(["logits", "class", "tied", "features"])
    if form == "tied" and table is not None:
        return d.add("MatMul", x, d.add("Transpose", table, perm=[1, 0]))
    if form == "class":
        one = d.add("ReduceMean", x, axes=[1], keepdims=0)
        return project(d, one, 10)
    return x if form == "features" else project(d, x, 24)
