"""Weight compression under float operators: float16 storage, and int8 with dynamic kernels."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from edgekit.errors import PassRefused
from edgekit.onnx_graph.rewrites.prepare import QUANTIZED_ALREADY
from edgekit.pass_settings import Target
from edgekit.tflite.ir import Array, LiteGraph, Op, Quantization, Tensor, constant
from edgekit.tflite.kernel_constraints import LAYERS
from edgekit.tflite.quantization_math import broadcast_along_axis
from edgekit.tflite.rewriter import GraphRewriter, build_like, sweep

# Fewer entries save nothing: the extra tensor and DEQUANTIZE take more bytes.
_LEAST_FLOAT16 = 64
# TFLite's own limit below which weights stay floats.
_LEAST_INT8 = 1024
# Smaller products are no slower in floats than in integers.
_LEAST_PRODUCT = 1 << 16
# Layers with hybrid kernels: int8 weights, and float activations quantized at run time.
_DYNAMIC: dict[Target, tuple[str, ...]] = {
    "litert": ("FULLY_CONNECTED", "CONV_2D"),
    "tflite-runtime": ("FULLY_CONNECTED",),
}


def store_float16(graph: LiteGraph) -> None:
    """Store the float constants of a graph as float16, dequantized once when the model is loaded.

    Constants with values beyond the range of float16 stay as they are.
    """
    for one in (graph, *graph.inner):
        rewriter = GraphRewriter(one)
        converted: dict[int, Tensor] = {}
        for op in rewriter.ops():
            rewriter.set_inputs(op, [_store_half(rewriter, op, t, converted) for t in op.inputs])
        rewriter.close()


def _store_half(
    rewriter: GraphRewriter, op: Op, tensor: Tensor | None, converted: dict[int, Tensor]
) -> Tensor | None:
    if tensor is None or tensor.data is None or tensor.dtype != "float32":
        return tensor
    if id(tensor) in converted:
        return converted[id(tensor)]
    if tensor.data.size < _LEAST_FLOAT16:
        return tensor
    with np.errstate(over="ignore"):
        narrow = tensor.data.astype(np.float16)
    if not np.array_equal(np.isfinite(narrow), np.isfinite(tensor.data)):
        return tensor
    stored = constant(tensor.name, narrow)
    output = Tensor(name=tensor.name, dtype="float32", shape=tensor.shape)
    converted[id(tensor)] = rewriter.insert(op, "DEQUANTIZE", [stored], output)
    return output


def store_int8(graph: LiteGraph, *, per_channel: bool = True) -> None:
    """Store the weights of float layers, and tables that GATHER reads, in 8 bits.

    FULLY_CONNECTED and CONV_2D read the integers and quantize their other input at run time;
    weights of the other layers are dequantized once when the model is loaded.

    Args:
        graph: Folded and fused graph; operators on integers stay as they are.
        per_channel: Use a scale for each output channel of FULLY_CONNECTED too.

    Raises:
        PassRefused: Layers run on integers already; or no weight is large enough, and none is
            stored in 8 bits already.

    Source: TensorFlow Lite's dynamic range quantization: symmetric weights from -127 to 127.
    """
    if any(_runs_on_integers(op) for one in (graph, *graph.inner) for op in one.ops):
        raise PassRefused(f"{QUANTIZED_ALREADY}, including its activations", quantized=True)
    for one in (graph, *graph.inner):
        rewriter = GraphRewriter(one)
        for op in rewriter.ops(*LAYERS):
            _store_weight(rewriter, op, per_channel=per_channel)
        for op in rewriter.ops("GATHER"):
            _store_table(rewriter, op)
        rewriter.close()
    if not any(_holds_int8(op) for one in (graph, *graph.inner) for op in one.ops):
        raise PassRefused(
            f"dynamic: no layer or table has {_LEAST_INT8} weights or more, so 8 bits would not "
            "save space"
        )


def _runs_on_integers(op: Op) -> bool:
    return op.op_type in LAYERS and op.outputs[0].quantization is not None


def _holds_int8(op: Op) -> bool:
    return any(t is not None and t.data is not None and t.dtype == "int8" for t in op.inputs)


def _store_weight(rewriter: GraphRewriter, op: Op, *, per_channel: bool) -> None:
    position, axis = LAYERS[op.op_type].weight, LAYERS[op.op_type].axis
    weight = op.inputs[position]
    if weight is None or not _is_large(weight):
        return
    has_one_scale = op.op_type == "FULLY_CONNECTED" and not per_channel
    stored = quantize_weight(weight, None if has_one_scale else axis)
    dequantized = rewriter.insert(op, "DEQUANTIZE", [stored], build_like(weight))
    rewriter.set_inputs(op, [dequantized if n == position else t for n, t in enumerate(op.inputs)])


def _is_large(weight: Tensor) -> bool:
    if weight.data is None or weight.dtype != "float32" or weight.data.size < _LEAST_INT8:
        return False
    return bool(np.isfinite(weight.data).all())


def _store_table(rewriter: GraphRewriter, op: Op) -> None:
    """Store a gathered table as integers: gather the rows and their scales, then multiply."""
    table, rows = op.inputs[0], op.inputs[1]
    if table is None or rows is None or not _is_large(table) or len(table.shape) != 2:
        return
    if op.options.get("axis", 0) != 0 or op.options.get("batch_dims", 0) != 0:
        return
    stored = quantize_weight(table, 0)
    if stored.data is None or stored.quantization is None:
        return
    output = op.outputs[0]
    integers = Tensor(name=table.name, dtype="int8", shape=output.shape)
    reals = Tensor(name=table.name, dtype="float32", shape=output.shape)
    factors = Tensor(name=table.name, dtype="float32", shape=(*output.shape[:-1], 1))
    options = dict(op.options)
    plain = constant(table.name, stored.data)
    scales = constant(table.name, stored.quantization.scales.reshape(-1, 1))
    rewriter.insert(op, "GATHER", [plain, rows], integers, options)
    casting = {"in_data_type": "int8", "out_data_type": "float32"}
    rewriter.insert(op, "CAST", [integers], reals, casting)
    rewriter.insert(op, "GATHER", [scales, rows], factors, dict(options))
    rewriter.change_op(op, "MUL", [reals, factors])


def quantize_weight(weight: Tensor, axis: int | None) -> Tensor:
    """Quantize a constant to symmetric int8, -127..127, with a scale for each index of an axis.

    Args:
        weight: A constant of finite floats.
        axis: Axis of the scales; ``None`` for one scale in all.
    """
    if weight.data is None:
        raise ValueError(f"{weight.name}: not a constant")
    array: Array = weight.data
    rest: Sequence[int] = [n for n in range(array.ndim) if n != axis]
    most = np.abs(array).max(axis=tuple(rest)).reshape(-1).astype(np.float64)
    scales = np.maximum(most / 127, np.finfo(np.float32).tiny).astype(np.float32)
    quantization = Quantization(
        scales=scales, zero_points=np.zeros(scales.size, np.int64), axis=axis or 0
    )
    integers = np.rint(array / broadcast_along_axis(scales, axis or 0, array.ndim))
    return constant(
        weight.name, np.clip(integers, -127, 127).astype(np.int8), quantization=quantization
    )


def use_dynamic_kernels(graph: LiteGraph, *, target: Target = "litert") -> None:
    """Let layers read stored int8 weights without DEQUANTIZE where their hybrid kernels can.

    Args:
        graph: Graph with stored weights under DEQUANTIZE.
        target: The runtime; release 2.14 computes some hybrid convolutions wrongly.
    """
    sweep(graph, _read_integers, *_DYNAMIC[target])


def use_dynamic_products(graph: LiteGraph, *, target: Target = "litert") -> None:
    """Run large FULLY_CONNECTED layers without a quantized output in hybrid kernels.

    These kernels quantize the activations again at run time. There is no kernel from integers to
    floats, and in floats such a layer takes four times as long. Small ones stay in floats, exact.

    Args:
        graph: Quantized graph.
        target: The runtime; release 2.14 reads only one scale of a weight.
    """
    if target == "litert":
        sweep(graph, _read_large_integers, "FULLY_CONNECTED")


def _read_large_integers(rewriter: GraphRewriter, op: Op) -> None:
    image, weight = op.inputs[0], op.inputs[1]
    producer = rewriter.producer(image, "DEQUANTIZE")
    if producer is None or producer.inputs[0] is None or producer.inputs[0].is_constant:
        return
    if weight is not None and math.prod(weight.shape) >= _LEAST_PRODUCT:
        _read_integers(rewriter, op)


def _read_integers(rewriter: GraphRewriter, op: Op) -> None:
    layer = LAYERS[op.op_type]
    producer = rewriter.producer(op.inputs[layer.weight], "DEQUANTIZE")
    stored = None if producer is None else producer.inputs[0]
    image = op.inputs[layer.image]
    if stored is None or stored.data is None or stored.dtype != "int8" or image is None:
        return
    quantization = stored.quantization
    if quantization is None or quantization.zero_points.any() or image.dtype != "float32":
        return
    if quantization.scales.size == 1 or quantization.axis == layer.axis:
        inputs = [stored if n == layer.weight else t for n, t in enumerate(op.inputs)]
        rewriter.set_inputs(op, inputs)
