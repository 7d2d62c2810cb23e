"""Weight-only quantization to few bits without retraining, with the bits allocated by layer."""

from __future__ import annotations

import math
import zlib
from collections.abc import Container, Sequence
from pathlib import Path

import numpy as np
from onnx import ModelProto, TensorProto

from edgekit.bundle.layer_report import LayerCost, write_layers
from edgekit.bundle.packing.slices import estimate_packed_bits
from edgekit.compression.budget_allocation import (
    allocate,
    choose_at_most,
    choose_nearest,
    compute_least_cost,
)
from edgekit.compression.layers.shared_weights import collect_shared_layers
from edgekit.compression.layers.skip_reasons import (
    LAYER_OPS,
    WEIGHT_OPS,
    explain_no_weights,
    find_unchanged_weights,
    join_reasons,
)
from edgekit.compression.layers.stored_layers import StoredLayer, add_samples, collect_stored_layers
from edgekit.compression.layers.weight_readers import LEAST_ENTRIES, find_weight_readers
from edgekit.compression.output_divergence import Reference
from edgekit.compression.pass_input import open_source
from edgekit.compression.pass_specs import Work
from edgekit.compression.quantization.embeddings import find_shared_tables, store_shared_tables
from edgekit.compression.quantization.few_bits.bit_options import (
    FLOAT_BITS,
    HALF_BITS,
    LayerGrids,
    add_float_choices,
    build_layer_grids,
    measure_divergences,
)
from edgekit.compression.quantization.few_bits.containers import (
    QuantizedLayer,
    write_int8,
    write_native,
)
from edgekit.compression.quantization.few_bits.grids import compute_entropy
from edgekit.compression.quantization.weight_bits import choose_bits
from edgekit.compression.quantization.weight_storage import store_in_16_bits
from edgekit.compression.reconstruction.observed_moments import build_not_finite_error
from edgekit.compression.sensitivity import MOST_HELD_OUT
from edgekit.data.subsets import split_held_out
from edgekit.errors import PassRefused
from edgekit.model import Model
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.io import iter_graphs, save
from edgekit.onnx_graph.operators import RECURRENT_OPS
from edgekit.onnx_graph.rewrites.dequantization import dequantize_at_load
from edgekit.onnx_graph.rewrites.minify import compact
from edgekit.onnx_graph.rewrites.prepare import prepare
from edgekit.onnx_graph.rewrites.tensor_products import describe_contraction
from edgekit.onnx_graph.runs.activations import get_batch_size
from edgekit.pass_settings import QuantizeWeights
from edgekit_agent.samples import Samples

# The first opset and file version with INT4.
_OPSET_INT4, _IR_INT4 = 21, 10
# With fewer samples, held-out ones fit the weights as well once the bits of each layer are known.
_FEW = 64
# Share of the download size that int8 activations and scales will add later.
_LATER = 0.04
_SCALE_BYTES, _BLOCK_SCALE_BYTES = 1.25, 2.5
_MOST_BITS = 8
# Number of tries to meet the byte budget, and the factor by which it may be exceeded.
_TRIES, _NEARLY = 4, 1.01


