"""Sessions for the inspection of a graph: nodes added to it, weights mapped from a file."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from edgekit.errors import UserError, first_line
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import make_session_options
from edgekit.onnx_graph.runs.memory_release import return_freed_memory
from edgekit.onnx_graph.runs.weight_offload import copy_without_weights, offload


@dataclass(kw_only=True)
class Additions:
    """Nodes, inputs, constants and outputs added to a graph for its inspection.

    ``after`` holds nodes to insert right behind the node that computes a value (or at the front,
    for an input), so that the value need not be kept for long.
    """

    after: dict[str, list[NodeProto]] = field(default_factory=dict)
    inputs: list[ValueInfoProto] = field(default_factory=list)
    constants: list[TensorProto] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    reads: dict[str, str] = field(default_factory=dict)  # value -> value that nodes read instead

    def add(self, behind: str, *nodes: NodeProto) -> None:
        """Insert nodes behind the node that computes a value."""
        self.after.setdefault(behind, []).extend(nodes)


def open_instrumented(
    proto: ModelProto, additions: Additions, *, many_runs: bool = False
) -> ort.InferenceSession:
    """Open a session of a graph with additions that takes little memory.

    Weights are in a file that the runtime maps, nodes run in file order, and every value is freed
    after its last reader. Integer kernels are off: QuantizeLinear and DequantizeLinear run in
    float32.

    Args:
        proto: the model; not changed.
        additions: nodes, inputs, constants and outputs to add.
        many_runs: fuse nodes and repack weights, for thousands of runs; takes more memory.

    Raises:
        UserError: the runtime refuses the graph with these additions.
    """
    return_freed_memory()
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        lean = _apply_additions(proto, additions)
        offload(proto, lean, Path(name))
        # The runtime maps the weights before it returns, so the folder may be removed then.
        return _open_session(lean, Path(name), many_runs=many_runs)


def open_offloaded(index: GraphIndex, additions: Additions) -> ort.InferenceSession:
    """Open an instrumented session of a graph whose weights may be offloaded already.

    Args:
        index: the graph; its ``folder`` holds the weights if they are offloaded.
        additions: nodes, inputs, constants and outputs to add.

    Raises:
        UserError: as ``open_instrumented``.
    """
    if index.folder is None:
        return open_instrumented(index.proto, additions)
    return_freed_memory()
    lean = _apply_additions(index.proto, additions)
    lean.graph.initializer.extend(index.proto.graph.initializer)
    return _open_session(lean, index.folder)


def _open_session(
    lean: ModelProto, folder: Path, *, many_runs: bool = False
) -> ort.InferenceSession:
    path = folder / "instrumented.onnx"
    path.write_bytes(lean.SerializeToString())
    try:
        return ort.InferenceSession(
            str(path),
            _make_options() if many_runs else _make_lean_options(),
            providers=["CPUExecutionProvider"],
            disabled_optimizers=[] if many_runs else ["ConstantFolding"],
        )
    except Exception as error:  # onnxruntime's own exceptions have no common base
        message = first_line(error)
        raise UserError(
            f"the intermediate values of the model cannot be read: {message}"
        ) from error
    finally:
        path.unlink()


def _make_options() -> ort.SessionOptions:
    options = make_session_options()
    options.intra_op_num_threads = 2
    # Idle threads that wait in a loop would slow down other work.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    return options


def _make_lean_options() -> ort.SessionOptions:
    options = _make_options()
    # The arena never returns memory, a memory pattern takes all at once, prepacking copies the
    # weights.
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.add_session_config_entry("session.disable_prepacking", "1")
    # The default order runs the added nodes of a value last and keeps all values until then; fused
    # nodes lose their place in the file order.
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.execution_order = ort.ExecutionOrder.PRIORITY_BASED
    return options


def _apply_additions(proto: ModelProto, additions: Additions) -> ModelProto:
    """Copy a model with additions and without its initializers."""
    lean = copy_without_weights(proto)
    graph = lean.graph
    graph.input.extend(additions.inputs)
    del graph.node[:]
    _add_nodes(proto, lean, additions)
    value_names = {v.name for v in (*proto.graph.output, *proto.graph.input)}
    graph.output.extend(ValueInfoProto(name=n) for n in additions.outputs if n not in value_names)
    graph.initializer.extend(additions.constants)
    return lean


def _add_nodes(proto: ModelProto, lean: ModelProto, additions: Additions) -> None:
    nodes = lean.graph.node
    for value in proto.graph.input:
        nodes.extend(additions.after.get(value.name, ()))
    for node in proto.graph.node:
        added = nodes.add()
        added.CopyFrom(node)
        for position, name in enumerate(node.input):
            added.input[position] = additions.reads.get(name, name)
        for name in node.output:
            nodes.extend(additions.after.get(name, ()))
