"""ONNX nodes that round an activation as DynamicQuantizeLinear does, and keep it in float32.

Unlike the pair of DynamicQuantizeLinear and DequantizeLinear, they have a gradient.
"""

from __future__ import annotations

import numpy as np
from onnx import NodeProto, helper

from edgekit.onnx_graph.graph_index import GraphIndex

_TINY = np.finfo(np.float32).tiny


class DynamicRounding:
    """Rounding of activations to 8 bits with a scale from their range, once for each activation.

    Args:
        index: the graph to which the constants are added.
    """

    def __init__(self, index: GraphIndex) -> None:
        self._index = index
        self._rounded: dict[str, str] = {}

    def round(self, name: str) -> tuple[list[NodeProto], str]:
        """Return the nodes that round an activation, if they are new, and its rounded value."""
        if name in self._rounded:
            return [], self._rounded[name]
        nodes: list[NodeProto] = []
        zero, top = self._store("zero", 0.0), self._store("top", 255.0)
        tiny = self._store("tiny", float(_TINY))

        def add(op_type: str, *inputs: str, **attributes: int) -> str:
            output = self._index.fresh(f"{name}_{op_type}")
            nodes.append(helper.make_node(op_type, list(inputs), [output], **attributes))
            return output

        def clip(value: str) -> str:
            return add("Min", add("Max", value, zero), top)

        most = add("Max", add("ReduceMax", name, keepdims=0), zero)
        least = add("Min", add("ReduceMin", name, keepdims=0), zero)
        scale = add("Max", add("Div", add("Sub", most, least), top), tiny)
        zero_point = add("Round", clip(add("Div", add("Sub", zero, least), scale)))
        integers = clip(add("Add", add("Round", add("Div", name, scale)), zero_point))
        self._rounded[name] = add("Mul", add("Sub", integers, zero_point), scale)
        return nodes, self._rounded[name]

    def _store(self, stem: str, value: float) -> str:
        return self._index.add_constant(stem, np.asarray(value, np.float32))
