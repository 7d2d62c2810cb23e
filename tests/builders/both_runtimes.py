"""One ONNX model in both runtimes."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.tflite.flatbuffer import read_lite
from edgekit.tflite.ir import count_op_types
from tests.builders.qdq_graphs import by_litert


def in_litert(proto, dims=None, **inputs):
    """Return the outputs of the .tflite file, in the model's order."""
    made = by_litert(convert_to_tflite(proto, dims or {}), inputs)
    return [made[value.name] for value in proto.graph.output]


def in_onnxruntime(proto, **inputs):
    session = ort.InferenceSession(proto.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)


def agree(proto, *, dims=None, atol=1e-5, **inputs):
    """Assert that both runtimes compute the same outputs."""
    expected = in_onnxruntime(proto, **inputs)
    for want, got in zip(expected, in_litert(proto, dims, **inputs), strict=True):
        assert got.dtype == want.dtype
        np.testing.assert_allclose(got, want, atol=atol, rtol=1e-4)


def operators(proto, dims=None):
    """Count the operators of each kind in the .tflite file."""
    return count_op_types(read_lite(convert_to_tflite(proto, dims or {})).ops)


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)