def quantize_weights(model: Model, settings: QuantizeWeights, work: Work) -> Path:
    """Quantize the weights of Conv, Gemm, MatMul and embeddings to few bits.

    GPTQ chooses the integers of each layer, and the bias takes their mean output error. The step
    of a layer's grid follows from the damage to the outputs (``allocation.allocate``).
    Activations stay float: the static pass quantizes them.

    Source: Frantar et al. 2022 (GPTQ); Nagel et al. 2019 (bias correction).

    Raises:
        PassRefused: nothing to quantize, quantized already, values that are not finite, or fewer
            bits or bytes than the weights can take.
    """
    if work.calibration is None:
        raise PassRefused("quantize-weights needs calibration data")
    native = settings.container == "native"
    source = open_source(model, work, folded=True)
    proto = source.proto
    if native and _holds_int4(proto):
        proto = prepare(proto, _OPSET_INT4)
        proto.ir_version = max(proto.ir_version, _IR_INT4)
    index = GraphIndex(proto)
    batch = get_batch_size(work.calibration, model.signature)
    seen, unseen = split_held_out(
        work.fitting, settings.max_samples, most=MOST_HELD_OUT, batch=batch
    )
    layers = _collect_layers(index, seen, work)
    if not layers:
        reason = explain_no_weights(
            proto, ops=LAYER_OPS | RECURRENT_OPS, least_special=LEAST_ENTRIES, anywhere=True
        )
        raise PassRefused(f"nothing to quantize: {reason}")
    _check_names(settings, layers)
    rows = [build_layer_grids(layer, settings) for layer in layers]
    reference = Reference(proto, unseen)
    if reference.has_outputs:
        rows = measure_divergences(index, rows, reference, work.progress)
        if unseen is not seen and _count_samples(seen) < _FEW:
            add_samples(index, layers, unseen, work.progress, batched=LEAST_ENTRIES)
    rows = [add_float_choices(row) for row in rows]
    picked, made = _fit_to_size(rows, _compute_bit_budget(proto, rows, settings), settings, work)
    half = _list_half_weights(rows, picked)
    _note_float_weights(proto, rows, [q.layer.name for q in made], half, settings, work)
    shared = find_shared_tables(index)
    (write_native if native else write_int8)(index, made)
    if tables := store_shared_tables(GraphIndex(proto), shared):
        work.note(f"stored in 8 bits: {', '.join(tables)} (embeddings that are also output layers)")
    store_in_16_bits(proto, half)
    dequantize_at_load(proto)
    source.restore(proto)
    compact(proto, named=WEIGHT_OPS)
    target = work.scratch / "weights.onnx"
    save(proto, target)
    if reference.has_outputs:
        write_layers(work.scratch, _list_costs(rows, picked, made))
    return target


def _count_samples(parts: Sequence[Samples]) -> int:
    return sum(part.columns[0].shape[0] for part in parts)


def _list_half_weights(rows: Sequence[LayerGrids], picked: Sequence[int]) -> list[str]:
    """List the names of the weights that are stored in 16 bits."""
    return [
        row.layer.name
        for row, i in zip(rows, picked, strict=True)
        if row.options.choices[i].cost == HALF_BITS
    ]


def _note_float_weights(
    proto: ModelProto,
    rows: Sequence[LayerGrids],
    made: list[str],
    half: list[str],
    settings: QuantizeWeights,
    work: Work,
) -> None:
    """Note to the user which large weights do not get few bits, and why."""
    if half:
        work.note(f"stored in 16 bits: {', '.join(half)} (the outputs are too sensitive to them)")
    known = [row.layer.name for row in rows]
    wanted = {name for name, bits in settings.widths if bits == FLOAT_BITS}
    kept = [name for name in known if name not in {*made, *half}]
    if asked := [name for name in kept if name in wanted]:
        work.note(f"weights stay float: {', '.join(asked)} (requested by the setting widths)")
    if needed := [name for name in kept if name not in wanted]:
        work.note(f"weights stay float: {', '.join(needed)} (the outputs are too sensitive)")
    left = find_unchanged_weights(proto, ops=LAYER_OPS | RECURRENT_OPS, taken=known, anywhere=True)
    if large := [each for each in left if each.entries >= LEAST_ENTRIES]:
        work.note(f"weights stay float: {join_reasons(large)}")


def _holds_int4(proto: ModelProto) -> bool:
    """Return whether some layers have no few-bit kernel, and are widened from INT4 at load."""
    index = GraphIndex(proto)
    nodes = [node for graph in iter_graphs(proto.graph) for node in graph.node]
    batched = any(describe_contraction(index, node) for node in proto.graph.node)
    return batched or bool(find_weight_readers(proto)) or any(n.op_type == "Conv" for n in nodes)


def _collect_layers(index: GraphIndex, seen: Sequence[Samples], work: Work) -> list[StoredLayer]:
    """Collect every layer that few bits can hold, with the second moments of its inputs."""
    try:
        layers = collect_stored_layers(index, seen, work.progress, batched=LEAST_ENTRIES)
        shared, why = collect_shared_layers(index.proto, seen, work.progress)
    except FloatingPointError as error:
        raise build_not_finite_error(error) from error
    if why:
        work.note(f"weights of recurrent layers and inner graphs are rounded to nearest: {why}")
    # With one weight for each output channel, the scales take as much as the weights.
    return [layer for layer in (*layers, *shared) if layer.matrix.shape[-1] > 1]


