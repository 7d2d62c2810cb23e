"""Input settings of a model: sample axes, constant inputs, and states that are fed back."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgekit.config.project import InputTable, Number, ScalarOrList
from edgekit.data.lengths import list_input_sizes
from edgekit.data.table import read_array
from edgekit.errors import UserError, did_you_mean, first_line
from edgekit.model import Signature, TensorSpec
from edgekit_agent.samples import Samples

Array = NDArray[np.generic]

# Words that distinguish the input of a state from its output; short ones only as whole words.
_MARKS = (
    "past",
    "present",
    "previous",
    "prev",
    "next",
    "new",
    "initial",
    "init",
    "final",
    "updated",
    "input",
    "output",
    "in",
    "out",
    "i",
    "o",
)
_LEAST_MARK = 3

# Sample axis of an input without one: each sample is a whole input and is fed alone.
WHOLE = -1


@dataclass(frozen=True, kw_only=True)
class RecurrentState:
    """A recurrent state: the output that is fed back, and the initial row of each sequence."""

    output: str
    initial: Array


@dataclass(frozen=True, kw_only=True)
class Feeding:
    """The input settings of edgekit.toml for one model.

    Attributes:
        axes: sample axis by input, where edgekit.toml gives it; ``WHOLE`` for none.
        constants: values of inputs that are the same in every run.
        states: inputs that receive an output of the previous run.
        dims: sizes of free dimensions, for random inputs.
    """

    axes: Mapping[str, int] = field(default_factory=dict)
    constants: Mapping[str, Array] = field(default_factory=dict)
    states: Mapping[str, RecurrentState] = field(default_factory=dict)
    dims: Mapping[str, int] = field(default_factory=dict)

    def axis(self, spec: TensorSpec, signature: Signature) -> int:
        """Return the sample axis of an input: the configured axis, else the default axis."""
        if spec.name in self.axes:
            return self.axes[spec.name]
        return find_default_axis(spec, signature, is_state=spec.name in self.states)

    def iter_free_axes(self, signature: Signature) -> Iterator[tuple[TensorSpec, int, str]]:
        """Yield the free dimensions that neither samples nor constants determine, with their names.

        A dimension with the name of a batch dimension counts as batch.
        """
        fed = [spec for spec in signature.inputs if spec.name not in self.constants]
        axes = {spec.name: self.axis(spec, signature) for spec in fed}
        batches = {
            spec.dimension(axes[spec.name])
            for spec in fed
            if 0 <= axes[spec.name] < len(spec.shape)
        }
        for spec in fed:
            for axis, dim in enumerate(spec.shape):
                name = spec.dimension(axis)
                if not isinstance(dim, int) and name not in batches:
                    yield spec, axis, name

    def get_free_sizes(self, signature: Signature, samples: Samples) -> dict[str, int]:
        """Return the sizes that samples give to free dimensions other than sample axes, by name.

        Dimensions along which samples differ in size are left out.
        """
        ranges = self._get_size_ranges(signature, samples)
        return {name: high for name, (low, high) in ranges.items() if low == high}

    def get_largest_sizes(self, signature: Signature, samples: Samples) -> dict[str, int]:
        """Return the sizes of the largest samples along free dimensions, by name."""
        ranges = self._get_size_ranges(signature, samples)
        return {name: high for name, (_, high) in ranges.items()}

    def find_varied_sizes(
        self, signature: Signature, samples: Samples
    ) -> dict[str, tuple[int, int]]:
        """Return smallest and largest size along free dimensions where samples differ, by name."""
        ranges = self._get_size_ranges(signature, samples)
        return {name: (low, high) for name, (low, high) in ranges.items() if low != high}

    def _get_size_ranges(
        self, signature: Signature, samples: Samples
    ) -> dict[str, tuple[int, int]]:
        columns = {column.name: column for column in samples.columns}
        found: dict[str, tuple[int, int]] = {}
        for spec, axis, name in self.iter_free_axes(signature):
            if column := columns.get(spec.name):
                sizes = list_input_sizes(spec, column, samples)
                if axis in sizes:
                    found[name] = sizes[axis]
        return found

    @property
    def digest(self) -> str:
        """Return the digest of the settings that change the inputs; empty without settings."""
        if not (self.axes or self.constants or self.states):
            return ""
        hashed = hashlib.sha256(repr(sorted(self.axes.items())).encode())
        for name, value in sorted(self.constants.items()):
            hashed.update(f"{name} {value.dtype} {value.shape}".encode() + value.tobytes())
        for name, state in sorted(self.states.items()):
            hashed.update(f"{name} {state.output} {state.initial.shape}".encode())
            hashed.update(state.initial.tobytes())
        return hashed.hexdigest()


def build_feeding(
    signature: Signature,
    tables: Mapping[str, InputTable],
    *,
    dims: Mapping[str, int],
    folder: Path,
    table: str = "model",
) -> Feeding:
    """Check ``[model.inputs]`` of edgekit.toml against a model, and read the files that it names.

    Args:
        signature: Signature of the model.
        tables: Tables of edgekit.toml, by input.
        dims: Sizes of free dimensions by name.
        folder: Project folder, the base of relative paths.
        table: Table of the model in edgekit.toml, for errors.

    Raises:
        UserError: An input, output or axis does not exist, or a value does not fit its input.
    """
    specs = {spec.name: spec for spec in signature.inputs}
    axes: dict[str, int] = {}
    constants: dict[str, Array] = {}
    states: dict[str, RecurrentState] = {}
    for name, given in tables.items():
        where = f"edgekit.toml: {table}.inputs.{name}"
        if name not in specs:
            raise UserError(
                f"{where}: the model has no input {name!r}{did_you_mean(name, specs)}",
                hint=f"its inputs: {', '.join(specs)}",
            )
        spec = specs[name]
        if given.batch_axis is not None:
            axes[name] = _check_axis(spec, given.batch_axis, where)
        is_state = given.output is not None
        axis = axes.get(name, find_default_axis(spec, signature, is_state=is_state))
        if given.constant is not None:
            constants[name] = _read_constant(spec, given.constant, folder, where)
        if given.output is not None:
            _check_pair(spec, given.output, signature, where)
            states[name] = RecurrentState(
                output=given.output, initial=_read_initial(spec, axis, given.initial, folder, where)
            )
    if len(constants) + len(states) == len(specs):
        raise UserError(
            f"edgekit.toml: {table}.inputs: every input is a constant or a state; at least one "
            "must come from the samples"
        )
    return Feeding(axes=axes, constants=constants, states=states, dims=dims)


def find_default_axis(spec: TensorSpec, signature: Signature, *, is_state: bool) -> int:
    """Return the sample axis of an input for which edgekit.toml gives none.

    A fixed size on this axis is not a batch if the input is a state, or if the first input has
    another size there: ``h [2, 1, 64]`` beside ``x [1, 512]`` is fed as a whole.
    """
    if not spec.shape:
        return WHOLE
    axis = signature.sample_axis(spec)
    size = spec.shape[axis]
    first = next(each.shape[0] for each in signature.inputs if each.shape)
    other = isinstance(size, int) and isinstance(first, int) and size != first
    return WHOLE if other or (is_state and isinstance(size, int)) else axis


def _check_axis(spec: TensorSpec, given: int | str, where: str) -> int:
    if given == "none":
        return WHOLE
    if not isinstance(given, int) or given >= len(spec.shape):
        raise UserError(
            f"{where}.batch_axis: {spec} has no axis {given}",
            hint='axes count from 0; use "none" if each sample is a whole input',
        )
    return given


def _read_constant(spec: TensorSpec, given: ScalarOrList, folder: Path, where: str) -> Array:
    value = _read_value(given, folder, f"{where}.constant")
    shape = tuple(dim if isinstance(dim, int) else 1 for dim in spec.shape)
    if not value.ndim and shape:
        value = np.full(shape, value)
    fits = value.ndim == len(spec.shape) and all(
        not isinstance(dim, int) or dim == size
        for dim, size in zip(spec.shape, value.shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"{where}.constant: its shape is {list(value.shape)}, but the input is {spec}"
        )
    return _cast(value, spec, f"{where}.constant")


def _read_initial(
    spec: TensorSpec, axis: int, given: Number | str, folder: Path, where: str
) -> Array:
    """Return the initial row: the input without its sample axis, free dimensions of size 0."""
    kept = [dim for place, dim in enumerate(spec.shape) if place != axis]
    if isinstance(given, str):
        value = read_array(folder / given, f"{where}.initial")
        if axis >= 0 and value.ndim == len(spec.shape) and value.shape[axis] == 1:
            value = np.squeeze(value, axis)
    else:
        sizes = tuple(dim if isinstance(dim, int) else 0 for dim in kept)
        value = np.full(sizes, given)
    fits = value.ndim == len(kept) and all(
        not isinstance(dim, int) or dim == size for dim, size in zip(kept, value.shape, strict=True)
    )
    if not fits:
        raise UserError(
            f"{where}.initial: its shape is {list(value.shape)}, but one sample of the input is "
            f"[{', '.join(map(str, kept))}]"
        )
    return _cast(value, spec, f"{where}.initial")


def _check_pair(spec: TensorSpec, output: str, signature: Signature, where: str) -> None:
    outputs = {each.name: each for each in signature.outputs}
    if output not in outputs:
        raise UserError(
            f"{where}.from: the model has no output {output!r}{did_you_mean(output, outputs)}",
            hint=f"its outputs: {', '.join(outputs)}",
        )
    if not may_feed(outputs[output], spec):
        raise UserError(f"{where}.from: the output {outputs[output]} does not fit the input {spec}")


def find_states(signature: Signature) -> dict[str, str]:
    """Find inputs that look like states, each with the output that feeds it.

    Both have the same type, and the same name apart from words such as past, present or new.
    """
    found: dict[str, str] = {}
    for spec in signature.inputs:
        stem = _strip_marks(spec.name)
        for output in signature.outputs:
            alike = stem and _strip_marks(output.name) == stem and len(spec.shape) > 1
            if alike and output.name not in found.values() and may_feed(output, spec):
                found[spec.name] = output.name
                break
    return found


def _strip_marks(name: str) -> str:
    """Remove the words of a name that distinguish the input of a state from its output."""
    plain = name.lower().replace("past_key_values", "past")
    words = (word for word in re.split(r"[^a-z0-9]+", plain) if word not in _MARKS)
    whole = "".join(words)
    for mark in _MARKS:
        whole = whole.replace(mark, "", 1) if len(mark) > _LEAST_MARK else whole
    return re.sub(r"(?<=[a-z])[0n]$", "", whole)  # h, h0, hn


def may_feed(output: TensorSpec, spec: TensorSpec) -> bool:
    """Return whether an output has the type of an input and compatible sizes."""
    if output.dtype != spec.dtype or len(output.shape) != len(spec.shape):
        return False
    pairs = zip(output.shape, spec.shape, strict=True)
    return all(a == b or not (isinstance(a, int) and isinstance(b, int)) for a, b in pairs)


def _read_value(given: ScalarOrList, folder: Path, where: str) -> Array:
    if isinstance(given, str):
        return read_array(folder / given, where)
    try:
        value = np.asarray(given)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{where}: not an array of numbers: {first_line(error)}") from error
    if value.dtype.kind not in "biuf":
        raise UserError(f"{where}: not an array of numbers")
    return value


def _cast(value: Array, spec: TensorSpec, where: str) -> Array:
    """Convert a value to the type of the input; only rounding of floats may change it."""
    with np.errstate(invalid="ignore", over="ignore"):
        cast = np.ascontiguousarray(value.astype(spec.dtype)).reshape(value.shape)
    same = np.dtype(spec.dtype).kind == "f" or (
        np.array_equal(cast, value) and not (value.dtype.kind == "f" and math.isinf(value.max()))
    )
    if not (same and np.isfinite(cast).all()):
        raise UserError(f"{where}: cannot be stored as {spec.dtype}, the type of the input {spec}")
    return cast
