"""Weights stored as float16 and widened at load: half the file, the speed of float32."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from edgekit.errors import PassRefused
from edgekit.graphs.compact import compact
from edgekit.graphs.index import GraphIndex
from edgekit.graphs.onnx_file import load, save
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.recipe import Float16

# Since 9 all operators that hold weights take what another node makes.
_OPSET = 9
# Biases, norms and scalars weigh nothing, and norms are where half precision overflows.
_MIN_ENTRIES = 1024
# Rounding to 11 bits makes 3e-4; a tensor that loses more lies outside the range of float16.
_MOST_LOST = 1e-3


def float16(model: Model, settings: Float16, work: Work) -> Path:
    """Store every large float32 weight in 16 bits, behind a Cast back to float32.

    The runtime widens them once, when it loads the model: nothing is computed in half precision,
    so nothing can overflow, and processors without such arithmetic lose no time. Tensors whose
    values do not fit the range of float16 stay as they are.

    Raises:
        PassRefused: no such weight, or quantised already.
    """
    del settings
    proto = prepare(load(model.path), _OPSET)
    if not _narrow_all(proto):
        raise PassRefused("no large float32 weights to store in 16 bits")
    compact(proto)
    target = work.scratch / "float16.onnx"
    save(proto, target)
    return target


def _narrow_all(proto: ModelProto) -> int:
    """Replace the weights in place; returns how many."""
    index = GraphIndex(proto)
    casts = []
    for name, tensor in list(index.initializers.items()):
        if tensor.data_type != TensorProto.FLOAT:
            continue
        narrow = _narrowed(index.float_constant(name))
        if narrow is not None:
            half = index.add_constant("h", narrow)
            casts.append(helper.make_node("Cast", [half], [name], to=TensorProto.FLOAT))
    widened = {cast.output[0] for cast in casts}
    kept = [tensor for tensor in index.graph.initializer if tensor.name not in widened]
    nodes = [*casts, *index.graph.node]
    del index.graph.initializer[:]
    index.graph.initializer.extend(kept)
    del index.graph.node[:]
    index.graph.node.extend(nodes)
    return len(casts)


def _narrowed(weight: NDArray[np.float32]) -> NDArray[np.float16] | None:
    """The weight in 16 bits, or ``None`` where it is small or would lose more than rounding."""
    if weight.size < _MIN_ENTRIES or not np.isfinite(weight).all():
        return None
    with np.errstate(over="ignore"):
        narrow = weight.astype(np.float16)
    lost = np.square(narrow.astype(np.float64) - weight).sum()
    size = np.square(weight, dtype=np.float64).sum()
    return narrow if lost <= _MOST_LOST**2 * size else None
