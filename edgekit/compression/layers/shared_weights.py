"""Collection of the weights of recurrent layers, of inner graphs, and of several readers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np
from onnx import ModelProto

from edgekit.compression.layers.stored_layers import StoredLayer
from edgekit.compression.layers.weight_readers import (
    OF_INPUT,
    RecurrentWeight,
    WeightReader,
    find_weight_readers,
)
from edgekit.compression.reconstruction.matrix_layers import Array
from edgekit.compression.reconstruction.moments import Moments
from edgekit.errors import UserError
from edgekit.onnx_graph.graph_index import GraphIndex, read_attribute
from edgekit.onnx_graph.runs.activations import Values, observe
from edgekit.onnx_graph.runs.inner_values import Exposure
from edgekit.progress import Tick
from edgekit_agent.samples import Samples

# Number of positions of one batch that are sampled: neighboring positions are similar.
_MOST_POSITIONS = 1024


def collect_shared_layers(
    proto: ModelProto, parts: Sequence[Samples], tick: Tick
) -> tuple[list[StoredLayer], str]:
    """Collect weights of recurrent layers, of layers in inner graphs, and of several readers.

    Args:
        proto: the model, prepared; not changed.
        parts: samples to run, for the second moments of layer inputs.
        tick: progress callback.

    Returns:
        The layers, without second moments where their inputs cannot be observed; and why they
        cannot, empty where they can.

    Raises:
        FloatingPointError: names a value that is not finite on the samples.
    """
    index = GraphIndex(proto)
    readers = find_weight_readers(proto)
    moments: Mapping[str, Moments] = {}
    why = ""
    if readers:
        try:
            moments = _observe_moments(proto, readers, parts, partial(tick, "inputs"))
        except UserError as error:  # e.g. values of a loop that change their size
            why = error.message
    layers = []
    for name, found in readers.items():
        shape = tuple(index.initializers[name].dims)
        first = found[0]
        layers.append(
            StoredLayer(
                name=name,
                weight=index.float_constant(name),
                layer=None if first.is_recurrent else first.layer(shape),
                recurrent=RecurrentWeight(shape=shape) if first.is_recurrent else None,
                moments=moments.get(name),
                readers=tuple(found),
            )
        )
    return layers, why


# ---------------------------------------------------------------- inputs of the layers


def _observe_moments(
    proto: ModelProto,
    readers: Mapping[str, Sequence[WeightReader]],
    parts: Sequence[Samples],
    tick: Callable[[int, int], None],
) -> dict[str, Moments]:
    exposure = Exposure(proto)
    seen: dict[str, list[tuple[WeightReader, str]]] = {
        name: [(reader, _expose_factor(exposure, reader)) for reader in each]
        for name, each in readers.items()
    }
    sums: dict[str, Moments] = {}
    wanted = list(dict.fromkeys(value for pairs in seen.values() for _, value in pairs))
    main = GraphIndex(proto)
    for values in observe(exposure.proto, wanted, parts, tick=tick):
        for name, pairs in seen.items():
            shape = tuple(main.initializers[name].dims)
            for reader, value in pairs:
                _add_rows(sums, name, _get_rows(exposure, reader, shape, value, values))
    for each in sums.values():
        each.settle()
    return sums


def _expose_factor(exposure: Exposure, reader: WeightReader) -> str:
    """Expose the value that a weight multiplies; the state is read from the layer's outputs."""
    node = exposure.nodes(reader.graph)[reader.position]
    if not reader.is_recurrent or reader.input == OF_INPUT:
        return exposure.expose(reader.graph, node.input[0])
    if not node.output[0]:
        node.output[0] = exposure.index.fresh("states")
    return exposure.expose(reader.graph, node.output[0])


def _get_rows(
    exposure: Exposure, reader: WeightReader, shape: tuple[int, ...], name: str, values: Values
) -> Array:
    """Return the factor of a weight as [groups, positions, inputs]."""
    value = values[name].astype(np.float32, copy=False)
    if not np.isfinite(value).all():
        raise FloatingPointError(name)
    leading = exposure.count_iteration_axes(reader.graph)
    if reader.is_recurrent:
        return _get_recurrent_rows(reader, shape, value)
    layer = reader.layer(shape)
    if not value.size:
        return np.zeros((layer.groups, 0, layer.inputs), np.float32)
    return layer.rows(value.reshape(-1, *value.shape[leading + 1 :]))


def _get_recurrent_rows(reader: WeightReader, shape: tuple[int, ...], value: Array) -> Array:
    sides, inputs = shape[0], shape[2]
    if not value.size:
        return np.zeros((sides, 0, inputs), np.float32)
    if reader.input == OF_INPUT:
        rows = value.reshape(1, -1, inputs)
    else:
        by_batch = read_attribute(reader.node, "layout", 0)
        rows = np.moveaxis(value, -2 if by_batch else -3, 0).reshape(sides, -1, inputs)
    rows = rows[:, :: -(-rows.shape[1] // _MOST_POSITIONS)]
    return np.broadcast_to(rows, (sides, *rows.shape[1:]))


def _add_rows(sums: dict[str, Moments], name: str, rows: Array) -> None:
    if not rows.shape[1]:
        return
    if name not in sums:
        groups, _, inputs = rows.shape
        sums[name] = Moments.create_empty(groups, inputs)
    sums[name].add(np.ascontiguousarray(rows))
