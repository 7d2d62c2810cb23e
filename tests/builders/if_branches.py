"""A model that consists of an If on its sample rate; each branch has its own weights."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from tests.builders.tiny import normal


def model_by_rate():
    """Build the model: 16000 selects one branch, any other rate the other."""
    inner = [
        onnx.parser.parse_graph(
            f"{name} () => (float[N,3] {name}_y) {{ {name}_h = MatMul(x, {name}_w) "
            f"{name}_y = {kind}({name}_h) }}"
        )
        for name, kind in (("wide", "Relu"), ("narrow", "Tanh"))
    ]
    for seed, graph in enumerate(inner):
        weight = normal(4, 3, seed=seed)
        graph.initializer.append(numpy_helper.from_array(weight, f"{graph.name}_w"))
    graph = helper.make_graph(
        [
            helper.make_node("Equal", ["sr", "rate"], ["is_wide"]),
            helper.make_node("If", ["is_wide"], ["y"], then_branch=inner[0], else_branch=inner[1]),
        ],
        "g",
        [
            helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 4]),
            helper.make_tensor_value_info("sr", onnx.TensorProto.INT64, []),
        ],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(16000), "rate")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
