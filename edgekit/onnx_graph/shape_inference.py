"""Shape inference for every value of a graph at given input sizes."""

from __future__ import annotations

import contextlib
import math
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
from onnx import GraphProto, ModelProto, TensorProto, TypeProto, helper, numpy_helper

from edgekit.onnx_graph.free_dimensions import size_dimensions
from edgekit.onnx_graph.io import can_hold_shape, is_large, iter_graphs, make_session_options
from edgekit.onnx_graph.rewrites.bias_scales import store_bias_scales

Shape = tuple[int, ...]
# Sizes as far as they are known; ``None`` is a free dimension.
Dims = tuple[int | None, ...]
# Most entries of a Range that shape inference can handle.
_MOST_COUNTED = 1 << 16
NamedShape = tuple[int | str | None, ...]


def copy_with_shapes(proto: ModelProto, dims: Mapping[str, int]) -> ModelProto:
    """Copy a model with free dimensions fixed and all shapes that can be inferred.

    Exported transformers compute shapes inside the graph. With fixed inputs these are constants,
    which onnxruntime's basic optimizations fold.

    Args:
        proto: the model, external data loaded; not changed.
        dims: sizes of free dimensions by name; others count as 1.
    """
    large = is_large(proto)
    fixed = _copy_without_weights(proto) if large else _copy(proto)
    # onnxruntime reorders the nodes if it folds any.
    store_bias_scales(fixed)
    del fixed.graph.value_info[:]
    for value in fixed.graph.input:
        size_dimensions(value, dims)
    for value in fixed.graph.output:
        value.type.tensor_type.ClearField("shape")
    # If inference fails, every shape is unknown and reported as such.
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        fixed = infer_shapes_by_values(_fold_constants(fixed))
    if large:
        _restore_initializers(fixed, proto)
    return fixed


def infer_shapes_by_values(proto: ModelProto) -> ModelProto:
    """Infer shapes, including those that depend on integer values.

    Raises:
        onnx.shape_inference.InferenceError: an operator does not fit its inputs.
    """
    return onnx.shape_inference.infer_shapes(proto, data_prop=not _has_huge_range(proto.graph))


def _has_huge_range(graph: GraphProto) -> bool:
    """Return whether a Range has so many entries that inference would run out of memory."""
    single = {t.name: t for t in graph.initializer if math.prod(t.dims) == 1}
    for node in graph.node:
        if node.op_type == "Constant":
            range_limits = [
                a.t for a in node.attribute if a.name == "value" and math.prod(a.t.dims) == 1
            ]
            single |= dict.fromkeys(node.output, *range_limits) if range_limits else {}
        ends = [single[name] for name in node.input if name in single]
        if node.op_type == "Range" and len(ends) == 3 and _count_range(ends) > _MOST_COUNTED:
            return True
    return False


def _count_range(ends: list[TensorProto]) -> float:
    try:
        start, limit, step = (float(numpy_helper.to_array(t).item()) for t in ends)
    except (TypeError, ValueError):
        return math.inf
    return abs((limit - start) / step) if step else math.inf


def _copy(proto: ModelProto) -> ModelProto:
    copied = ModelProto()
    copied.CopyFrom(proto)
    return copied


def _restore_initializers(bare: ModelProto, proto: ModelProto) -> None:
    """Turn the inputs that replaced weights into initializers again, without their data."""
    input_names = {value.name for value in proto.graph.input}
    for position in reversed(range(len(bare.graph.input))):
        if bare.graph.input[position].name not in input_names:
            del bare.graph.input[position]
    stored_names = {tensor.name for tensor in bare.graph.initializer}
    for tensor in proto.graph.initializer:
        if tensor.name not in stored_names:
            bare.graph.initializer.add(
                name=tensor.name, dims=tensor.dims, data_type=tensor.data_type
            )


def read_shapes(proto: ModelProto) -> tuple[dict[str, Shape], dict[str, int]]:
    """Return the known shapes in the main graph, and the bytes of values that are no initializers.

    Args:
        proto: a model with inferred shapes.
    """
    graph = proto.graph
    shapes: dict[str, Shape] = {t.name: tuple(t.dims) for t in graph.initializer}
    sizes: dict[str, int] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        shape = get_fixed_shape(value.type)
        if shape is not None:
            shapes[value.name] = shape
            sizes[value.name] = math.prod(shape) * itemsize(value.type.tensor_type.elem_type)
    return shapes, sizes


def infer_shapes_at(proto: ModelProto, dims: Mapping[str, int]) -> dict[str, Shape]:
    """Infer the shapes of the values of the main graph, by their names in this model.

    Values that ``copy_with_shapes`` folds or renames get their shapes from their neighbors.

    Args:
        proto: the model, external data loaded; not changed.
        dims: sizes of free dimensions by name; others count as 1.
    """
    shaped = copy_with_shapes(proto, dims)
    bare = _copy_without_weights(proto)
    computed = {name for node in proto.graph.node for name in node.output}
    del bare.graph.value_info[:]
    bare.graph.value_info.extend(v for v in shaped.graph.value_info if v.name in computed)
    signature_values = {value.name: value for value in (*shaped.graph.input, *shaped.graph.output)}
    for value in (*bare.graph.input, *bare.graph.output):
        if value.name in signature_values:
            value.CopyFrom(signature_values[value.name])
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        bare = onnx.shape_inference.infer_shapes(bare)
    return read_shapes(bare)[0]


