"""Comparison of a converted graph with its source, on the source's examples and random inputs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto

from edgekit.conversion.importers.registry import Arrays, Conversion
from edgekit.errors import UserError, first_line
from edgekit.model import Signature, TensorSpec
from edgekit.onnx_graph.io import make_session, read_signature
from edgekit.onnx_graph.output_differences import compute_largest_difference

RELATIVE = 1e-4
# Magnitudes of random inputs: small ones, and some like pixels.
_SCALES = (1.0, 64.0)
# The graph may differ more where the source itself amplifies a change in its inputs' last digits.
_LAST_DIGITS, _TIMES_AS_MUCH, _MOST = 1e-6, 10.0, 1e-2
# Sizes to try for other free axes; some graphs need an image of at least some size.
_SIZES = (16, 64, 224)


@dataclass(frozen=True, kw_only=True)
class _RandomInputs:
    """Random inputs drawn from a signature, for one size of its free axes."""

    signature: Signature
    size: int
    vocabulary: int

    def __call__(self, rows: int, scale: float) -> Arrays:
        rng = np.random.default_rng(rows)
        return [self._draw_array(spec, rows, scale, rng) for spec in self.signature.inputs]

    def _draw_array(
        self, spec: TensorSpec, rows: int, scale: float, rng: np.random.Generator
    ) -> NDArray[np.generic]:
        shape = tuple(
            d if isinstance(d, int) else (rows if i == 0 else self.size)
            for i, d in enumerate(spec.shape)
        )
        kind = np.dtype(spec.dtype).kind
        if kind == "f":
            return (rng.normal(size=shape) * scale).astype(spec.dtype)
        # The range of integers is unknown; those of a vocabulary start at 0.
        return rng.integers(0, self.vocabulary, shape).astype(spec.dtype)


def check_agreement(converted: Conversion, *, display_name: str) -> None:
    """Compare a graph's outputs with those of its source, and correct the sizes the graph declares.

    Two arrays agree if no value differs by more than ``RELATIVE`` of the largest magnitude in the
    source's array.

    Args:
        converted: The graph and its source.
        display_name: Name of the source, for messages.

    Raises:
        UserError: The outputs differ (the message says how far), or one of the two cannot be run.
    """
    try:
        copied = type(converted.proto)()
        copied.CopyFrom(converted.proto)
        session = make_session(copied)
    except Exception as error:
        raise UserError(
            f"{display_name}: onnxruntime rejects the graph that {converted.tool} exported: "
            f"{first_line(error)}"
        ) from error
    signature = read_signature(converted.proto)
    names = [spec.name for spec in signature.outputs]
    for inputs in _iter_inputs(converted, signature, display_name):
        try:
            expected = converted.reference(inputs)
        except Exception as error:
            raise UserError(
                f"{display_name}: fails on inputs of shape {_format_shapes(inputs)}: "
                f"{first_line(error)}"
            ) from error
        feeds = {spec.name: value for spec, value in zip(signature.inputs, inputs, strict=True)}
        try:
            outputs = session.run(names, feeds)
        except Exception as error:
            raise UserError(
                f"{display_name}: the graph that {converted.tool} exported fails on inputs of "
                f"shape {_format_shapes(inputs)}: {first_line(error)}"
            ) from error
        for name, reference, output in zip(names, expected, outputs, strict=True):
            _compare(
                converted, name, np.asarray(reference), np.asarray(output), inputs, display_name
            )
            _correct_shape(converted.proto, name, np.shape(output))


def _correct_shape(proto: ModelProto, name: str, shape: tuple[int, ...]) -> None:
    """Correct the declared sizes of an output; some converters declare wrong ones."""
    value = next(v for v in proto.graph.output if v.name == name)
    dims = value.type.tensor_type.shape.dim
    if len(dims) != len(shape):
        return
    for dim, size in zip(dims, shape, strict=True):
        if dim.HasField("dim_value") and dim.dim_value != size:
            dim.dim_value = size


def _iter_inputs(
    converted: Conversion, signature: Signature, display_name: str
) -> Iterator[Arrays]:
    yield from converted.examples
    free = all(spec.shape and not isinstance(spec.shape[0], int) for spec in signature.inputs)
    if converted.draw is not None:
        for rows in converted.rows if free else (_count_fixed_rows(signature),):
            yield converted.draw(rows)
        return
    random = _find_random_inputs(converted, signature, display_name)
    for rows in converted.rows if free else (_count_fixed_rows(signature),):
        for scale in _SCALES:
            yield random(rows, scale)


def _find_random_inputs(
    converted: Conversion, signature: Signature, display_name: str
) -> _RandomInputs:
    """Find random inputs of a size that the source accepts."""
    failure: Exception | None = None
    for size in _SIZES:
        random = _RandomInputs(signature=signature, size=size, vocabulary=converted.vocabulary)
        try:
            converted.reference(random(1, 1.0))
        except Exception as error:  # noqa: BLE001 - the last one is reported
            failure = error
            continue
        return random
    raise UserError(
        f"{display_name}: fails on random inputs of shape {_format_shapes(random(1, 1.0))}: "
        f"{first_line(failure) if failure else ''}",
        hint="give a function (module:function) that returns it with example inputs",
    )


def _count_fixed_rows(signature: Signature) -> int:
    first = signature.inputs[0].shape[:1]
    return first[0] if first and isinstance(first[0], int) else 1


def _compare(
    converted: Conversion,
    name: str,
    expected: NDArray[np.generic],
    got: NDArray[np.generic],
    inputs: Arrays,
    display_name: str,
) -> None:
    if expected.shape != got.shape:
        raise UserError(
            f"{display_name}: in the graph that {converted.tool} exported, {name} has shape "
            f"{list(got.shape)}, in the source {list(expected.shape)}",
            hint=_BATCH_HINT if expected.shape[:1] != got.shape[:1] else "",
        )
    difference = compute_largest_difference(expected, got, stray=converted.stray)
    if difference > RELATIVE and difference > _estimate_tolerance(converted, inputs, display_name):
        raise UserError(
            f"{display_name}: the graph that {converted.tool} exported differs from the source: "
            f"{name} by {difference:.3g} of its largest value (allowed: {RELATIVE:g})",
            hint="the model may depend on state or on the batch, or the exporter has a bug",
        )


_BATCH_HINT = "the model depends on the number of samples in a batch"


def _estimate_tolerance(converted: Conversion, inputs: Arrays, display_name: str) -> float:
    """Estimate the allowed difference from the effect of a tiny change of the inputs.

    Raises:
        UserError: The source gives different outputs for the same inputs.
    """
    nudged = [a * (1 + _LAST_DIGITS) if np.asarray(a).dtype.kind == "f" else a for a in inputs]
    nudged = [np.asarray(n, np.asarray(a).dtype) for n, a in zip(nudged, inputs, strict=True)]
    first, second, nudged_outputs = (
        converted.reference(arrays) for arrays in (inputs, inputs, nudged)
    )
    if any(_measure_difference(a, b) > RELATIVE for a, b in zip(first, second, strict=True)):
        raise UserError(
            f"{display_name}: the outputs differ between runs on the same inputs",
            hint="disable randomness (such as dropout) for inference",
        )
    change = max(_measure_difference(a, b) for a, b in zip(first, nudged_outputs, strict=True))
    return min(_TIMES_AS_MUCH * change, _MOST)


def _measure_difference(one: object, other: object) -> float:
    return compute_largest_difference(np.asarray(one), np.asarray(other))


def _format_shapes(arrays: Arrays) -> str:
    return ", ".join(str(list(np.shape(a))) for a in arrays)
