"""Weights stored as float16 and widened at load: half the file, the speed of float32."""

from __future__ import annotations

import math
from pathlib import Path

from onnx import ModelProto, TensorProto

from edgekit.errors import PassRefused
from edgekit.graphs.compact import compact
from edgekit.graphs.half import LEAST_ENTRIES, narrow_weights, stores_half
from edgekit.graphs.onnx_file import all_tensors, load, save
from edgekit.graphs.rewrite import prepare
from edgekit.model import Model
from edgekit.passes import Work
from edgekit.passes.reasons import WEIGHT_OPS
from edgekit.recipe import Float16

# Since 9 all operators that hold weights take what another node makes.
_OPSET = 9


def float16(model: Model, settings: Float16, work: Work) -> Path:
    """Store every large float32 weight in 16 bits, behind a Cast back to float32.

    The runtime widens them once, when it loads the model: nothing is computed in half precision,
    so nothing can overflow, and processors without such arithmetic lose no time. Tensors whose
    values do not fit the range of float16 stay as they are.

    Raises:
        PassRefused: no such weight, or quantised already.
    """
    del settings
    source = load(model.path)
    if stores_half(source) and not _stores_large(source):
        raise PassRefused("the model stores its weights as float16 already")
    proto = prepare(source, _OPSET, keep_ties=True)
    if not narrow_weights(proto):
        raise PassRefused(_nothing_large(proto))
    compact(proto, named=WEIGHT_OPS)
    target = work.scratch / "float16.onnx"
    save(proto, target)
    return target


def _stores_large(proto: ModelProto) -> bool:
    """Whether a float32 tensor is large enough to be worth it."""
    return any(
        tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= LEAST_ENTRIES
        for tensor in all_tensors(proto.graph)
    )


def _nothing_large(proto: ModelProto) -> str:
    """The reason why no tensor was stored in 16 bits."""
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    if not floats:
        return "the model stores no float32 tensors"
    largest = max(floats, key=lambda tensor: math.prod(tensor.dims))
    entries = math.prod(largest.dims)
    told = f"the largest float32 tensor, {largest.name}, has {entries} entries"
    if entries < LEAST_ENTRIES:
        return f"nothing to store in 16 bits: {told}, less than the {LEAST_ENTRIES} that pay"
    return f"nothing to store in 16 bits: {told}, and no large one fits the range of float16"
