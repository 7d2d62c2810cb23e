"""Conversion of a QDQ graph to integer kernels with exactly the scales of the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from edgekit.tflite.kernel_constraints import KERNELS, LAYERS, Activations, Kernel
from edgekit.tflite.quantization_math import (
    build_symmetric_quantization,
    can_requantize,
    dequantize_constant,
    has_one_scale,
    is_same_quantization,
    multiply_scales,
    quantize_number,
    quantize_reals,
)
from edgekit.tflite.rewriter import GraphRewriter, build_like, int32, read_number, sweep
from edgekit.tflite.rewrites.quantize_layers import build_layer_inputs

# A graph's scale may be this much finer than the kernel's, as tools use 1/255 as well as 1/256.
_FINER = 0.98
_LEAST_INT8 = -128


def quantize_graph(graph: LiteGraph, *, activations: Activations = "int8") -> None:
    """Replace float operators between DEQUANTIZE and QUANTIZE by integer kernels, in place.

    An operator becomes an integer kernel if its real-valued inputs come from DEQUANTIZE and its
    output goes to QUANTIZE; data movement does so in any case. Where a kernel requires other scales
    than the graph has, a QUANTIZE is added. All other operators stay in floats.

    Args:
        graph: Folded and fused graph.
        activations: ``int16`` replaces the ranges of 8-bit activations by symmetric 16-bit ones.

    Source: TensorFlow Lite 8-bit quantization specification.
    """
    if activations == "int16":
        sweep(graph, _widen_activation, "QUANTIZE")
    sweep(graph, _replace_division, "DIV")
    for one in (graph, *graph.inner):
        rewriter = GraphRewriter(one)
        for op in reversed(list(rewriter.ops(*KERNELS))):
            _move_quantize_earlier(rewriter, op, activations)
        rewriter.close()
        rewriter = GraphRewriter(one)
        for op in rewriter.ops(*KERNELS, *LAYERS):
            _convert(rewriter, op, activations)
        rewriter.close()
    sweep(graph, _merge_requantization, "QUANTIZE")
    sweep(graph, _dequantize_bias, "DEQUANTIZE")


def quantize_constants(graph: LiteGraph) -> None:
    """Replace a QUANTIZE of a float constant by a constant of the integers, in place.

    Training with fake quantization leaves such weights.
    """
    sweep(graph, _quantize_constant, "QUANTIZE")


def _quantize_constant(rewriter: GraphRewriter, op: Op) -> None:
    source, output = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or output.quantization is None:
        return
    if source.dtype == "float32" and not rewriter.is_output(output):
        integers = quantize_reals(source.data, output.quantization, output.dtype)
        rewriter.swap(output, integers)


def _widen_activation(rewriter: GraphRewriter, op: Op) -> None:
    """Change a quantized activation to symmetric int16 over the same range."""
    output = op.outputs[0]
    quantization = output.quantization
    readers = rewriter.readers(output)
    if output.dtype != "int8" or quantization is None or quantization.scales.size != 1:
        return
    if rewriter.is_output(output) or any(r.op_type != "DEQUANTIZE" for r in readers):
        return
    zero = int(quantization.zero_points.item())
    most = max(-128 - zero, 127 - zero, key=abs)
    output.quantization = build_symmetric_quantization(
        abs(most) * float(quantization.scales.item()), "int16"
    )
    output.dtype = "int16"


def _move_quantize_earlier(rewriter: GraphRewriter, op: Op, activations: Activations) -> None:
    """Move a QUANTIZE from behind a data movement to its front."""
    kernel = KERNELS[op.op_type]
    if not kernel.commutes or not _has_kernel(kernel, activations):
        return
    if len(op.outputs) != 1 or kernel.real_inputs is None or len(kernel.real_inputs) != 1:
        return
    position = kernel.real_inputs[0]
    source = op.inputs[position]
    quantize_op = _find_quantizer(rewriter, op.outputs[0], activations)
    if quantize_op is None or source is None or source.is_constant or source.dtype != "float32":
        return
    if (
        rewriter.only_reader(source) is not op
        or rewriter.producer(source, "DEQUANTIZE") is not None
    ):
        return
    integers = build_like(quantize_op.outputs[0], source.shape)
    rewriter.insert(op, "QUANTIZE", [source], integers)
    rewriter.set_inputs(op, [integers if n == position else t for n, t in enumerate(op.inputs)])
    rewriter.absorb(op, quantize_op)


def _find_quantizer(rewriter: GraphRewriter, tensor: Tensor, activations: Activations) -> Op | None:
    """Find the only reader of a tensor if it is a QUANTIZE with one scale."""
    quantize_op = rewriter.only_reader(tensor)
    if (
        quantize_op is None
        or quantize_op.op_type != "QUANTIZE"
        or quantize_op.outputs[0].dtype != activations
    ):
        return None
    return quantize_op if has_one_scale(quantize_op.outputs[0]) else None


def _has_kernel(kernel: Kernel, activations: Activations) -> bool:
    return activations == "int8" or kernel.has_int16


def _convert(rewriter: GraphRewriter, op: Op, activations: Activations) -> None:
    if any(t.dtype != "float32" for t in op.outputs):
        return
    if op.op_type in LAYERS:
        _convert_layer(rewriter, op, activations)
        return
    kernel = KERNELS[op.op_type]
    if not _has_kernel(kernel, activations):
        return
    if op.op_type == "AVERAGE_POOL_2D":
        _replace_average_pool(rewriter, op, activations)
        kernel = KERNELS[op.op_type]
    if kernel.scales == "same":
        _convert_same(rewriter, op, kernel, activations)
    else:
        _convert_free(rewriter, op, kernel, activations)


def _convert_layer(rewriter: GraphRewriter, op: Op, activations: Activations) -> None:
    layer = LAYERS[op.op_type]
    quantize_op = _find_quantizer(rewriter, op.outputs[0], activations)
    image = _find_integers(rewriter, op.inputs[layer.image], activations)
    if quantize_op is None or image is None:
        return
    stored = [_find_stored(rewriter, t) if n > 0 else t for n, t in enumerate(op.inputs)]
    inputs = build_layer_inputs(op, layer, image, stored, quantize_op.outputs[0])
    if inputs is not None:
        rewriter.set_inputs(op, inputs)
        rewriter.absorb(op, quantize_op)


def _find_stored(rewriter: GraphRewriter, tensor: Tensor | None) -> Tensor | None:
    """Return the integers from which a tensor is dequantized, or the tensor itself."""
    producer = rewriter.producer(tensor, "DEQUANTIZE")
    return tensor if producer is None else producer.inputs[0]


def _find_integers(
    rewriter: GraphRewriter, tensor: Tensor | None, activations: Activations
) -> Tensor | None:
    """Find integers with one scale that represent a tensor exactly; ``None`` if there are none."""
    value = read_number(tensor)
    if tensor is not None and value is not None:
        return quantize_number(tensor, value, activations)
    producer = rewriter.producer(tensor, "DEQUANTIZE")
    source = None if producer is None else producer.inputs[0]
    if source is None or not has_one_scale(source):
        return None
    if source.dtype == activations:
        return source
    if source.data is not None and source.dtype == "int8" and activations == "int16":
        reals = dequantize_constant(source)
        quantization = build_symmetric_quantization(float(np.abs(reals).max(initial=0.0)), "int16")
        return quantize_reals(reals, quantization, "int16", name=source.name)
    return None


def _list_real_positions(op: Op, kernel: Kernel) -> Sequence[int]:
    return range(len(op.inputs)) if kernel.real_inputs is None else kernel.real_inputs


def _find_real_inputs(
    rewriter: GraphRewriter, op: Op, kernel: Kernel, activations: Activations
) -> dict[int, Tensor] | None:
    """Find the integers of every real-valued input by position; ``None`` if one has none."""
    integers_by_position: dict[int, Tensor] = {}
    for position in _list_real_positions(op, kernel):
        integers = _find_integers(rewriter, op.inputs[position], activations)
        if integers is None:
            return None
        integers_by_position[position] = integers
    # Operators on constants only are left to constant folding.
    return (
        integers_by_position
        if any(t is not None and not t.is_constant for t in op.inputs)
        else None
    )


def _convert_free(
    rewriter: GraphRewriter, op: Op, kernel: Kernel, activations: Activations
) -> None:
    """Convert an operator whose kernel accepts any scales, or prescribes its output scale."""
    quantize_op = _find_quantizer(rewriter, op.outputs[0], activations)
    real_inputs = _find_real_inputs(rewriter, op, kernel, activations)
    if quantize_op is None or real_inputs is None:
        return
    input_quantizations = [t.quantization for t in real_inputs.values()]
    fixed = None if kernel.fixed is None else kernel.fixed[activations]
    sums = [multiply_scales(*input_quantizations)] if kernel.multiplies else input_quantizations
    output_quantization = quantize_op.outputs[0].quantization
    if fixed is None and not can_requantize(sums, output_quantization):
        return
    if (
        fixed is not None
        and output_quantization is not None
        and _is_too_narrow(op, fixed, output_quantization)
    ):
        return
    rewriter.set_inputs(op, [real_inputs.get(n, t) for n, t in enumerate(op.inputs)])
    if op.op_type in ("ADD", "SUB") and activations == "int16":
        op.options["pot_scale_int16"] = False
    if fixed is None:
        rewriter.absorb(op, quantize_op)
        return
    fixed_quantization = Quantization(
        scales=np.asarray([fixed[0]], np.float32), zero_points=np.asarray([fixed[1]], np.int64)
    )
    if is_same_quantization(output_quantization, fixed_quantization):
        rewriter.absorb(op, quantize_op)
    else:
        op.outputs[0].dtype, op.outputs[0].quantization = activations, fixed_quantization


def _is_too_narrow(op: Op, fixed: tuple[float, int], quantization: Quantization) -> bool:
    """Return whether a kernel's prescribed scale is too coarse or its range too short.

    Only LOG_SOFTMAX has values without a bound.
    """
    scale, zero = fixed
    if quantization.scales.item() < _FINER * scale:
        return True
    lowest = (_LEAST_INT8 - zero) * scale
    wants = (_LEAST_INT8 - quantization.zero_points.item()) * quantization.scales.item()
    return op.op_type == "LOG_SOFTMAX" and wants < lowest - scale


def _convert_same(
    rewriter: GraphRewriter, op: Op, kernel: Kernel, activations: Activations
) -> None:
    """Convert an operator with one scale for inputs and outputs; requantize before or after it."""
    real_inputs = _find_real_inputs(rewriter, op, kernel, activations)
    if real_inputs is None:
        return
    quantize_ops = [_find_quantizer(rewriter, t, activations) for t in op.outputs]
    quantization = min(real_inputs.values(), key=lambda t: t.is_constant).quantization
    if kernel.requantize_first:
        if quantize_ops[0] is not None:
            quantization = quantize_ops[0].outputs[0].quantization
            if not can_requantize([t.quantization for t in real_inputs.values()], quantization):
                return
        elif not all(
            is_same_quantization(t.quantization, quantization) for t in real_inputs.values()
        ):
            return
        real_inputs = {
            n: _requantize_input(rewriter, op, t, quantization) for n, t in real_inputs.items()
        }
    elif not kernel.commutes and quantize_ops[0] is None:
        return
    rewriter.set_inputs(op, [real_inputs.get(n, t) for n, t in enumerate(op.inputs)])
    for position, quantize_op in enumerate(quantize_ops):
        _set_integer_output(rewriter, op, position, quantize_op, quantization, activations)


def _requantize_input(
    rewriter: GraphRewriter, op: Op, tensor: Tensor, quantization: Quantization | None
) -> Tensor:
    if quantization is None or is_same_quantization(tensor.quantization, quantization):
        return tensor
    if tensor.is_constant:
        return quantize_reals(
            dequantize_constant(tensor), quantization, tensor.dtype, name=tensor.name
        )
    requantized = Tensor(
        name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, quantization=quantization
    )
    return rewriter.insert(op, "QUANTIZE", [tensor], requantized)


def _set_integer_output(
    rewriter: GraphRewriter,
    op: Op,
    position: int,
    quantize_op: Op | None,
    quantization: Quantization | None,
    activations: Activations,
) -> None:
    """Make an output integer: kept as it is, requantized, or dequantized again."""
    output = op.outputs[position]
    if quantize_op is not None and not can_requantize(
        [quantization], quantize_op.outputs[0].quantization
    ):
        quantize_op = None
    if quantize_op is not None and is_same_quantization(
        quantize_op.outputs[0].quantization, quantization
    ):
        rewriter.take_output(op, position, quantize_op)
        return
    if quantize_op is not None:
        output.dtype, output.quantization = activations, quantization
        return
    integers = Tensor(
        name=output.name, dtype=activations, shape=output.shape, quantization=quantization
    )
    rewriter.append_dequantize(op, position, integers)


def _replace_division(rewriter: GraphRewriter, op: Op) -> None:
    """Replace a quantized value divided by a constant by MUL, which has an int8 kernel."""
    source, divisor = op.inputs[0], read_number(op.inputs[1])
    if rewriter.producer(source, "DEQUANTIZE") is None or not divisor or op.inputs[1] is None:
        return
    with np.errstate(over="ignore"):
        inverse = np.full(op.inputs[1].shape, 1 / divisor, np.float32)
    if np.isfinite(inverse).all():
        rewriter.change_op(op, "MUL", [source, constant("inverse", inverse)], op.options)


def _replace_average_pool(rewriter: GraphRewriter, op: Op, activations: Activations) -> None:
    """Replace an average over the whole image by MEAN where its two scales differ.

    The integer pooling kernel requires equal scales.
    """
    image, output = op.inputs[0], op.outputs[0]
    if image is None or len(image.shape) != 4 or output.shape[1:3] != (1, 1):
        return
    filter_size = (op.options.get("filter_height"), op.options.get("filter_width"))
    if (
        filter_size != image.shape[1:3]
        or op.options.get("fused_activation_function", "NONE") != "NONE"
    ):
        return
    producer, quantize_op = (
        rewriter.producer(image, "DEQUANTIZE"),
        _find_quantizer(rewriter, output, activations),
    )
    if producer is None or producer.inputs[0] is None:
        return
    if quantize_op is None or not is_same_quantization(
        producer.inputs[0].quantization, quantize_op.outputs[0].quantization
    ):
        rewriter.change_op(op, "MEAN", [image, int32([1, 2])], {"keep_dims": True})


def _merge_requantization(rewriter: GraphRewriter, op: Op) -> None:
    """Merge a DEQUANTIZE and the QUANTIZE behind it into one requantization, or into nothing."""
    producer = rewriter.producer(op.inputs[0], "DEQUANTIZE")
    source = None if producer is None else producer.inputs[0]
    output = op.outputs[0]
    if source is None or source.is_constant or source.dtype != output.dtype:
        return
    if not has_one_scale(source) or not has_one_scale(output):
        return
    if not can_requantize([source.quantization], output.quantization):
        return
    if is_same_quantization(source.quantization, output.quantization) and not rewriter.is_output(
        output
    ):
        rewriter.swap(output, source)
    else:
        rewriter.set_inputs(op, [source])


def _dequantize_bias(rewriter: GraphRewriter, op: Op) -> None:
    """Dequantize stored int32 biases of layers that stay in floats, as no kernel does it."""
    source, output = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or source.dtype != "int32":
        return
    reals = constant(source.name, dequantize_constant(source).astype(np.float32))
    if not rewriter.is_output(output):
        rewriter.swap(output, reals)
