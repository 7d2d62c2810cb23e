"""Run in integers what a graph says in QUANTIZE and DEQUANTIZE, with the very scales."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from edgekit.bridge.graph import LiteGraph, Op, Quantization, Tensor, constant
from edgekit.bridge.integers import (
    as_integers,
    equal_scales,
    exact_number,
    one_scale,
    product,
    stored_reals,
    symmetric,
    within_reach,
)
from edgekit.bridge.kernels import KERNELS, LAYERS, Activations, Kernel
from edgekit.bridge.layers import layer_inputs
from edgekit.bridge.wiring import Wiring, int32, like, number, sweep

# Scales of an ONNX file may be that much below what a kernel has, from rounding: 1/256 and 1/255.
_FINER = 0.98
_LEAST_INT8 = -128


def quantise(graph: LiteGraph, *, activations: Activations = "int8") -> None:
    """Let each operator between DEQUANTIZE and QUANTIZE run on the integers, in place.

    An operator whose real inputs all come from DEQUANTIZE, and whose output goes to QUANTIZE,
    becomes an integer kernel; moves of values do so in any case. Where a kernel demands other
    scales than the graph has, a QUANTIZE stands beside it. The rest stays as it is, in floats.

    Args:
        graph: folded and fused.
        activations: ``int16`` makes of the ranges of 8-bit activations symmetric 16-bit ones.

    Source: TensorFlow Lite 8-bit quantization specification.
    """
    if activations == "int16":
        sweep(graph, _widen, "QUANTIZE")
    sweep(graph, _times_instead, "DIV")
    for one in (graph, *graph.inner):
        wiring = Wiring(one)
        for op in reversed(list(wiring.ops(*KERNELS))):
            _quantise_earlier(wiring, op, activations)
        wiring.close()
        wiring = Wiring(one)
        for op in wiring.ops(*KERNELS, *LAYERS):
            _convert(wiring, op, activations)
        wiring.close()
    sweep(graph, _requantise, "QUANTIZE")
    sweep(graph, _dequantise_now, "DEQUANTIZE")


def store_quantised(graph: LiteGraph) -> None:
    """Store floats that are quantised in the graph as the integers that come of it, in place.

    Training with fake quantisation leaves weights like that.
    """
    sweep(graph, _store_quantised, "QUANTIZE")


def _store_quantised(wiring: Wiring, op: Op) -> None:
    source, made = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or made.quantization is None:
        return
    if source.dtype == "float32" and not wiring.is_output(made):
        integers = as_integers(source.data, made.quantization, made.dtype)
        wiring.swap(made, integers)


def _widen(wiring: Wiring, op: Op) -> None:
    """Give a quantised activation 16 bits, symmetric about zero, over the same range."""
    made = op.outputs[0]
    given = made.quantization
    readers = wiring.readers(made)
    if made.dtype != "int8" or given is None or given.scales.size != 1:
        return
    if wiring.is_output(made) or any(r.kind != "DEQUANTIZE" for r in readers):
        return
    zero = int(given.zero_points.item())
    most = max(-128 - zero, 127 - zero, key=abs)
    made.quantization = symmetric(abs(most) * float(given.scales.item()), "int16")
    made.dtype = "int16"


def _quantise_earlier(wiring: Wiring, op: Op, activations: Activations) -> None:
    """Where floats are moved and then quantised, quantise and then move."""
    kernel = KERNELS[op.kind]
    if not kernel.commutes or not _has_kernel(kernel, activations):
        return
    if len(op.outputs) != 1 or kernel.real is None or len(kernel.real) != 1:
        return
    place = kernel.real[0]
    source = op.inputs[place]
    later = _quantizer(wiring, op.outputs[0], activations)
    if later is None or source is None or source.is_constant or source.dtype != "float32":
        return
    if wiring.only_reader(source) is not op or wiring.maker(source, "DEQUANTIZE") is not None:
        return
    integers = like(later.outputs[0], source.shape)
    wiring.insert(op, "QUANTIZE", [source], integers)
    wiring.read_instead(op, [integers if n == place else t for n, t in enumerate(op.inputs)])
    wiring.absorb(op, later)


def _quantizer(wiring: Wiring, tensor: Tensor, activations: Activations) -> Op | None:
    """The QUANTIZE that alone reads a tensor and yields integers of one scale."""
    later = wiring.only_reader(tensor)
    if later is None or later.kind != "QUANTIZE" or later.outputs[0].dtype != activations:
        return None
    return later if one_scale(later.outputs[0]) else None


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
        _mean_instead(wiring, op, activations)
        kernel = KERNELS[op.kind]
    if kernel.scales == "same":
        _convert_same(wiring, op, kernel, activations)
    else:
        _convert_free(wiring, op, kernel, activations)


def _convert_layer(wiring: Wiring, op: Op, activations: Activations) -> None:
    layer = LAYERS[op.kind]
    later = _quantizer(wiring, op.outputs[0], activations)
    image = _integers(wiring, op.inputs[layer.image], activations)
    if later is None or image is None:
        return
    stored = [_behind(wiring, t) if n > 0 else t for n, t in enumerate(op.inputs)]
    inputs = layer_inputs(op, layer, image, stored, later.outputs[0])
    if inputs is not None:
        wiring.read_instead(op, inputs)
        wiring.absorb(op, later)


def _behind(wiring: Wiring, tensor: Tensor | None) -> Tensor | None:
    """The stored integers that a tensor is dequantised from, or itself."""
    maker = wiring.maker(tensor, "DEQUANTIZE")
    return tensor if maker is None else maker.inputs[0]


def _integers(wiring: Wiring, tensor: Tensor | None, activations: Activations) -> Tensor | None:
    """Integers of one scale that a tensor stands for exactly, or ``None``."""
    value = number(tensor)
    if tensor is not None and value is not None:
        return exact_number(tensor, value, activations)
    maker = wiring.maker(tensor, "DEQUANTIZE")
    source = None if maker is None else maker.inputs[0]
    if source is None or not one_scale(source):
        return None
    if source.dtype == activations:
        return source
    if source.data is not None and source.dtype == "int8" and activations == "int16":
        reals = stored_reals(source)
        given = symmetric(float(np.abs(reals).max(initial=0.0)), "int16")
        return as_integers(reals, given, "int16", name=source.name)
    return None


def _real_places(op: Op, kernel: Kernel) -> Sequence[int]:
    return range(len(op.inputs)) if kernel.real is None else kernel.real


def _real_inputs(
    wiring: Wiring, op: Op, kernel: Kernel, activations: Activations
) -> dict[int, Tensor] | None:
    """The integers for each real input, by position; ``None`` where one is not to be had."""
    found: dict[int, Tensor] = {}
    for place in _real_places(op, kernel):
        integers = _integers(wiring, op.inputs[place], activations)
        if integers is None:
            return None
        found[place] = integers
    # Constants alone are for the folding.
    return found if any(t is not None and not t.is_constant for t in op.inputs) else None


def _convert_free(wiring: Wiring, op: Op, kernel: Kernel, activations: Activations) -> None:
    """A kernel that has any scales, or one that has a scale of its own for its output."""
    later = _quantizer(wiring, op.outputs[0], activations)
    found = _real_inputs(wiring, op, kernel, activations)
    if later is None or found is None:
        return
    read = [t.quantization for t in found.values()]
    fixed = None if kernel.fixed is None else kernel.fixed[activations]
    sums = [product(*read)] if kernel.multiplies else read
    wanted = later.outputs[0].quantization
    if fixed is None and not within_reach(sums, wanted):
        return
    if fixed is not None and wanted is not None and _loses(op, fixed, wanted):
        return
    wiring.read_instead(op, [found.get(n, t) for n, t in enumerate(op.inputs)])
    if op.kind in ("ADD", "SUB") and activations == "int16":
        op.options["pot_scale_int16"] = False
    if fixed is None:
        wiring.absorb(op, later)
        return
    given = Quantization(
        scales=np.asarray([fixed[0]], np.float32), zero_points=np.asarray([fixed[1]], np.int64)
    )
    if equal_scales(wanted, given):
        wiring.absorb(op, later)
    else:
        op.outputs[0].dtype, op.outputs[0].quantization = activations, given


def _loses(op: Op, fixed: tuple[float, int], wanted: Quantization) -> bool:
    """Whether a kernel's own scale is too coarse for what the graph's holds, or ends above it.

    Only LOG_SOFTMAX has values without a bound.
    """
    scale, zero = fixed
    if wanted.scales.item() < _FINER * scale:
        return True
    lowest = (_LEAST_INT8 - zero) * scale
    wants = (_LEAST_INT8 - wanted.zero_points.item()) * wanted.scales.item()
    return op.kind == "LOG_SOFTMAX" and wants < lowest - scale


def _convert_same(wiring: Wiring, op: Op, kernel: Kernel, activations: Activations) -> None:
    """A kernel whose inputs and outputs have one scale; requantised before it or behind it."""
    found = _real_inputs(wiring, op, kernel, activations)
    if found is None:
        return
    laters = [_quantizer(wiring, t, activations) for t in op.outputs]
    given = min(found.values(), key=lambda t: t.is_constant).quantization
    if kernel.requantise_first:
        if laters[0] is not None:
            given = laters[0].outputs[0].quantization
            if not within_reach([t.quantization for t in found.values()], given):
                return
        elif not all(equal_scales(t.quantization, given) for t in found.values()):
            return
        found = {n: _in_scale(wiring, op, t, given) for n, t in found.items()}
    elif not kernel.commutes and laters[0] is None:
        return
    wiring.read_instead(op, [found.get(n, t) for n, t in enumerate(op.inputs)])
    for place, later in enumerate(laters):
        _yield_integers(wiring, op, place, later, given, activations)


def _in_scale(wiring: Wiring, op: Op, tensor: Tensor, given: Quantization | None) -> Tensor:
    if given is None or equal_scales(tensor.quantization, given):
        return tensor
    if tensor.is_constant:
        return as_integers(stored_reals(tensor), given, tensor.dtype, name=tensor.name)
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
    """Let an output be integers: taken as they are, requantised, or dequantised again."""
    old = op.outputs[place]
    if later is not None and not within_reach([given], later.outputs[0].quantization):
        later = None
    if later is not None and equal_scales(later.outputs[0].quantization, given):
        wiring.take_output(op, place, later)
        return
    if later is not None:
        old.dtype, old.quantization = activations, given
        return
    made = Tensor(name=old.name, dtype=activations, shape=old.shape, quantization=given)
    wiring.dequantise_later(op, place, made)


def _times_instead(wiring: Wiring, op: Op) -> None:
    """A quantised value over a number as MUL, which has a kernel for int8."""
    source, divisor = op.inputs[0], number(op.inputs[1])
    if wiring.maker(source, "DEQUANTIZE") is None or not divisor or op.inputs[1] is None:
        return
    with np.errstate(over="ignore"):
        inverse = np.full(op.inputs[1].shape, 1 / divisor, np.float32)
    if np.isfinite(inverse).all():
        wiring.become(op, "MUL", [source, constant("inverse", inverse)], op.options)


def _mean_instead(wiring: Wiring, op: Op, activations: Activations) -> None:
    """An average over the whole image as MEAN where it has two scales, which pooling may not."""
    image, made = op.inputs[0], op.outputs[0]
    if image is None or len(image.shape) != 4 or made.shape[1:3] != (1, 1):
        return
    whole = (op.options.get("filter_height"), op.options.get("filter_width"))
    if whole != image.shape[1:3] or op.options.get("fused_activation_function", "NONE") != "NONE":
        return
    maker, later = wiring.maker(image, "DEQUANTIZE"), _quantizer(wiring, made, activations)
    if maker is None or maker.inputs[0] is None:
        return
    if later is None or not equal_scales(
        maker.inputs[0].quantization, later.outputs[0].quantization
    ):
        wiring.become(op, "MEAN", [image, int32([1, 2])], {"keep_dims": True})


def _requantise(wiring: Wiring, op: Op) -> None:
    """DEQUANTIZE and QUANTIZE in a row as one step, or none."""
    maker = wiring.maker(op.inputs[0], "DEQUANTIZE")
    source = None if maker is None else maker.inputs[0]
    made = op.outputs[0]
    if source is None or source.is_constant or source.dtype != made.dtype:
        return
    if not one_scale(source) or not one_scale(made):
        return
    if not within_reach([source.quantization], made.quantization):
        return
    if equal_scales(source.quantization, made.quantization) and not wiring.is_output(made):
        wiring.swap(made, source)
    else:
        wiring.read_instead(op, [source])


def _dequantise_now(wiring: Wiring, op: Op) -> None:
    """Stored 32-bit integers, the biases of layers that stay in floats, for want of a kernel."""
    source, made = op.inputs[0], op.outputs[0]
    if source is None or source.data is None or source.dtype != "int32":
        return
    reals = constant(source.name, stored_reals(source).astype(np.float32))
    if not wiring.is_output(made):
        wiring.swap(made, reals)
