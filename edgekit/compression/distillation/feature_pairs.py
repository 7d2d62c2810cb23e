"""Choice of the inner values that a student has in common with its teacher."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.compression.distillation.output_losses import list_output_values
from edgekit.compression.output_divergence import compute_spread
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.operators import is_standard
from edgekit.training.learning.targets import FeatureTarget

T = TypeVar("T")
Value = NDArray[np.generic]
# Computes named values on a few batches.
Compute = Callable[[Sequence[str]], Sequence[Mapping[str, Value]]]

_MOST = 12
# Operators whose results are features of the input, and those that follow them elementwise.
_MAKERS = {
    "Add", "AveragePool", "Clip", "Concat", "Conv", "Elu", "GRU", "Gelu", "Gemm",
    "GlobalAveragePool", "HardSwish", "LSTM", "LayerNormalization", "LeakyRelu", "MatMul",
    "MaxPool", "Mul", "PRelu", "Relu",
}  # fmt: skip
_ACTIVATIONS = {
    "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "PRelu", "Relu", "Sigmoid",
    "Tanh",
}  # fmt: skip
# A channel of the student that follows none of the teacher's by at least this much is new.
_LEAST_CORRELATION = 0.5
# Values of different names are the same feature if they follow each other so closely.
_SAME = 0.9
_MOST_POSITIONS = 20_000


def find_features(
    original: ModelProto,
    student: ModelProto,
    *,
    compute_original: Compute,
    compute_student: Compute,
) -> tuple[FeatureTarget, ...]:
    """Find the inner values that a student should have in common with its teacher.

    They have the same name, or, where two graphs share no names, the same shape and nearly the same
    entries. In a student of another architecture, the last value of each size of the image or the
    sequence is matched by a linear map that is learned as well. Where the student has fewer
    channels, each of them is matched with the teacher's channel that it correlates with most; a
    value with a channel that follows none of the teacher's is left out.

    Args:
        original: the teacher.
        student: of the same inputs and outputs.
        compute_original: computes values of the teacher.
        compute_student: computes values of the student, on the same batches.
    """
    names = [_list_features(proto, (original, student)) for proto in (original, student)]
    common = [name for name in names[1] if name in set(names[0])]
    if common:
        chosen = _select_evenly(common)
        olds, news = compute_original(chosen), compute_student(chosen)
        found = [_match(n, n, [v[n] for v in olds], [v[n] for v in news]) for n in chosen]
        if any(found):
            return tuple(target for target in found if target is not None)
    olds, news = compute_original(names[0])[:1], compute_student(names[1])[:1]
    pairs = _pair_by_entries(olds[0], news[0]) if olds else []
    if olds and not pairs:
        return tuple(_pair_by_size(olds[0], news[0]))
    return tuple(
        FeatureTarget(
            name=new, wanted=old, axis=1, channels=None, spread=compute_spread([olds[0][old]])
        )
        for old, new in _select_evenly(pairs)
    )


def _list_features(proto: ModelProto, graphs: Sequence[ModelProto]) -> list[str]:
    """List the inner values of a graph that may be matched, in order.

    Values before an activation are left out, and so are outputs of either graph.
    """
    index = GraphIndex(proto)
    outputs = {name for graph in graphs for name in list_output_values(graph)} | index.outputs
    return [
        node.output[0]
        for node in index.graph.node
        if node.op_type in _MAKERS
        and is_standard(node)
        and node.output[0] not in outputs
        and not _comes_before_activation(index, node.output[0])
    ]


def _comes_before_activation(index: GraphIndex, name: str) -> bool:
    readers = index.readers[name]
    return bool(readers) and all(node.op_type in _ACTIVATIONS for node in readers)


def _select_evenly(values: Sequence[T]) -> list[T]:
    """Select at most a dozen values, evenly spread, the last one included."""
    if len(values) <= _MOST:
        return list(values)
    places = np.linspace(0, len(values), _MOST + 1)[1:].round().astype(int) - 1
    return [values[place] for place in places]


def _pair_by_entries(olds: Mapping[str, Value], news: Mapping[str, Value]) -> list[tuple[str, str]]:
    """Pair values of two graphs that have the same shape and nearly the same entries."""
    pairs: list[tuple[str, str]] = []
    taken: set[str] = set()
    for new, after in news.items():
        if after.dtype.kind != "f" or after.ndim < 2:
            continue
        best, found = _SAME, ""
        for old, before in olds.items():
            if old not in taken and before.shape == after.shape and before.dtype.kind == "f":
                follows = _correlate(before, after)
                if follows > best:
                    best, found = follows, old
        if found:
            taken.add(found)
            pairs.append((found, new))
    return pairs


def _pair_by_size(olds: Mapping[str, Value], news: Mapping[str, Value]) -> Iterator[FeatureTarget]:
    """Yield the last values of each size apart from the channels, to match by a linear map."""
    last = {_get_size(value): name for name, value in olds.items() if _can_map(value)}
    mapped = {_get_size(value): name for name, value in news.items() if _can_map(value)}
    for size, new in mapped.items():
        if size in last:
            old = last[size]
            axis = _get_channel_axis(news[new])
            widths = news[new].shape[axis], olds[old].shape[axis]
            spread = compute_spread([olds[old]])
            yield FeatureTarget(
                name=new, wanted=old, axis=axis, channels=None, spread=spread, widths=widths
            )


def _can_map(value: Value) -> bool:
    return value.dtype.kind == "f" and value.ndim >= 2 and value.size > 0


def _get_channel_axis(value: Value) -> int:
    """Return the axis of the channels: 1 of images, the last one of sequences and vectors."""
    return 1 if value.ndim >= 4 else value.ndim - 1


def _get_size(value: Value) -> tuple[int, ...]:
    axis = _get_channel_axis(value)
    return (value.ndim, *(n for a, n in enumerate(value.shape) if a != axis))


def _correlate(before: Value, after: Value) -> float:
    step = -(-before.size // _MOST_POSITIONS)
    left, right = (v.ravel()[::step].astype(np.float64) for v in (before, after))
    if not (np.isfinite(left).all() and np.isfinite(right).all()):
        return 0.0
    spread = left.std() * right.std()
    return float(((left - left.mean()) * (right - right.mean())).mean() / spread) if spread else 0.0


def _match(
    old: str, new: str, before: Sequence[Value], after: Sequence[Value]
) -> FeatureTarget | None:
    """Match the channels of a student's value with those of the teacher's, if they follow them."""
    shapes = [(left.shape, right.shape) for left, right in zip(before, after, strict=True)]
    first = shapes[0]
    if before[0].dtype.kind != "f" or len(first[0]) != len(first[1]) or len(first[0]) < 2:
        return None
    if any(0 in shape for pair in shapes for shape in pair):
        return None
    if all(left == right for left, right in shapes):
        spread = compute_spread(before)
        return FeatureTarget(name=new, wanted=old, axis=1, channels=None, spread=spread)
    axes = {a for left, right in shapes for a in range(len(left)) if left[a] != right[a]}
    if len(axes) != 1 or 0 in axes:
        return None
    axis = axes.pop()
    channels = _match_channels(_flatten(before, axis), _flatten(after, axis))
    if channels is None:
        return None
    spread = compute_spread([np.take(value, channels, axis=axis) for value in before])
    return FeatureTarget(name=new, wanted=old, axis=axis, channels=channels, spread=spread)


def _match_channels(
    before: NDArray[np.float64], after: NDArray[np.float64]
) -> tuple[int, ...] | None:
    """Return the teacher's channel for each of the student's; ``None`` if one follows none."""
    if not (np.isfinite(before).all() and np.isfinite(after).all()):
        return None
    correlation = _standardize(before).T @ _standardize(after) / len(before)
    lives = after.std(axis=0) > 0
    if not lives.any() or correlation.max(axis=0)[lives].min() < _LEAST_CORRELATION:
        return None
    return tuple(int(channel) for channel in correlation.argmax(axis=0))


def _flatten(values: Sequence[Value], axis: int) -> NDArray[np.float64]:
    """Return values as positions times channels, a limited number of positions."""
    rows = np.concatenate([np.moveaxis(v, axis, -1).reshape(-1, v.shape[axis]) for v in values])
    step = -(-len(rows) // _MOST_POSITIONS)
    return np.asarray(rows[::step], np.float64)


def _standardize(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = rows.std(axis=0)
    return np.asarray((rows - rows.mean(axis=0)) / np.where(spread > 0, spread, 1.0))
