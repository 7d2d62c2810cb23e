"""Facts of a model file, whatever its format: graph, cost, stored weights and states."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from onnx import ModelProto

from edgekit.conversion.open_model import is_tflite
from edgekit.model import Model
from edgekit.onnx_graph import cost, weight_stats
from edgekit.onnx_graph.io import load, load_for_shapes, load_structure
from edgekit.onnx_graph.states import State, read_states
from edgekit.tflite.cost import compute_lite_cost
from edgekit.tflite.weight_stats import list_custom_ops, read_tflite_storage_stats


def load_graph(model: Model) -> ModelProto:
    """Load a model as an ONNX graph; one of a .tflite file is converted.

    Raises:
        PassRefused: an operator of a .tflite file has no counterpart.
        UserError: the file cannot be read.
    """
    if model.format == "onnx":
        return load(model.path)
    from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
    from edgekit.tflite.flatbuffer import read_lite  # ONNX files need no litert

    return convert_to_onnx(read_lite(model.path.read_bytes()))


def compute_cost(model: Model, dims: Mapping[str, int]) -> cost.Cost:
    """Compute the static cost of a model.

    Args:
        model: the model.
        dims: sizes of free dimensions by name; others count as 1, as do all of a .tflite file.

    Raises:
        UserError: the graph of a .tflite file cannot be read.
    """
    if model.format == "onnx":
        return cost.compute_cost(load_for_shapes(model.path), dims)
    from edgekit.tflite.flatbuffer import read_lite  # ONNX files need no litert

    return compute_lite_cost(read_lite(model.path.read_bytes()))


def read_storage_stats(path: Path) -> weight_stats.StorageStats:
    """Read the storage statistics of a model file.

    Raises:
        UserError: the file does not load, or is a .tflite file and LiteRT is not installed.
    """
    if is_tflite(path):
        return read_tflite_storage_stats(path)
    return weight_stats.read_storage_stats(path)


def list_operators_to_build_in(model: Model) -> tuple[str, ...]:
    """List the custom operators of a .tflite file, which its runtime must have built in.

    Raises:
        UserError: LiteRT is not installed.
    """
    return list_custom_ops(model.path) if model.format == "tflite" else ()


def list_carried_states(model: Model) -> Sequence[State]:
    """List the states that a caller must feed back; a .tflite file keeps its own variables."""
    return read_states(load_structure(model.path)) if model.format == "onnx" else ()
