"""Replacement of inputs that edgekit.toml declares constant by constants of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.onnx_graph.graph_index import GraphIndex, rename_reads
from edgekit.onnx_graph.subgraph import find_upstream

# Options of a model, such as a sample rate, are few numbers; larger arrays stay inputs.
MOST_ENTRIES = 64


def fix_inputs(proto: ModelProto, constants: Mapping[str, NDArray[np.generic]]) -> tuple[str, ...]:
    """Replace the reads of small constant inputs by reads of stored constants, in place.

    The inputs stay in the signature, but no node reads them any more.

    Args:
        proto: the model.
        constants: values of inputs that are the same in every run.

    Returns:
        Names of the inputs that were replaced.
    """
    index = GraphIndex(proto)
    inputs = [value.name for value in proto.graph.input]
    small = [n for n in inputs if n in constants and constants[n].size <= MOST_ENTRIES]
    stored = {name: index.add_constant(f"{name}_constant", constants[name]) for name in small}
    rename_reads(proto, stored)
    return tuple(small)


def decides_branch(proto: ModelProto, constants: Mapping[str, NDArray[np.generic]]) -> bool:
    """Return whether some If depends on small constant inputs and on no other input.

    Args:
        proto: the model.
        constants: values of inputs that are the same in every run.
    """
    index = GraphIndex(proto)
    input_names = {value.name for value in proto.graph.input} - index.initializers.keys()
    constant_names = {name for name, value in constants.items() if value.size <= MOST_ENTRIES}
    sources = (
        find_upstream(index, [node.input[0]]) & input_names
        for node in proto.graph.node
        if node.op_type == "If"
    )
    return any(names and names <= constant_names for names in sources)
