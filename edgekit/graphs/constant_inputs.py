"""Inputs that edgekit.toml declares constant, as constants of the graph."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.graphs.index import GraphIndex, rename_reads

# Options of a model, such as a sample rate, are few numbers; larger arrays stay inputs.
MOST_ENTRIES = 64


def fix_inputs(proto: ModelProto, constants: Mapping[str, NDArray[np.generic]]) -> tuple[str, ...]:
    """Let the nodes of a graph read small constant inputs as stored constants, in place.

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
