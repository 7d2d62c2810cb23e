"""From a TFLite graph to an ONNX model: variables, windows, batches."""

from __future__ import annotations

from onnx import ModelProto

from edgekit.bridge.batches import takes_batches
from edgekit.bridge.graph import LiteGraph
from edgekit.bridge.lifted import Written, quantized
from edgekit.bridge.lifting import Lifting
from edgekit.bridge.variables import with_states
from edgekit.bridge.windows import windows_widened
from edgekit.graphs.states import State, record_states


def lift(graph: LiteGraph) -> ModelProto:
    """The ONNX model of a TFLite graph, with the names and the order of its inputs and outputs.

    Integers become QDQ with the file's own scales: activations uint8 (int16 where the file has
    that), weights as they are stored; a quantised input or output is float32 to the outside.
    Weights in 16 bits become floats. A first axis of size 1 becomes the free dimension ``N`` if
    the model is found to work on batches.

    Variables become inputs and outputs, and are recorded as states (``graphs.states``).

    Args:
        graph: as ``read_lite`` gives it; not changed.

    Returns:
        Opset 17; opset 21 where activations have 16 bits.

    Raises:
        PassRefused: an operator, or a use of one, that has no counterpart; names the operator and
            what it makes, and says what to do.
    """
    stateless, variables = with_states(graph)
    made = _with_batch(windows_widened(stateless))
    if variables:
        states = [State(input=v.input, output=v.output, initial=v.initial) for v in variables]
        record_states(made, states)
    return made


def _with_batch(widened: LiteGraph) -> ModelProto:
    """The model of a graph, with a free batch if it works on batches."""
    one = _lifted(widened, free=False)
    if any(t.shape[:1] not in ((1,), (-1,)) for t in widened.inputs.values()):
        return one
    free = _lifted(widened, free=True)
    return free if takes_batches(free) else one


def _lifted(graph: LiteGraph, *, free: bool) -> ModelProto:
    wide = any(t.dtype == "int16" and quantized(t) for op in graph.ops for t in op.outputs)
    written = Written(opset=21 if wide else 17, taken={*graph.inputs, *graph.outputs})
    lifting = Lifting(graph, written, free=free)
    lifting.feed_inputs()
    lifting.run()
    return written.model(lifting.finished())
