"""Decoders with tied tables, caches and computed masks, and mixtures of experts."""

from __future__ import annotations

import numpy as np

from tests.builders.exported.attention import activation, heads_of, norm, project

_WHOLE = 2**31 - 1


def decoder(d):
    """Add one or two blocks with grouped queries; the output layer may share the table."""
    length, heads, size = 3 + d.below(5), d.one_of([2, 4]), d.one_of([8, 16, 32])
    wide, vocabulary = heads * size, d.one_of([40, 96, 160])
    form = d.one_of(["tied", "tied turned", "tied scaled", "tied gemm", "apart"])
    table = d.weight(*((wide, vocabulary) if form == "tied turned" else (vocabulary, wide)),
                     fan_in=wide)  # fmt: skip
    ids = d.take(1, length, axes=("batch", "length"), limit=vocabulary)
    rows = d.add("Transpose", table, perm=[1, 0]) if form == "tied turned" else table
    if form == "tied scaled":
        rows = d.add("Mul", table, d.scalar(wide**0.5))
    x = d.add("Gather", rows, ids, axis=0)
    x = d.add("Add", x, _positions(d, ids, length, wide))
    for _ in range(1 + d.below(2)):
        x = d.add("Add", x, _grouped_attention(d, norm(d, x), heads, size))
        inside = d.one_of([64, 96])
        gate = activation(d, project(d, norm(d, x), inside))
        if d.chance(0.5):
            gate = d.add("Mul", gate, project(d, x, inside))
        x = d.add("Add", x, project(d, gate, wide))
    return [_logits(d, norm(d, x), table, form, wide, vocabulary)]


def _positions(d, ids, length, wide):
    """Return rows of a position table: sliced, gathered by a computed range, or stored."""
    form = d.one_of(["slice", "range", "stored"])
    if form == "stored":
        return d.constant(d.noise(1, length, wide, scale=0.3))
    table = d.constant(d.noise(64, wide, scale=0.3))
    count = d.add("Gather", d.add("Shape", ids), d.constant(np.int64(1)), axis=0)
    if form == "slice":
        end = d.add("Unsqueeze", count, d.integers(0))
        return d.add("Slice", table, d.integers(0), end, d.integers(0))
    places = d.add("Range", d.constant(np.int64(0)), count, d.constant(np.int64(1)))
    return d.add("Gather", table, places, axis=0)


