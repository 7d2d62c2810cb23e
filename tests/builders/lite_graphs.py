"""Tiny TFLite graphs, and runs of LiteRT on files."""

import numpy as np
from ai_edge_litert.interpreter import Interpreter

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant


def scales(*values, zeros=None, axis=0):
    return Quantization(
        scales=np.array(values, np.float32),
        zero_points=np.array(zeros or [0] * len(values), np.int64),
        axis=axis,
    )


def tensor(name, shape, dtype="float32", **how):
    return Tensor(name=name, dtype=dtype, shape=shape, **how)


def dense(*, weights=None, first="x", second="y"):
    """Build a graph: x of 4 numbers times weights [3,4], plus one bias."""
    rng = np.random.default_rng(0)
    x, y = tensor(first, (1, 4)), tensor(second, (1, 3))
    if weights is None:
        weights = constant("w", rng.normal(size=(3, 4)).astype(np.float32))
    bias = constant("b", np.arange(3, dtype=np.float32))
    op = Op(op_type="FULLY_CONNECTED", inputs=[x, weights, bias], outputs=[y])
    return LiteGraph(ops=[op], inputs={first: x}, outputs={second: y})


def single(kind, inputs, output, **options):
    """Build a graph of one operator; tensors without a value are inputs."""
    op = Op(op_type=kind, inputs=list(inputs), outputs=[output], options=options)
    fed = {t.name: t for t in inputs if t is not None and not t.is_constant}
    return LiteGraph(ops=[op], inputs=fed, outputs={output.name: output})


def run(data, feeds=None):
    """Run a file on given feeds, or on noise; return the outputs by name."""
    interpreter = Interpreter(model_content=data, num_threads=1)
    interpreter.allocate_tensors()
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    rng = np.random.default_rng(0)
    for i, one in enumerate(inputs):
        noise = (rng.normal(size=one["shape"]) * 30).astype(one["dtype"])
        interpreter.set_tensor(one["index"], noise if feeds is None else feeds[i])
    interpreter.invoke()
    return [interpreter.get_tensor(one["index"]) for one in outputs]