def _check_names(settings: QuantizeWeights, layers: Sequence[StoredLayer]) -> None:
    names = [layer.name for layer in layers]
    for name, bits in settings.widths:
        if bits != FLOAT_BITS and not 1 <= bits <= _MOST_BITS:
            raise PassRefused(
                f"widths: {name}:{bits:g}: the bits must be 1 to {_MOST_BITS}, or {FLOAT_BITS} "
                "for float",
                hint=f"{FLOAT_BITS} bits leave a layer in float",
            )
    unknown = [name for name, _ in settings.widths if name not in names]
    if unknown:
        raise PassRefused(
            f"widths: the model has no layer {unknown[0]!r} with stored weights",
            hint=f"layers: {', '.join(names[:20])}{', ...' if len(names) > 20 else ''}",
        )


def _compute_bit_budget(
    proto: ModelProto, rows: Sequence[LayerGrids], settings: QuantizeWeights
) -> float:
    """Compute the average bits per weight for the layers whose bits the user does not set.

    Raises:
        PassRefused: ``most_bytes`` leave too few.
    """
    if settings.most_bytes is None:
        return settings.bits
    by_hand = _get_fixed_choices(rows, settings)
    rest = _estimate_other_bytes(proto, rows)
    rest += sum(rows[i].options.compute_cost(choice) for i, choice in by_hand.items()) / 8
    options = [row.options for i, row in enumerate(rows) if i not in by_hand]
    weights = sum(each.size for each in options)
    bits = 8 * (settings.most_bytes * (1 - _LATER) - rest) / max(weights, 1)
    if weights and bits < compute_least_cost(options):
        packed = compute_least_cost(options) * weights / 8
        least = int((rest + packed) / (1 - _LATER)) + 1
        raise PassRefused(
            f"most_bytes={settings.most_bytes} is too small: with the fewest bits the packed "
            f"weights take {packed:.0f} bytes, and the rest of the file {rest:.0f}",
            hint=f"the smallest possible value is most_bytes={least}",
            least_bytes=least,
        )
    return float(min(bits, choose_bits(settings)))


def _estimate_other_bytes(proto: ModelProto, rows: Sequence[LayerGrids]) -> float:
    """Estimate the packed bytes of a file without the integers: graph, scales and other tensors."""
    bare = ModelProto()
    bare.CopyFrom(proto)
    rest = 0.0
    names = {row.layer.name for row in rows}
    for tensor in bare.graph.initializer:
        # Weights that this pass does not quantize (of an LSTM, say) get 8 bits from a later pass.
        later = tensor.data_type == TensorProto.FLOAT and len(tensor.dims) > 1
        if tensor.name in names or later:
            rest += 0 if tensor.name in names else math.prod(tensor.dims)
            tensor.raw_data = b""
            del tensor.float_data[:]
    compact(bare, named=WEIGHT_OPS)
    rest += len(zlib.compress(bare.SerializeToString(), 9))
    # Scales have a short mantissa; those of fixed grids have more bits.
    return rest + sum(
        row.grids[0].scales.size * (_BLOCK_SCALE_BYTES if row.grids[0].block else _SCALE_BYTES)
        for row in rows
    )


def _get_fixed_choices(rows: Sequence[LayerGrids], settings: QuantizeWeights) -> dict[int, int]:
    """Return the choices of the layers whose bits the user sets, by their places."""
    wanted = dict(settings.widths)
    return {
        i: choose_nearest(row.options, wanted[row.layer.name])
        for i, row in enumerate(rows)
        if row.layer.name in wanted
    }


def _choose_options(
    rows: Sequence[LayerGrids], settings: QuantizeWeights, bits: float
) -> list[int]:
    """Choose an option of each layer: set by the user, or ``bits`` on average for the others."""
    picked = _get_fixed_choices(rows, settings)
    free = [i for i in range(len(rows)) if i not in picked]
    options = [rows[i].options for i in free]
    least = compute_least_cost(options)
    as_near_as_can_be = settings.allocation == "uniform" and settings.most_bytes is None
    if least > bits and not as_near_as_can_be:
        raise PassRefused(
            f"bits={bits:g} is too few: the layers need at least {least:.2f} bits per weight on "
            "average"
        )
    if settings.allocation == "measured":
        chosen = allocate(options, bits)
    else:
        alike = choose_nearest if settings.most_bytes is None else choose_at_most
        chosen = [alike(each, bits) for each in options]
    picked |= dict(zip(free, chosen, strict=True))
    return [picked[i] for i in range(len(rows))]