def _grouped_attention(d, x, heads, size):
    groups = d.one_of([1, heads // 2, heads])
    query = heads_of(d, project(d, x, heads * size), heads)
    key, value = (heads_of(d, project(d, x, groups * size), groups) for _ in range(2))
    if groups < heads:
        key, value = (_repeat(d, each, heads // groups) for each in (key, value))
    scores = d.add("MatMul", query, d.add("Transpose", key, perm=[0, 1, 3, 2]))
    scores = d.add("Mul", scores, d.scalar(size**-0.5))
    if d.chance(0.6):
        scores = _causal(d, scores, x)
    seen = d.add("MatMul", d.add("Softmax", scores, axis=-1), value)
    seen = d.add("Reshape", d.add("Transpose", seen, perm=[0, 2, 1, 3]), d.integers(0, 0, -1))
    return project(d, seen, heads * size)


def _repeat(d, x, times):
    """Repeat keys or values of a group for each of its queries."""
    _, groups, _, size = d.shape(x)
    wide = d.add("Unsqueeze", x, d.integers(2))
    if d.chance(0.5):
        wide = d.add("Tile", wide, d.integers(1, 1, times, 1, 1))
    else:
        wide = d.add("Concat", *[wide] * times, axis=2)
    return d.add("Reshape", wide, d.integers(0, groups * times, -1, size))


def _causal(d, scores, x):
    """Mask the scores of later positions by a mask computed from the length."""
    count = d.add("Gather", d.add("Shape", x), d.constant(np.int64(1)), axis=0)
    places = d.add("Range", d.constant(np.int64(0)), count, d.constant(np.int64(1)))
    columns = d.add("Unsqueeze", places, d.integers(0))
    rows = d.add("Unsqueeze", places, d.integers(1))
    hidden = d.add("Greater", columns, rows)
    if d.chance(0.5):
        return d.add("Where", hidden, d.scalar(-1e4), scores)
    mask = d.add("Mul", d.add("Cast", hidden, to=1), d.scalar(-1e4))
    return d.add("Add", scores, mask)


def _logits(d, x, table, form, wide, vocabulary):
    if form == "apart":
        return project(d, x, 24)
    if form == "tied turned":
        return d.add("MatMul", x, table)
    if form == "tied gemm":
        flat = d.add("Reshape", x, d.integers(-1, wide))
        y = d.add("Gemm", flat, table, transB=1)
        return d.add("Reshape", y, d.integers(-1, d.shape(x)[1], vocabulary))
    return d.add("MatMul", x, d.add("Transpose", table, perm=[1, 0]))


def experts(d):
    """Add a mixture of experts: routed for each sample, or all computed."""
    length, wide, inside = 2 + d.below(4), d.one_of([24, 48, 64]), d.one_of([32, 64])
    count = 2 + d.below(4)
    x = d.take(1, length, wide, axes=("batch", "length"))
    y = _route(d, x, count, inside) if d.chance(0.5) else _dense(d, x, count, inside)
    y = project(d, activation(d, y), wide)
    return [project(d, norm(d, d.add("Add", x, y)), 9)]


def _route(d, x, count, inside):
    wide = d.width(x)
    mean = d.add("ReduceMean", x, axes=[1], keepdims=0)
    chances = d.add("Softmax", project(d, mean, count), axis=-1)
    if d.chance(0.5):
        which = d.add("ArgMax", chances, axis=-1, keepdims=0)
        weight = d.add("Gather", d.weight(count, wide, inside, fan_in=wide), which, axis=0)
        y = d.add("MatMul", x, weight)
        bias = d.add("Gather", d.constant(d.noise(count, inside)), which, axis=0)
        return d.add("Add", y, d.add("Unsqueeze", bias, d.integers(1)))
    best, which = d.add("TopK", chances, d.integers(2), axis=-1, count=2)
    weight = d.add("Gather", d.weight(count, wide, inside, fan_in=wide), which, axis=0)
    y = d.add("MatMul", d.add("Unsqueeze", x, d.integers(1)), weight)
    share = d.add("Unsqueeze", best, d.integers(2, 3))
    return d.add("ReduceSum", d.add("Mul", y, share), d.integers(1), keepdims=0)


def _dense(d, x, count, inside):
    wide = d.width(x)
    gate = d.add("Softmax", project(d, x, count), axis=-1)
    form = d.one_of(["product", "einsum", "flat"])
    if form == "einsum":
        w = d.weight(count, wide, inside, fan_in=wide)
        y = d.add("Einsum", x, w, equation="blw,ewh->belh")
        gate = d.add("Transpose", gate, perm=[0, 2, 1])
        return d.add("ReduceSum", d.add("Mul", y, d.add("Unsqueeze", gate, d.integers(3))),
                     d.integers(1), keepdims=0)  # fmt: skip
    if form == "product":
        w = d.weight(*d.one_of([(count, wide, inside), (1, count, wide, inside)]), fan_in=wide)
        y = d.add("MatMul", d.add("Unsqueeze", x, d.integers(1)), w)
        gate = d.add("Unsqueeze", d.add("Transpose", gate, perm=[0, 2, 1]), d.integers(3))
        return d.add("ReduceSum", d.add("Mul", y, gate), d.integers(1), keepdims=0)
    y = d.add("Reshape", project(d, x, count * inside), d.integers(0, 0, count, inside))
    y = d.add("MatMul", d.add("Unsqueeze", gate, d.integers(2)), y)
    return d.add("Squeeze", y, d.integers(2))
