"""Shapes of all values, observed in runs on synthetic inputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import product

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, ValueInfoProto, helper

from edgekit.errors import PassRefused, UserError, first_line
from edgekit.onnx_graph.runs.instrumented_session import Additions, open_instrumented
from edgekit.onnx_graph.shape_inference import infer_element_types

Values = dict[str, NDArray[np.generic]]
Shapes = Mapping[str, tuple[int, ...]]
# Free sizes to try; the first with which the model runs is used. Convolutions shrink their input,
# and reflect padding (the front end of a spectrogram) needs an input longer than the padding.
_FREE = (16, 64, 224, 7, 1, 1024, 16000)
_MOST_FED = 1 << 20  # entries of one input; larger sizes are not tried
_FEW = 64
_SHAPE = "edgekit:shape:"
_INTEGERS = (TensorProto.INT32, TensorProto.INT64)


@dataclass(frozen=True, kw_only=True)
class ObservedValues:
    """Shapes and small integer values observed on synthetic inputs.

    Attributes:
        sizes: shape of every value of the main graph, inputs included.
        integers: the small integer values.
        constant_integers: those of them that are equal for all inputs and free sizes tried.
        element_types: ONNX element types, where they are known.
    """

    sizes: dict[str, tuple[int, ...]]
    integers: Values
    constant_integers: Values
    element_types: dict[str, int | None]


@dataclass(frozen=True, kw_only=True)
class _InputSettings:
    """Settings of synthetic inputs: batch size, other free sizes, and the value of integers."""

    batch: int
    free: int
    integer: int


def observe_values(
    proto: ModelProto,
    shapes: Shapes | None = None,
    constants: Mapping[str, NDArray[np.generic]] | None = None,
) -> ObservedValues:
    """Run the model twice on synthetic inputs and observe shapes and small integers.

    No other values leave the graph, so each is freed after its last reader.

    Args:
        proto: the model; not changed.
        shapes: of the inputs, where they are known.
        constants: values of inputs that are the same in every run.

    Raises:
        PassRefused: the model runs on no synthetic input.
    """
    runner = _Runner(proto, shapes or {}, constants or {})
    failure, empty_run = "", None
    for free, integer in product(_FREE, (0, 1)):
        settings = _InputSettings(batch=1, free=free, integer=integer)
        if free > min(_FREE) and runner.largest(settings) > _MOST_FED:
            continue
        try:
            first = runner.run(settings)
        except Exception as error:  # noqa: BLE001 - onnxruntime has no common base class
            failure = failure or first_line(error)
            continue
        if any(0 in size for size in first[0].values()):
            empty_run = empty_run or (first, free, integer)  # a size without empty values is better
            continue
        return runner.compare_runs(first, runner.run_again(free, integer))
    if empty_run is not None:
        first, free, integer = empty_run
        return runner.compare_runs(first, runner.run_again(free, integer))
    raise PassRefused(
        f"the model fails on every random input that was tried: {failure}",
        hint="give calibration data with --data; its shapes are used instead",
    )


class _Runner:
    """Session of a model that outputs the shapes of values, and integers."""

    def __init__(
        self, proto: ModelProto, shapes: Shapes, constants: Mapping[str, NDArray[np.generic]]
    ) -> None:
        self.shapes = shapes
        self.constants = constants
        stored = {tensor.name for tensor in proto.graph.initializer}
        self.inputs = [v for v in proto.graph.input if v.name not in stored]
        self.batches = {
            v.type.tensor_type.shape.dim[0].dim_param
            for v in self.inputs
            if v.type.tensor_type.shape.dim
        } - {""}
        element_types = self.element_types = infer_element_types(proto)
        value_names = [name for node in proto.graph.node for name in node.output if name]
        self.value_names = [name for name in value_names if element_types.get(name, 0) is not None]
        self.integers = [name for name in self.value_names if element_types.get(name) in _INTEGERS]
        additions = Additions(outputs=[_SHAPE + name for name in self.value_names] + self.integers)
        for name in self.value_names:
            additions.add(name, helper.make_node("Shape", [name], [_SHAPE + name]))
        try:
            self.session: ort.InferenceSession = open_instrumented(proto, additions)
        except UserError as error:
            raise PassRefused(f"{error.message}, so no channels can be removed") from error

    def run(self, settings: _InputSettings) -> tuple[dict[str, tuple[int, ...]], Values]:
        """Return the shapes of all values, and the small integer values."""
        feeds = self._make_feeds(settings)
        output_names = [*(_SHAPE + name for name in self.value_names), *self.integers]
        outputs = dict(zip(output_names, self.session.run(output_names, feeds), strict=True))
        sizes = {name: tuple(outputs[_SHAPE + name].tolist()) for name in self.value_names}
        sizes |= {name: tuple(value.shape) for name, value in feeds.items()}
        values = feeds | {name: outputs[name] for name in self.integers}
        integers = {
            name: value
            for name, value in values.items()
            if value.dtype.kind in "iu" and value.size <= _FEW
        }
        return sizes, integers

    def largest(self, settings: _InputSettings) -> int:
        """Return the number of entries of the largest input."""
        return max(int(math.prod(self._iter_sizes(value, settings))) for value in self.inputs)

    def run_again(self, free: int, integer: int) -> Values | None:
        """Return integers on other inputs, as different as the model accepts, or ``None``."""
        for batch, length in ((2, 2 * free), (2, free), (1, 2 * free), (1, free)):
            for other in (1 - integer, integer):
                if (batch, length, other) == (1, free, integer) and self._has_free():
                    return None
                try:
                    return self.run(_InputSettings(batch=batch, free=length, integer=other))[1]
                except Exception:  # noqa: BLE001 - the next may run
                    continue
        return None

    def _has_free(self) -> bool:
        return any(
            not dim.HasField("dim_value")
            for value in self.inputs
            for dim in value.type.tensor_type.shape.dim
        )

    def compare_runs(
        self, first: tuple[dict[str, tuple[int, ...]], Values], other: Values | None
    ) -> ObservedValues:
        """Combine two runs: the values on which they agree are steady."""
        sizes, integers = first
        constant_integers = {
            name: value
            for name, value in integers.items()
            if other is not None and name in other and np.array_equal(value, other[name])
        }
        return ObservedValues(
            sizes=sizes,
            integers=integers,
            constant_integers=constant_integers,
            element_types=self.element_types,
        )

    def _make_feeds(self, settings: _InputSettings) -> Values:
        rng = np.random.default_rng(settings.batch + settings.integer)
        return {value.name: self._make_input(value, settings, rng) for value in self.inputs}

    def _make_input(
        self, value: ValueInfoProto, settings: _InputSettings, rng: np.random.Generator
    ) -> NDArray[np.generic]:
        if value.name in self.constants:
            return self.constants[value.name]
        size = tuple(self._iter_sizes(value, settings))
        dtype = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
        array = rng.random(size) if dtype.kind == "f" else np.full(size, settings.integer)
        return array.astype(dtype)

    def _iter_sizes(self, value: ValueInfoProto, settings: _InputSettings) -> Iterator[int]:
        shape = self.shapes.get(value.name)
        if shape and not value.type.tensor_type.HasField("shape"):
            yield from shape
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if dim.HasField("dim_value"):
                yield dim.dim_value
            elif axis == 0 or dim.dim_param in self.batches:
                yield settings.batch
            else:
                yield shape[axis] if shape and axis < len(shape) else settings.free
