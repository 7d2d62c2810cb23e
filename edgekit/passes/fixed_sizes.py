"""Sizes that a .tflite file fixes: completed from their names, and told to the user."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from edgekit.feeding import Feeding
from edgekit.model import Model, TensorSpec
from edgekit_agent.samples import Samples


def completed(model: Model, dims: Mapping[str, int]) -> dict[str, int]:
    """Return the sizes with those of sums, which exporters name ``past + 1``.

    A sum of known terms has precedence over what was given for it: samples have the size that
    belongs to theirs.
    """
    known = dict(dims)
    for name in model.signature.free_dimensions():
        size = _sum(name, dims)
        if size is not None:
            known[name] = size
    return known


def _sum(name: str, dims: Mapping[str, int]) -> int | None:
    terms = [term.strip() for term in name.split("+")]
    sizes = [int(term) if term.isdecimal() else dims.get(term) for term in terms]
    if len(terms) < 2 or any(size is None for size in sizes):
        return None
    return sum(size for size in sizes if size is not None)


def fixed_notes(model: Model, dims: Mapping[str, int], feeding: Feeding) -> Iterator[str]:
    """Tell which free sizes a file fixes, and what that means for states that grow.

    Args:
        model: the source.
        dims: the size of each free dimension, the batch apart.
        feeding: what edgekit.toml says of the inputs.
    """
    free: dict[str, list[tuple[int, str]]] = {}
    for spec, axis, name in feeding.free_axes(model.signature):
        free.setdefault(spec.name, []).append((axis, name))
    names = dict.fromkeys(name for found in free.values() for _, name in found if name in dims)
    told = ", ".join(f"{name} = {dims[name]}" for name in names)
    if told:
        yield f"the file takes inputs of one size, {told}; --dims NAME=SIZE fixes another"
    masks = [s.name for s in model.signature.inputs if "mask" in s.name.lower() and s.name in free]
    for spec in model.signature.inputs:
        if not (size := _growing(spec, model, dims, free.get(spec.name, []))):
            continue
        if masks:
            yield (
                f"state {spec.name} has {size} entries in the file: fill shorter ones up with "
                f"zeros, and mask these by {masks[0]}"
            )
        else:
            yield (
                f"state {spec.name} has {size} entries in the file, and the model takes no mask: "
                "zeros that fill up a shorter one count as entries"
            )


def _growing(
    spec: TensorSpec, model: Model, dims: Mapping[str, int], free: Sequence[tuple[int, str]]
) -> int | None:
    """The fixed length of a state: an output differs from it along its one free axis alone."""
    free = [(axis, name) for axis, name in free if name in dims]
    if len(free) != 1 or len(spec.shape) < 3:
        return None
    axis, name = free[0]
    for made in model.signature.outputs:
        rest = (made.shape[:axis], made.shape[axis + 1 :])
        same_rest = rest == (spec.shape[:axis], spec.shape[axis + 1 :])
        if made.dtype == spec.dtype and same_rest and not isinstance(made.shape[axis], int):
            return dims[name]
    return None


def fits(model: Model, samples: Samples | None) -> bool:
    """Whether samples have the sizes that a file fixes, their axes apart."""
    if samples is None or samples.preprocess is not None:
        return True
    columns = {column.name: column for column in samples.columns}
    for spec in model.signature.inputs:
        column = columns.get(spec.name)
        if column is None:
            continue
        row = [dim for axis, dim in enumerate(spec.shape) if axis != column.axis]
        pairs = zip(row, column.shape[1:], strict=False)
        if any(isinstance(want, int) and want != has for want, has in pairs):
            return False
    return True
