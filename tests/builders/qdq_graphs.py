"""Small QDQ graphs, and runs of both runtimes on them."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.onnx_to_tflite import convert as emit
from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite


def model(nodes, inputs, outputs, weights, *, opset=17):
    """Build a model with float inputs of given shapes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in outputs],
        [numpy_helper.from_array(np.asarray(a), n) for n, a in weights.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


class Qdq:
    """A graph whose values are quantized one after the other, as a quantizer writes it."""

    def __init__(self, *, dtype=np.uint8):
        self.dtype, self.nodes, self.weights, self.inputs, self.outputs = dtype, [], {}, {}, []

    def real(self, value, scale, zero):
        """Quantize and dequantize a value."""
        names = self._scale(value, np.float32(scale), self.dtype(zero))
        integer, twin = f"{value}_q", f"{value}_d"
        self.nodes.append(helper.make_node("QuantizeLinear", [value, *names], [integer]))
        self.nodes.append(helper.make_node("DequantizeLinear", [integer, *names], [twin]))
        return twin

    def fed(self, name, shape, scale=0.05, zero=None):
        self.inputs[name] = shape
        return self.real(name, scale, self._middle() if zero is None else zero)

    def stored(self, name, integers, scales, axis=0):
        """Store integers with a scale, or one for each index of an axis, and dequantize them."""
        self.weights[name] = integers
        names = self._scale(name, np.float32(scales), np.zeros_like(scales, integers.dtype))
        twin = f"{name}_d"
        self.nodes.append(helper.make_node("DequantizeLinear", [name, *names], [twin], axis=axis))
        return twin

    def add(self, kind, inputs, scale, zero=None, **attributes):
        """Add an operator with a quantized output."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return self.real(name, scale, self._middle() if zero is None else zero)

    def plain(self, kind, inputs, **attributes):
        """Add an operator whose output is not quantized."""
        name = f"{kind.lower()}{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [name], **attributes))
        return name

    def constant(self, name, array):
        self.weights[name] = array
        return name

    def finished(self, *outputs):
        return model(self.nodes, self.inputs, outputs, self.weights)

    def _middle(self):
        return 128 if self.dtype == np.uint8 else 0

    def _scale(self, stem, scale, zero):
        self.weights[f"{stem}_s"], self.weights[f"{stem}_z"] = scale, zero
        return [f"{stem}_s", f"{stem}_z"]


def lite_graph(proto, **how):
    """Return the TFLite graph of a model."""
    return emit.convert_to_lite_graph(proto, {}, **how)


def by_onnxruntime(proto, feed):
    """Return the outputs with every QDQ node executed literally."""
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    return ort.InferenceSession(proto.SerializeToString(), options).run(None, feed)


def by_litert(content, feed):
    interpreter = Interpreter(model_content=content, num_threads=1)
    interpreter.allocate_tensors()
    return interpreter.get_signature_runner()(**feed)


def both(proto, feed, **how):
    """Return the outputs of both runtimes in pairs."""
    made = by_litert(convert_to_tflite(proto, {}, **how), feed)
    names = [o.name for o in proto.graph.output]
    return [(want, made[n]) for n, want in zip(names, by_onnxruntime(proto, feed), strict=True)]


def make_feed(proto, *, seed=0, scale=2.0):
    rng = np.random.default_rng(seed)
    return {
        value.name: (
            scale * rng.normal(size=[d.dim_value for d in value.type.tensor_type.shape.dim])
        ).astype(np.float32)
        for value in proto.graph.input
    }


def is_integer(op):
    """Return whether an operator reads and writes quantized integers."""
    return all(t.dtype in ("int8", "int16") for t in op.outputs)