def _fit_to_size(
    rows: Sequence[LayerGrids], room: float, settings: QuantizeWeights, work: Work
) -> tuple[list[int], list[QuantizedLayer]]:
    """Choose the grid of each layer so that the packed integers fit the transfer budget.

    The error that GPTQ propagates turns zeros of plain rounding into other integers, so coarse
    grids take more bits than estimated. Then smaller budgets are tried, and finally the coarsest
    grids.

    Raises:
        PassRefused: ``most_bytes`` leave too few bits even for the coarsest grids.
    """
    most, native = settings.most_bytes, settings.container == "native"
    by_hand = _get_fixed_choices(rows, settings)
    weights = sum(row.options.size for i, row in enumerate(rows) if i not in by_hand)
    if most is None or native or not weights:  # the size of few-bit kernels is exact
        picked = _choose_options(rows, settings, room)
        return picked, _quantize_layers(rows, picked, settings, work)
    wanted = room
    least_bits = compute_least_cost([row.options for i, row in enumerate(rows) if i not in by_hand])
    for left in reversed(range(_TRIES)):
        picked = _choose_options(rows, settings, wanted)
        made = _quantize_layers(rows, picked, settings, work)
        taken = _count_packed_bits(rows, picked, made, by_hand)
        if taken <= room * weights * _NEARLY:
            return picked, made
        if wanted <= least_bits:
            break
        wanted = max(wanted * room * weights / taken, least_bits) if left > 1 else least_bits
    least = most + math.ceil((taken - room * weights) / 8 / (1 - _LATER))
    raise PassRefused(
        f"most_bytes={most} is too small: the packed weights take {taken / 8:.0f} bytes, and "
        f"{room * weights / 8:.0f} are available",
        hint=f"most_bytes={least} is enough",
        least_bytes=least,
    )


def _count_packed_bits(
    rows: Sequence[LayerGrids],
    picked: Sequence[int],
    made: Sequence[QuantizedLayer],
    by_hand: Container[int],
) -> float:
    """Count the packed bits of the layers whose bits the user does not set."""
    integers = {q.layer.name: q.integers for q in made}
    total = 0.0
    for i, row in enumerate(rows):
        if i not in by_hand:
            told = row.options.compute_cost(picked[i])
            own = integers.get(row.layer.name)
            total += told if own is None else estimate_packed_bits(own.reshape(-1, own.shape[-1]))
    return total


def _quantize_layers(
    rows: Sequence[LayerGrids], picked: Sequence[int], settings: QuantizeWeights, work: Work
) -> list[QuantizedLayer]:
    made = []
    for number, (row, i) in enumerate(zip(rows, picked, strict=True)):
        work.progress("weights", number, len(rows))
        if i < len(row.grids):
            integers, grid = row.layer.quantize_and_descend(row.grids[i])
            made.append(
                QuantizedLayer(
                    layer=row.layer,
                    grid=grid,
                    integers=integers,
                    width=row.widths[i],
                    native=settings.container == "native",
                )
            )
    if not made:
        raise PassRefused(
            "all layers stay float: the setting widths requires it, or the outputs are too "
            "sensitive to fewer bits"
        )
    return made


def _list_costs(
    rows: Sequence[LayerGrids], picked: Sequence[int], made: Sequence[QuantizedLayer]
) -> list[LayerCost]:
    """List the bits and bytes of each layer, and its damage to the outputs."""
    by_name = {q.layer.name: q for q in made}
    costs = []
    for row, i in zip(rows, picked, strict=True):
        quantized = by_name.get(row.layer.name)
        bits = compute_entropy(quantized.integers) if quantized else row.options.choices[i].cost
        costs.append(
            LayerCost(
                layer=row.layer.name,
                op=row.layer.op,
                parameters=row.layer.weight.size,
                bits=bits,
                width=quantized.width if quantized else int(bits),
                kl=row.options.choices[i].damage,
                bytes=int(np.ceil(bits * row.layer.weight.size / 8)),
            )
        )
    return costs
