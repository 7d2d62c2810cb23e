"""Conversion of a TFLite graph to ONNX: state variables, strided windows, free batch axis."""

from __future__ import annotations

from onnx import ModelProto

from edgekit.conversion.tflite_to_onnx.dynamic_batch import takes_batches
from edgekit.conversion.tflite_to_onnx.onnx_graph_builder import OnnxGraphBuilder
from edgekit.conversion.tflite_to_onnx.onnx_model_builder import OnnxModelBuilder, get_quantization
from edgekit.conversion.tflite_to_onnx.ops import RULES
from edgekit.conversion.tflite_to_onnx.variables import replace_variables
from edgekit.onnx_graph.states import State, record_states
from edgekit.tflite.ir import LiteGraph
from edgekit.tflite.rewrites.padding import fuse_padding_and_dilation


def convert_to_onnx(graph: LiteGraph) -> ModelProto:
    """Convert a TFLite graph to an ONNX model with the same input and output names and order.

    Quantized tensors become QDQ with the scales of the file: activations are uint8 (int16 where the
    file has int16), weights keep their integer type. Quantized model inputs and outputs become
    float32. 16-bit weights become floats. A first axis of size 1 becomes the free dimension ``N``
    if a test run shows that the model computes batches.

    Each variable becomes an input and an output; the pair is recorded as a recurrent state
    (``onnx_graph.states``).

    Args:
        graph: Result of ``read_lite``; not changed.

    Returns:
        A model of opset 17; of opset 21 if activations have 16 bits.

    Raises:
        PassRefused: An operator, or a use of one, has no ONNX counterpart; the message names the
            operator, its output and a remedy.
    """
    stateless, variables = replace_variables(graph)
    proto = _convert_with_batch(fuse_padding_and_dilation(stateless))
    if variables:
        states = [State(input=v.input, output=v.output, initial=v.initial) for v in variables]
        record_states(proto, states)
    return proto


def _convert_with_batch(graph: LiteGraph) -> ModelProto:
    """Convert a graph, with a free batch dimension if the result computes batches."""
    fixed_batch = _convert(graph, free=False)
    if any(t.shape[:1] not in ((1,), (-1,)) for t in graph.inputs.values()):
        return fixed_batch
    free_batch = _convert(graph, free=True)
    return free_batch if takes_batches(free_batch) else fixed_batch


def _convert(graph: LiteGraph, *, free: bool) -> ModelProto:
    has_int16 = any(
        t.dtype == "int16" and get_quantization(t) for op in graph.ops for t in op.outputs
    )
    model_builder = OnnxModelBuilder(
        opset=21 if has_int16 else 17, reserved_names={*graph.inputs, *graph.outputs}
    )
    builder = OnnxGraphBuilder(graph, model_builder, RULES, free=free)
    builder.feed_inputs()
    builder.run()
    return model_builder.model(builder.build_graph())
