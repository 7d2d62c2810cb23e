"""Conversion of a QDQ graph to integer kernels with exactly the scales of the graph."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from edgekit.tflite.kernel_constraints import KERNELS, LAYERS, Activations, Kernel
from edgekit.tflite.passes.quantize_layers import build_layer_inputs
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
from edgekit.tflite.rewriter import Wiring, build_like, int32, read_number, sweep

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
        wiring = Wiring(one)
        for op in reversed(list(wiring.ops(*KERNELS))):
            _move_quantize_earlier(wiring, op, activations)
        wiring.close()
        wiring = Wiring(one)
        for op in wiring.ops(*KERNELS, *LAYERS):
            _convert(wiring, op, activations)
        wiring.close()
    sweep(graph, _merge_requantization, "QUANTIZE")
    sweep(graph, _dequantize_bias, "DEQUANTIZE")


def quantize_constants(graph: LiteGraph) -> None:
    """Replace a QUANTIZE of a float constant by a constant of the integers, in place.

    Training with fake quantization leaves such weights.
    """
    sweep(graph, _quantize_constant, "QUANTIZE")


def _quantize_constant(wiring: Wiring, op: Op) -> None:
    source, made = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or made.quantization is None:
        return
    if source.dtype == "float32" and not wiring.is_output(made):
        integers = quantize_reals(source.data, made.quantization, made.dtype)
        wiring.swap(made, integers)


def _widen_activation(wiring: Wiring, op: Op) -> None:
    """Change a quantized activation to symmetric int16 over the same range."""
    made = op.outputs[0]
    given = made.quantization
    readers = wiring.readers(made)
    if made.dtype != "int8" or given is None or given.scales.size != 1:
        return
    if wiring.is_output(made) or any(r.kind != "DEQUANTIZE" for r in readers):
        return
    zero = int(given.zero_points.item())
    most = max(-128 - zero, 127 - zero, key=abs)
    made.quantization = build_symmetric_quantization(
        abs(most) * float(given.scales.item()), "int16"
    )
    made.dtype = "int16"


def _move_quantize_earlier(wiring: Wiring, op: Op, activations: Activations) -> None:
    """Move a QUANTIZE from behind a data movement to its front."""
    kernel = KERNELS[op.kind]
    if not kernel.commutes or not _has_kernel(kernel, activations):
        return
    if len(op.outputs) != 1 or kernel.real is None or len(kernel.real) != 1:
        return
    place = kernel.real[0]
    source = op.inputs[place]
    later = _find_quantizer(wiring, op.outputs[0], activations)
    if later is None or source is None or source.is_constant or source.dtype != "float32":
        return
    if wiring.only_reader(source) is not op or wiring.maker(source, "DEQUANTIZE") is not None:
        return
    integers = build_like(later.outputs[0], source.shape)
    wiring.insert(op, "QUANTIZE", [source], integers)
    wiring.set_inputs(op, [integers if n == place else t for n, t in enumerate(op.inputs)])
    wiring.absorb(op, later)


def _find_quantizer(wiring: Wiring, tensor: Tensor, activations: Activations) -> Op | None:
    """Find the only reader of a tensor if it is a QUANTIZE with one scale."""
    later = wiring.only_reader(tensor)
    if later is None or later.kind != "QUANTIZE" or later.outputs[0].dtype != activations:
        return None
    return later if has_one_scale(later.outputs[0]) else None


def _has_kernel(kernel: Kernel, activations: Activations) -> bool:
    return activations == "int8" or kernel.wide


def _convert(wiring: Wiring, op: Op, activations: Activations) -> None:
    if any(t.dtype != "float32" for t in op.outputs):
        return
    if op.kind in LAYERS:
        _convert_layer(wiring, op, activations)
        return
    kernel = KERNELS[op.kind]
    if not _has_kernel(kernel, activations):
        return
    if op.kind == "AVERAGE_POOL_2D":
        _replace_average_pool(wiring, op, activations)
        kernel = KERNELS[op.kind]
    if kernel.scales == "same":
        _convert_same(wiring, op, kernel, activations)
    else:
        _convert_free(wiring, op, kernel, activations)


def _convert_layer(wiring: Wiring, op: Op, activations: Activations) -> None:
    layer = LAYERS[op.kind]
    later = _find_quantizer(wiring, op.outputs[0], activations)
    image = _find_integers(wiring, op.inputs[layer.image], activations)
    if later is None or image is None:
        return
    stored = [_find_stored(wiring, t) if n > 0 else t for n, t in enumerate(op.inputs)]
    inputs = build_layer_inputs(op, layer, image, stored, later.outputs[0])
    if inputs is not None:
        wiring.set_inputs(op, inputs)
        wiring.absorb(op, later)


def _find_stored(wiring: Wiring, tensor: Tensor | None) -> Tensor | None:
    """Return the integers from which a tensor is dequantized, or the tensor itself."""
    maker = wiring.maker(tensor, "DEQUANTIZE")
    return tensor if maker is None else maker.inputs[0]


def _find_integers(
    wiring: Wiring, tensor: Tensor | None, activations: Activations
) -> Tensor | None:
    """Find integers with one scale that represent a tensor exactly; ``None`` if there are none."""
    value = read_number(tensor)
    if tensor is not None and value is not None:
        return quantize_number(tensor, value, activations)
    maker = wiring.maker(tensor, "DEQUANTIZE")
    source = None if maker is None else maker.inputs[0]
    if source is None or not has_one_scale(source):
        return None
    if source.dtype == activations:
        return source
    if source.data is not None and source.dtype == "int8" and activations == "int16":
        reals = dequantize_constant(source)
        given = build_symmetric_quantization(float(np.abs(reals).max(initial=0.0)), "int16")
        return quantize_reals(reals, given, "int16", name=source.name)
    return None


def _list_real_places(op: Op, kernel: Kernel) -> Sequence[int]:
    return range(len(op.inputs)) if kernel.real is None else kernel.real


def _find_real_inputs(
    wiring: Wiring, op: Op, kernel: Kernel, activations: Activations
) -> dict[int, Tensor] | None:
    """Find the integers of every real-valued input by position; ``None`` if one has none."""
    found: dict[int, Tensor] = {}
    for place in _list_real_places(op, kernel):
        integers = _find_integers(wiring, op.inputs[place], activations)
        if integers is None:
            return None
        found[place] = integers
    # Operators on constants alone are left to constant folding.
    return found if any(t is not None and not t.is_constant for t in op.inputs) else None


def _convert_free(wiring: Wiring, op: Op, kernel: Kernel, activations: Activations) -> None:
    """Convert an operator whose kernel accepts any scales, or prescribes its output scale."""
    later = _find_quantizer(wiring, op.outputs[0], activations)
    found = _find_real_inputs(wiring, op, kernel, activations)
    if later is None or found is None:
        return
    read = [t.quantization for t in found.values()]
    fixed = None if kernel.fixed is None else kernel.fixed[activations]
    sums = [multiply_scales(*read)] if kernel.multiplies else read
    wanted = later.outputs[0].quantization
    if fixed is None and not can_requantize(sums, wanted):
        return
    if fixed is not None and wanted is not None and _is_too_narrow(op, fixed, wanted):
        return
    wiring.set_inputs(op, [found.get(n, t) for n, t in enumerate(op.inputs)])
    if op.kind in ("ADD", "SUB") and activations == "int16":
        op.options["pot_scale_int16"] = False
    if fixed is None:
        wiring.absorb(op, later)
        return
    given = Quantization(
        scales=np.asarray([fixed[0]], np.float32), zero_points=np.asarray([fixed[1]], np.int64)
    )
    if is_same_quantization(wanted, given):
        wiring.absorb(op, later)
    else:
        op.outputs[0].dtype, op.outputs[0].quantization = activations, given


def _is_too_narrow(op: Op, fixed: tuple[float, int], wanted: Quantization) -> bool:
    """Return whether a kernel's prescribed scale is too coarse or its range too short.

    Only LOG_SOFTMAX has values without a bound.
    """
    scale, zero = fixed
    if wanted.scales.item() < _FINER * scale:
        return True
    lowest = (_LEAST_INT8 - zero) * scale
    wants = (_LEAST_INT8 - wanted.zero_points.item()) * wanted.scales.item()
    return op.kind == "LOG_SOFTMAX" and wants < lowest - scale


def _convert_same(wiring: Wiring, op: Op, kernel: Kernel, activations: Activations) -> None:
    """Convert an operator with one scale for inputs and outputs; requantize before or after it."""
    found = _find_real_inputs(wiring, op, kernel, activations)
    if found is None:
        return
    laters = [_find_quantizer(wiring, t, activations) for t in op.outputs]
    given = min(found.values(), key=lambda t: t.is_constant).quantization
    if kernel.requantize_first:
        if laters[0] is not None:
            given = laters[0].outputs[0].quantization
            if not can_requantize([t.quantization for t in found.values()], given):
                return
        elif not all(is_same_quantization(t.quantization, given) for t in found.values()):
            return
        found = {n: _requantize_input(wiring, op, t, given) for n, t in found.items()}
    elif not kernel.commutes and laters[0] is None:
        return
    wiring.set_inputs(op, [found.get(n, t) for n, t in enumerate(op.inputs)])
    for place, later in enumerate(laters):
        _yield_integers(wiring, op, place, later, given, activations)


def _requantize_input(wiring: Wiring, op: Op, tensor: Tensor, given: Quantization | None) -> Tensor:
    if given is None or is_same_quantization(tensor.quantization, given):
        return tensor
    if tensor.is_constant:
        return quantize_reals(dequantize_constant(tensor), given, tensor.dtype, name=tensor.name)
    made = Tensor(name=tensor.name, dtype=tensor.dtype, shape=tensor.shape, quantization=given)
    return wiring.insert(op, "QUANTIZE", [tensor], made)


def _yield_integers(
    wiring: Wiring,
    op: Op,
    place: int,
    later: Op | None,
    given: Quantization | None,
    activations: Activations,
) -> None:
    """Make an output integer: kept as it is, requantized, or dequantized again."""
    old = op.outputs[place]
    if later is not None and not can_requantize([given], later.outputs[0].quantization):
        later = None
    if later is not None and is_same_quantization(later.outputs[0].quantization, given):
        wiring.take_output(op, place, later)
        return
    if later is not None:
        old.dtype, old.quantization = activations, given
        return
    made = Tensor(name=old.name, dtype=activations, shape=old.shape, quantization=given)
    wiring.append_dequantize(op, place, made)


def _replace_division(wiring: Wiring, op: Op) -> None:
    """Replace a quantized value divided by a constant by MUL, which has an int8 kernel."""
    source, divisor = op.inputs[0], read_number(op.inputs[1])
    if wiring.maker(source, "DEQUANTIZE") is None or not divisor or op.inputs[1] is None:
        return
    with np.errstate(over="ignore"):
        inverse = np.full(op.inputs[1].shape, 1 / divisor, np.float32)
    if np.isfinite(inverse).all():
        wiring.change_op(op, "MUL", [source, constant("inverse", inverse)], op.options)


def _replace_average_pool(wiring: Wiring, op: Op, activations: Activations) -> None:
    """Replace an average over the whole image by MEAN where its two scales differ.

    The integer pooling kernel requires equal scales.
    """
    image, made = op.inputs[0], op.outputs[0]
    if image is None or len(image.shape) != 4 or made.shape[1:3] != (1, 1):
        return
    whole = (op.options.get("filter_height"), op.options.get("filter_width"))
    if whole != image.shape[1:3] or op.options.get("fused_activation_function", "NONE") != "NONE":
        return
    maker, later = wiring.maker(image, "DEQUANTIZE"), _find_quantizer(wiring, made, activations)
    if maker is None or maker.inputs[0] is None:
        return
    if later is None or not is_same_quantization(
        maker.inputs[0].quantization, later.outputs[0].quantization
    ):
        wiring.change_op(op, "MEAN", [image, int32([1, 2])], {"keep_dims": True})


def _merge_requantization(wiring: Wiring, op: Op) -> None:
    """Merge a DEQUANTIZE and the QUANTIZE behind it into one requantization, or into nothing."""
    maker = wiring.maker(op.inputs[0], "DEQUANTIZE")
    source = None if maker is None else maker.inputs[0]
    made = op.outputs[0]
    if source is None or source.is_constant or source.dtype != made.dtype:
        return
    if not has_one_scale(source) or not has_one_scale(made):
        return
    if not can_requantize([source.quantization], made.quantization):
        return
    if is_same_quantization(source.quantization, made.quantization) and not wiring.is_output(made):
        wiring.swap(made, source)
    else:
        wiring.set_inputs(op, [source])


def _dequantize_bias(wiring: Wiring, op: Op) -> None:
    """Dequantize stored int32 biases of layers that stay in floats, as no kernel does it."""
    source, made = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or source.dtype != "int32":
        return
    reals = constant(source.name, dequantize_constant(source).astype(np.float32))
    if not wiring.is_output(made):
        wiring.swap(made, reals)
