"""Fusion of TFLite's explicit padding and dilation operators into the convolution between them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor

_CONVOLUTIONS = ("CONV_2D", "DEPTHWISE_CONV_2D")


def fuse_padding_and_dilation(graph: LiteGraph) -> LiteGraph:
    """Return a graph whose convolutions pad and dilate themselves; the given graph is not changed.

    PAD before a VALID convolution becomes its ``pads`` (top, left, bottom, right), an option that
    is not in the schema. SPACE_TO_BATCH_ND before and BATCH_TO_SPACE_ND after a convolution become
    its dilation.
    """
    finder = _WindowFuser(graph=graph)
    ops = [finder.fuse(op) for op in graph.ops]
    rewritten = LiteGraph(ops=ops, inputs=graph.inputs, outputs=graph.outputs, inner=graph.inner)
    rewritten.drop_unread()
    return rewritten


@dataclass(kw_only=True)
class _WindowFuser:
    graph: LiteGraph
    producers: dict[int, Op] = field(init=False)
    readers: dict[int, list[Op]] = field(init=False)

    def __post_init__(self) -> None:
        self.producers, self.readers = self.graph.producers(), self.graph.readers()

    def fuse(self, op: Op) -> Op:
        """Return a convolution with the padding or dilation around it fused in, or the operator."""
        if op.op_type in _CONVOLUTIONS:
            return self._fuse_padding(op)
        return self._fuse_dilation(op) if op.op_type == "BATCH_TO_SPACE_ND" else op

    def _fuse_padding(self, op: Op) -> Op:
        pad = self._find_producer(op, "PAD")
        if pad is None or op.options.get("padding") != "VALID":
            return op
        sizes = _read_constant(pad, 1)
        if sizes is None or sizes.shape != (4, 2) or sizes[[0, 3]].any() or (sizes < 0).any():
            return op
        if not _is_same_quantization(pad.inputs[0], pad.outputs[0]):
            return op
        pads = (*(int(n) for n in sizes[1:3, 0]), *(int(n) for n in sizes[1:3, 1]))
        return _replace_op(op, pad.inputs[0], op.outputs[0], {"pads": pads})

    def _fuse_dilation(self, op: Op) -> Op:
        conv = next((c for k in _CONVOLUTIONS if (c := self._find_producer(op, k))), None)
        if conv is None or not self._is_read_once(conv.outputs[0]):
            return op
        spread = self._find_producer(conv, "SPACE_TO_BATCH_ND")
        if spread is None or not _is_plain(conv, self._read_steps(conv)):
            return op
        inputs = [
            _read_constant(spread, 1),
            _read_constant(spread, 2),
            _read_constant(op, 1),
            _read_constant(op, 2),
        ]
        block, pads, block_back, crops = inputs
        if block is None or pads is None or block_back is None or crops is None:
            return op
        pads = pads - crops
        if block.shape != (2,) or (block != block_back).any() or (pads < 0).any():
            return op
        if not _is_same_quantization(conv.outputs[0], op.outputs[0]):
            return op
        options = {
            "dilation_h_factor": int(block[0]),
            "dilation_w_factor": int(block[1]),
            "pads": tuple(int(n) for n in (*pads[:, 0], *pads[:, 1])),
        }
        return _replace_op(conv, spread.inputs[0], op.outputs[0], options)

    def _find_producer(self, op: Op, op_type: str) -> Op | None:
        producer = self.producers.get(id(op.inputs[0]))
        return producer if producer is not None and producer.op_type == op_type else None

    def _is_read_once(self, tensor: Tensor) -> bool:
        is_output = any(tensor is t for t in self.graph.outputs.values())
        return len(self.readers.get(id(tensor), ())) == 1 and not is_output

    def _read_steps(self, op: Op) -> tuple[int, ...]:
        names = ("stride_h", "stride_w", "dilation_h_factor", "dilation_w_factor")
        return tuple(op.options.get(name, 1) for name in names)


def _is_plain(conv: Op, steps: tuple[int, ...]) -> bool:
    return steps == (1, 1, 1, 1) and conv.options.get("padding") == "VALID"


def _read_constant(op: Op, position: int) -> Any:  # noqa: ANN401 - an array or None
    tensor = op.inputs[position] if len(op.inputs) > position else None
    return None if tensor is None or tensor.data is None else tensor.data.astype(np.int64)


def _is_same_quantization(a: Tensor | None, b: Tensor | None) -> bool:
    """Return whether the integers of two tensors represent the same real values."""
    left: Quantization | None = a.quantization if a is not None else None
    right: Quantization | None = b.quantization if b is not None else None
    if left is None or right is None:
        return left is right
    return bool(
        np.array_equal(left.scales, right.scales)
        and np.array_equal(left.zero_points, right.zero_points)
    )


def _replace_op(op: Op, source: Tensor | None, output: Tensor, options: dict[str, Any]) -> Op:
    return Op(
        op_type=op.op_type,
        inputs=[source, *op.inputs[1:]],
        outputs=[output],
        options=op.options | options,
        origin=op.origin,
    )
