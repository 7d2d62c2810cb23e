"""Checks of a pass's promise on its result: signature, stored tensors, file size, cost, outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace

from edgekit.compression.checks.agreement import Agreement
from edgekit.compression.pass_specs import CONVERSION, INT8_WEIGHTS, PassSpec, Promise
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.cost import Cost
from edgekit.onnx_graph.operators import INTEGER_TYPES
from edgekit.onnx_graph.weight_stats import StorageStats
from edgekit.pass_settings import PluginSettings, PruneWeights, Settings, ToOnnx, ToTflite

# Allowed growth of a graph for nodes, names and parameters, whatever it stores.
_ALLOWED_BYTES = 4096
_ALLOWED_NODE_BYTES = 512
# Least share of equal integers, as rounding may turn a choice between two nearly equal values.
_EQUAL = 0.9
# Share of the requested sparsity to reach, as layers and rows of embeddings round it to whole
# entries; and the least increase otherwise.
_NEARLY, _ANY = 0.95, 1e-9


# The float16 limit holds where the source rounds to 16 bits at each operator and the result does
# not. Integers of the two runtimes differ by single steps, which add up from layer to layer.
_CONVERSION_OF_FLOAT16 = replace(CONVERSION, max_relative_error=3e-2)
_CONVERSION_OF_INT8 = Promise(max_relative_error=0.2, min_correlation=0.95, max_growth=math.inf)
_BY_PRECISION = {
    "float16": Promise(max_relative_error=3e-2, stores=("float16",)),
    "dynamic": INT8_WEIGHTS,
    "int16x8": Promise(stores=("int8",), max_growth=2.0),
}


def get_promise(
    spec: PassSpec, settings: Settings | PluginSettings, before: StorageStats
) -> Promise:
    """Return the promise of a pass for a model with these settings.

    Float graphs agree between the runtimes up to the order of sums, graphs that compute in float16
    up to its rounding, and graphs with integers up to their steps.

    Args:
        spec: entry of the pass.
        settings: settings of the step.
        before: stored tensors of the original.
    """
    if isinstance(settings, ToTflite) and settings.precision in _BY_PRECISION:
        return _BY_PRECISION[settings.precision]
    if isinstance(settings, ToTflite | ToOnnx) and INTEGER_TYPES & set(before.bytes_of):
        return _CONVERSION_OF_INT8
    if isinstance(settings, ToTflite | ToOnnx) and (
        before.computes_in_half or before.bytes_of.get("float16")
    ):
        return _CONVERSION_OF_FLOAT16
    if isinstance(settings, PruneWeights):
        asked = settings.sparsity if settings.pattern == "none" else 0.0
        return replace(spec.promise, sparser=max(_NEARLY * asked, _ANY))
    return spec.promise


def check_signature(before: Signature, after: Signature) -> Iterator[str]:
    """Yield differences of inputs and outputs; sizes may become known or free but not change."""
    for kind, olds, news in (
        ("inputs", before.inputs, after.inputs),
        ("outputs", before.outputs, after.outputs),
    ):
        found = f"found {_format_specs(news)}, expected {_format_specs(olds)}"
        if [(t.name, t.dtype) for t in olds] != [(t.name, t.dtype) for t in news]:
            yield f"changed the names or types of the {kind}: {found}"
        elif not all(_has_same_shape(a, b) for a, b in zip(olds, news, strict=True)):
            yield f"changed the shapes of the {kind}: {found}"


def _format_specs(specs: tuple[TensorSpec, ...]) -> str:
    return ", ".join(map(str, specs))


def _has_same_shape(before: TensorSpec, after: TensorSpec) -> bool:
    """Return whether two shapes agree; a shape that the file does not state agrees with all."""
    if not before.shape or not after.shape:
        return True
    if len(before.shape) != len(after.shape):
        return False
    known = ({a, b} for a, b in zip(before.shape, after.shape, strict=True))
    return all(len(dims) == 1 or not all(isinstance(d, int) for d in dims) for dims in known)


def check_store(promise: Promise, before: StorageStats, after: StorageStats) -> Iterator[str]:
    """Yield broken promises on the stored tensors and the size of a file.

    Args:
        promise: promise of the pass.
        before: stored tensors of the original.
        after: stored tensors of the result.
    """
    if after.nan and not before.nan:
        yield f"the stored tensor {after.nan} contains NaN, and none did before"
    if after.infinite and not (before.infinite or promise.may_fold_infinities):
        yield f"the stored tensor {after.infinite} contains infinity, and none did before"
    if promise.stores and not any(after.bytes_of.get(dtype) for dtype in promise.stores):
        stores = " or ".join(promise.stores)
        yield f"stored no {stores} weights, but {_format_types(after)}"
    if promise.fewer_float_weights and not _has_freed_weights(promise, before, after):
        yield (
            f"did not reduce the float weights: {after.weight_bytes + after.shared_bytes} bytes, "
            f"before {before.weight_bytes + before.shared_bytes}"
        )
    if promise.sparser and not (promise.sparser <= after.zeros > before.zeros):
        yield (
            f"set too few weights to zero: {100 * after.zeros:.3g} % instead of "
            f"{100 * promise.sparser:.3g} %, before {100 * before.zeros:.3g} %"
        )
    limit = _compute_size_limit(promise, before, after)
    if after.file_bytes > limit:
        yield (
            f"wrote a file of {after.file_bytes} bytes, more than the limit of {limit:.0f}; "
            f"before {before.file_bytes}"
        )


def check_cost(before: Cost, after: Cost) -> Iterator[str]:
    """Yield a broken promise if the result multiplies no less, where all products are counted."""
    if not (before.unknown or after.unknown) and after.macs >= before.macs:
        yield f"did not reduce the MACs: {after.macs}, before {before.macs}"


def _format_types(stored: StorageStats) -> str:
    return ", ".join(f"{n} bytes of {name}" for name, n in sorted(stored.bytes_of.items()))


def _has_freed_weights(promise: Promise, before: StorageStats, after: StorageStats) -> bool:
    """Return whether float weights were removed, if there were any to remove."""
    had = any(before.bytes_of.get(dtype) for dtype in promise.stores)
    return had or not before.weight_bytes or _count_removed_bytes(before, after) > 0


def _count_removed_bytes(before: StorageStats, after: StorageStats) -> int:
    weights = before.weight_bytes + before.shared_bytes
    return max(weights - after.weight_bytes - after.shared_bytes, 0)


def _compute_size_limit(promise: Promise, before: StorageStats, after: StorageStats) -> float:
    """Compute the largest allowed file; shared weights may stay in float beside their integers."""
    allowed = _ALLOWED_BYTES + _ALLOWED_NODE_BYTES * after.nodes + before.shared_bytes // 2
    saved = promise.saves * _count_removed_bytes(before, after)
    return promise.max_growth * before.file_bytes - saved + allowed


def check_agreement(promise: Promise, found: Agreement, *, asked: bool = False) -> Iterator[str]:
    """Yield broken promises on the outputs.

    Args:
        promise: promise of the pass.
        found: agreement of the outputs.
        asked: whether a setting says how much is removed; then no output may be lost to it.
    """
    judged = found.samples > 0  # without samples: edgekit.compression.checks.exactness
    limit = promise.max_relative_error
    if judged and found.worst and not found.worst[1] <= limit:
        name, error = found.worst
        yield (
            f"output {name} differs from the original's by {error:.2g} (relative RMS), more than "
            f"the limit of {limit:g}"
        )
    if promise.exact and found.equal is not None and found.equal < _EQUAL:
        yield f"changed integer outputs: only {100 * found.equal:.0f} % of the values are equal"
    for name, correlation in found.correlation.items():
        if correlation < promise.min_correlation:
            yield (
                f"output {name} no longer follows the original's: their correlation on "
                f"{found.samples} samples is {correlation:.2f}, less than "
                f"{promise.min_correlation:g}"
            )
    for name in found.lost if asked else ():
        yield (
            f"output {name} has a relative error of {found.relative_errors[name]:.2g} on the "
            "samples, more than a constant output would have"
        )
    for name in found.stuck:
        yield f"output {name} is the same for every sample, but the original's is not"