def get_fixed_shape(value_type: TypeProto) -> Shape | None:
    """Return the shape of a type; ``None`` if a dimension is free or unknown.

    Inference yields a negative size if a window is larger than its input.
    """
    tensor = value_type.tensor_type
    dims = tensor.shape.dim
    if not tensor.HasField("shape") or not all(d.HasField("dim_value") for d in dims):
        return None
    sizes = tuple(d.dim_value for d in dims)
    return None if any(size < 0 for size in sizes) else sizes


def itemsize(elem_type: int) -> int:
    """Return the bytes of one element of an ONNX tensor type."""
    return int(np.dtype(helper.tensor_dtype_to_np_dtype(elem_type)).itemsize)


def _fold_constants(fixed: ModelProto) -> ModelProto:
    options = make_session_options()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "folded.onnx"
        options.optimized_model_filepath = str(target)
        try:
            ort.InferenceSession(
                fixed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception:  # noqa: BLE001 - onnxruntime has no common base class
            return fixed  # the sizes may not fit the model; inference finds what it can
        return onnx.load(str(target))


def infer_ranks(proto: ModelProto) -> dict[str, int]:
    """Infer the ranks of values, inner graphs included; unknown ones are left out.

    Weights are replaced by inputs, so models of any size are allowed.
    """
    bare = _copy_without_weights(proto)
    try:
        bare = onnx.shape_inference.infer_shapes(bare)
    except (onnx.shape_inference.InferenceError, ValueError):
        return {}  # such as an operator that inference does not know: nothing is known
    ranks: dict[str, set[int]] = {}
    for graph in iter_graphs(bare.graph):
        for value in (*graph.input, *graph.value_info, *graph.output):
            tensor = value.type.tensor_type
            rank = len(tensor.shape.dim) if tensor.HasField("shape") else -1
            ranks.setdefault(value.name, set()).add(rank)
    # Two inner graphs may each have a value of that name.
    return {
        name: min(kinds) for name, kinds in ranks.items() if len(kinds) == 1 and min(kinds) >= 0
    }


def infer_named_shapes(proto: ModelProto) -> dict[str, NamedShape]:
    """Infer the shapes of the values of the main graph, with the names of free dimensions.

    A size that is neither known nor named is ``None``; two sizes of one name are equal.
    """
    shapes: dict[str, NamedShape] = {t.name: tuple(t.dims) for t in proto.graph.initializer}
    bare = _copy_without_weights(proto)
    try:
        bare = infer_shapes_by_values(bare)
    except (onnx.shape_inference.InferenceError, ValueError):
        return shapes  # such as an operator that inference does not know
    for value in (*bare.graph.input, *bare.graph.value_info, *bare.graph.output):
        if value.type.tensor_type.HasField("shape"):
            dims = value.type.tensor_type.shape.dim
            shapes[value.name] = tuple(
                d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in dims
            )
    return shapes


def _copy_without_weights(proto: ModelProto) -> ModelProto:
    """Copy the model with large constants replaced by inputs of their shape."""
    bare = ModelProto(ir_version=proto.ir_version)
    bare.opset_import.extend(proto.opset_import)
    bare.functions.extend(proto.functions)
    graph = bare.graph
    graph.name = proto.graph.name
    graph.node.extend(proto.graph.node)
    graph.input.extend(proto.graph.input)
    graph.output.extend(proto.graph.output)
    input_names = {value.name for value in graph.input}
    for tensor in proto.graph.initializer:
        if can_hold_shape(tensor):
            graph.initializer.add().CopyFrom(tensor)
        elif tensor.name not in input_names:
            value = helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
            graph.input.append(value)
    return bare


def infer_partial_shapes(proto: ModelProto) -> dict[str, Dims]:
    """Infer shapes in the main graph, with ``None`` for free sizes; unknown shapes are left out.

    Weights are replaced by inputs, so models of any size are allowed.
    """
    bare = _copy_without_weights(proto)
    del bare.graph.value_info[:]
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        bare = infer_shapes_by_values(bare)
    values = (*bare.graph.input, *bare.graph.value_info, *bare.graph.output)
    return {
        value.name: tuple(
            d.dim_value if d.HasField("dim_value") else None
            for d in value.type.tensor_type.shape.dim
        )
        for value in values
        if value.type.tensor_type.HasField("shape")
    }


def infer_element_types(proto: ModelProto) -> dict[str, int | None]:
    """Infer the ONNX element types of values of the main graph; ``None`` for non-tensors.

    Unknown types are left out. Weights are replaced by inputs.
    """
    bare = _copy_without_weights(proto)
    with contextlib.suppress(onnx.shape_inference.InferenceError, ValueError):
        bare = onnx.shape_inference.infer_shapes(bare)
    values = (*bare.graph.input, *bare.graph.value_info, *bare.graph.output)
    element_types: dict[str, int | None] = {}
    for value in values:
        if value.type.HasField("tensor_type"):
            element_types[value.name] = value.type.tensor_type.elem_type
        elif value.type.WhichOneof("value"):
            element_types[value.name] = None
    return element_types
