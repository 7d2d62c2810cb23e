"""Sizes that a TFLite file fixes: inference of sums like ``past + 1``, and notes to the user."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from edgekit.data.input_settings import Feeding, find_states
from edgekit.data.lengths import list_input_sizes
from edgekit.model import Model, TensorSpec
from edgekit_agent.samples import Samples

# Names that the TorchScript exporter gives to sizes of outputs, such as Concatnk_dim_3.
_AUTOMATIC = re.compile(r"_dim_\d+$")


def infer_sums(model: Model, dims: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes, with those of dimensions that are named as sums, such as ``past + 1``.

    A sum of known terms overrides a size given for it, as the samples have the sum as their size.
    """
    known = dict(dims)
    for name in model.signature.free_dimensions():
        size = _infer_sum(name, dims)
        if size is not None:
            known[name] = size
    return known


def _infer_sum(name: str, dims: Mapping[str, int]) -> int | None:
    terms = [term.strip() for term in name.split("+")]
    sizes = [int(term) if term.isdecimal() else dims.get(term) for term in terms]
    if len(terms) < 2 or any(size is None for size in sizes):
        return None
    return sum(size for size in sizes if size is not None)


def describe_fixed_sizes(model: Model, dims: Mapping[str, int], feeding: Feeding) -> Iterator[str]:
    """Yield notes on the free sizes that a file fixes, and on growing states of fixed length.

    Args:
        model: the source.
        dims: the size of each free dimension, without the batch.
        feeding: input settings of edgekit.toml.
    """
    free: dict[str, list[tuple[int, str]]] = {}
    for spec, axis, name in feeding.iter_free_axes(model.signature):
        free.setdefault(spec.name, []).append((axis, name))
    names = dict.fromkeys(name for found in free.values() for _, name in found if name in dims)
    told = ", ".join(f"{name} = {dims[name]}" for name in names)
    if told:
        yield f"the file has fixed input sizes: {told}; set other sizes with --dims NAME=SIZE"
    masks = [s.name for s in model.signature.inputs if "mask" in s.name.lower() and s.name in free]
    for spec in model.signature.inputs:
        if not (size := _find_growing_length(spec, model, dims, free.get(spec.name, []))):
            continue
        if masks:
            yield (
                f"state {spec.name} has {size} entries in the file; pad shorter states with "
                f"zeros, and mask the padding with the input {masks[0]}"
            )
        else:
            yield (
                f"state {spec.name} has {size} entries in the file, and the model has no mask "
                "input; zeros that pad a shorter state count as real entries"
            )


def _find_growing_length(
    spec: TensorSpec, model: Model, dims: Mapping[str, int], free: Sequence[tuple[int, str]]
) -> int | None:
    """Return the fixed length of a growing state; ``None`` for other inputs.

    A growing state has one free axis, and an output differs from it in size along this axis only.
    An output of the same size is a sequence, unless its name pairs it with the input. Where the
    size of the output has no name that a person gave, a state is an input that has another input
    without this axis beside it.
    """
    free = [(axis, name) for axis, name in free if name in dims]
    if len(free) != 1 or len(spec.shape) < 3:
        return None
    axis, name = free[0]
    paired = find_states(model.signature).get(spec.name)
    inputs = [each for each in model.signature.inputs if each is not spec]
    beside = any(name not in map(each.dimension, range(len(each.shape))) for each in inputs)
    for made in model.signature.outputs:
        if not _has_same_sizes(spec, made):
            continue
        size = made.shape[axis]
        named = size is not None and not _AUTOMATIC.search(str(size))
        if made.name == paired or (size != spec.shape[axis] if named else beside):
            return dims[name]
    return None


def _has_same_sizes(spec: TensorSpec, made: TensorSpec) -> bool:
    """Return whether two values have the same type and the same fixed sizes."""
    if made.dtype != spec.dtype or len(made.shape) != len(spec.shape):
        return False
    # Exporters name the free sizes of outputs as they like.
    pairs = zip(spec.shape, made.shape, strict=True)
    return all(a == b if isinstance(a, int) else not isinstance(b, int) for a, b in pairs)


def has_fitting_samples(model: Model, samples: Samples | None) -> bool:
    """Return whether samples have the fixed sizes of a model, the sample axis excluded."""
    if samples is None:
        return True
    columns = {column.name: column for column in samples.columns}
    for spec in model.signature.inputs:
        if spec.name not in columns:
            continue
        for axis, found in list_input_sizes(spec, columns[spec.name], samples).items():
            size = spec.shape[axis]
            if isinstance(size, int) and found != (size, size):
                return False
    return True
