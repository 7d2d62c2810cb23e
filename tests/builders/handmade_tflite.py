"""TFLite graphs written by hand, and runs of both runtimes on them."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
from ai_edge_litert.interpreter import Interpreter

from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.tflite.flatbuffer import read_lite, write_lite
from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from edgekit_agent.runtimes.litert import LitertModel


def set_scale(scale, zero=0, axis=0):
    scales = np.atleast_1d(np.asarray(scale, np.float32))
    zeros = np.broadcast_to(np.asarray(zero, np.int64), scales.shape)
    return Quantization(scales=scales, zero_points=zeros, axis=axis)


def tensor(name, shape, dtype="float32", quantization=None):
    return Tensor(name=name, dtype=dtype, shape=tuple(shape), quantization=quantization)


def one(kind, inputs, constants, outputs, **options):
    """Build a graph of one operator; inputs and constants in the operator's order.

    ``inputs`` and ``constants`` map positions to tensors and arrays.
    """
    places = dict(inputs) | {
        place: given if isinstance(given, Tensor) or given is None else constant(f"c{place}", given)
        for place, given in constants.items()
    }
    read = [places.get(i) for i in range(max(places) + 1)]
    op = Op(op_type=kind, inputs=read, outputs=list(outputs), options=options)
    return LiteGraph(
        ops=[op],
        inputs={t.name: t for t in inputs.values()},
        outputs={t.name: t for t in outputs},
    )


def convert(graph):
    """Write a graph to a file, convert it to ONNX and check the model."""
    made = convert_to_onnx(read_lite(write_lite(graph)))
    onnx.checker.check_model(made, full_check=True)
    return made


def by_litert(data, feeds):
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    return LitertModel(interpreter).run(feeds)


def by_onnxruntime(made, feeds):
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(made.SerializeToString(), options)
    names = [value.name for value in session.get_outputs()]
    return dict(zip(names, session.run(None, feeds), strict=True))


def op_types_of(made):
    return [node.op_type for node in made.graph.node]


def batch_of(made):
    """Return the first dimension of the first input."""
    first = made.graph.input[0].type.tensor_type.shape.dim[0]
    return first.dim_param or first.dim_value


def assert_alike(graph, feeds, *, quanta=0.0, tolerance=1e-5):
    """Assert that both runtimes return the same values, types and shapes."""
    expected = by_litert(write_lite(graph), feeds)
    found = by_onnxruntime(convert(graph), feeds)
    assert list(found) == list(expected)
    for name, want in expected.items():
        q = graph.outputs[name].quantization
        atol = quanta * 1.01 * float(q.scales[0]) if q is not None else tolerance
        assert found[name].dtype == want.dtype
        assert found[name].shape == want.shape
        np.testing.assert_allclose(found[name], want, rtol=tolerance, atol=atol)
