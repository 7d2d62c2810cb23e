"""Float16 weights that are widened at load: half the file, at the speed of float32."""

from __future__ import annotations

import math
from pathlib import Path

from onnx import ModelProto, TensorProto

from edgekit.compression.layers.skip_reasons import WEIGHT_OPS
from edgekit.compression.pass_specs import Work
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.io import iter_tensors, load, save
from edgekit.onnx_graph.rewrites.half_precision import LEAST_ENTRIES, narrow_weights, stores_half
from edgekit.onnx_graph.rewrites.minify import compact
from edgekit.onnx_graph.rewrites.prepare import prepare
from edgekit.pass_settings import Float16

# Since opset 9, all operators with weights accept the output of another node as weight.
_OPSET = 9


def store_as_float16(model: Model, settings: Float16, work: Work) -> Path:
    """Store every large float32 weight in 16 bits, behind a Cast back to float32.

    The runtime widens the weights once, when it loads the model. Nothing is computed in half
    precision, so nothing can overflow, and processors without such arithmetic lose no time.
    Tensors whose values do not fit the range of float16 stay unchanged.

    Raises:
        PassRefused: no such weight, or quantized already.
    """
    del settings
    source = load(model.path)
    if stores_half(source) and not _stores_large(source):
        raise PassRefused("the model already stores its weights as float16")
    proto = prepare(source, _OPSET, keep_ties=True)
    if not narrow_weights(proto):
        raise PassRefused(_explain_nothing_large(proto))
    compact(proto, named=WEIGHT_OPS)
    target = work.scratch / "float16.onnx"
    save(proto, target)
    return target


def _stores_large(proto: ModelProto) -> bool:
    """Return whether the model stores a float32 tensor that is large enough to narrow."""
    return any(
        tensor.data_type == TensorProto.FLOAT and math.prod(tensor.dims) >= LEAST_ENTRIES
        for tensor in iter_tensors(proto.graph)
    )


def _explain_nothing_large(proto: ModelProto) -> str:
    """Explain why no tensor was stored in 16 bits."""
    floats = [t for t in proto.graph.initializer if t.data_type == TensorProto.FLOAT]
    if not floats:
        return "the model stores no float32 tensors"
    largest = max(floats, key=lambda tensor: math.prod(tensor.dims))
    entries = math.prod(largest.dims)
    told = f"the largest float32 tensor, {largest.name}, has {entries} entries"
    if entries < LEAST_ENTRIES:
        return (
            f"nothing to store in 16 bits: {told}, fewer than {LEAST_ENTRIES}, the smallest "
            "that saves space"
        )
    return (
        f"nothing to store in 16 bits: {told}, and the values of no large tensor fit the "
        "range of float16"
    )
