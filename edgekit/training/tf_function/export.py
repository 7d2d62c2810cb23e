"""Export of learned weights and scales to the initializers of an ONNX model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from onnx import ModelProto, TensorProto, helper, numpy_helper

from edgekit.errors import UserError
from edgekit.onnx_graph.rewrites.bias_scales import computes_bias_scales, store_bias_scales
from edgekit.tflite.ir import Array
from edgekit.training.tf_function.parameters import (
    Parameter,
    collect_constants,
    find_bias_factors,
)


def write_parameters(
    proto: ModelProto, parameters: Mapping[str, Parameter], scales: Mapping[str, Array]
) -> ModelProto:
    """Return a copy of a model with learned weights and scales in its initializers.

    Args:
        proto: not changed.
        parameters: by initializer name.
        scales: learned scales by initializer name. The scales of int32 biases are derived from
            them, because kernels expect the product of the scales of a layer's input and weight.

    Raises:
        UserError: a value is not finite, or the model has no such initializer.
    """
    written = ModelProto()
    written.CopyFrom(proto)
    computed = computes_bias_scales(written)
    store_bias_scales(written)
    tensors = collect_constants(written)
    changed = {
        name: value
        for name, value in scales.items()
        if not np.array_equal(value, _to_float(_find_tensor(tensors, name)))
    }
    changed |= dict(_iter_bias_scales(written, tensors, changed))
    for name, parameter in parameters.items():
        value = parameter.variable.numpy()
        if not np.isfinite(value).all():
            raise UserError(f"{name} contains NaN or infinity", hint="use a smaller learning rate")
        _write_weight(_find_tensor(tensors, name), parameter, value, changed)
    for name, value in changed.items():
        _store(tensors[name], value)
    return _copy_constants(proto, tensors) if computed else written


def _copy_constants(proto: ModelProto, tensors: Mapping[str, TensorProto]) -> ModelProto:
    """Return a copy of a model whose constants take the values of tensors of the same names."""
    copy = ModelProto()
    copy.CopyFrom(proto)
    for name, tensor in collect_constants(copy).items():
        tensor.CopyFrom(tensors[name])
    return copy


def _find_tensor(tensors: Mapping[str, TensorProto], name: str) -> TensorProto:
    if name not in tensors:
        raise UserError(f"{name}: the model has no such initializer")
    return tensors[name]


def _to_float(tensor: TensorProto) -> Array:
    return np.asarray(numpy_helper.to_array(tensor).astype(np.float32))


def _write_weight(
    tensor: TensorProto, parameter: Parameter, value: Array, scales: Mapping[str, Array]
) -> None:
    grid = parameter.grid
    if grid is None:
        if not np.array_equal(value, _to_float(tensor)):
            _store(tensor, value)
        return
    old = numpy_helper.to_array(tensor)
    if grid.scale not in scales and np.array_equal(value, grid.real(old)):
        return
    integers = grid.integers(value, scales.get(grid.scale, grid.scales))
    if not np.array_equal(integers, old.astype(np.int64)):
        _store(tensor, integers)


def _store(tensor: TensorProto, value: Array) -> None:
    dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
    doc = tensor.doc_string
    fresh = value.reshape(tuple(tensor.dims)).astype(dtype)
    tensor.CopyFrom(numpy_helper.from_array(fresh, tensor.name))
    if doc:
        tensor.doc_string = doc


def _iter_bias_scales(
    proto: ModelProto, tensors: Mapping[str, TensorProto], scales: Mapping[str, Array]
) -> Iterator[tuple[str, Array]]:
    for bias, factors in find_bias_factors(proto).items():
        if bias in scales or not set(factors) & scales.keys():
            continue
        first, second = (scales.get(name, _to_float(tensors[name])) for name in factors)
        yield bias, np.broadcast_to((first * second).ravel(), tuple(tensors[bias].dims))
