"""Blame for a failed conversion: a size that the model itself refuses, or a fault of ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from edgekit.errors import PassRefused
from edgekit.graphs.outputs import outputs
from edgekit.model import Model, TensorSpec

_CONTRADICTIONS = (ValueError, IndexError, KeyError, TypeError)


@contextmanager
def sizes_checked(model: Model, dims: Mapping[str, int]) -> Iterator[None]:
    """Turn a failure into a refusal where the model runs on no inputs of the given sizes.

    Args:
        model: the model.
        dims: sizes of free dimensions by name; others count as 1.

    Raises:
        PassRefused: says what the runtime has against these sizes.
    """
    try:
        yield
    except _CONTRADICTIONS as error:
        said = _refusal(model, dims)
        if said is None:
            raise
        sizes = ", ".join(f"{s.name} {list(_shape(s, dims))}" for s in model.signature.inputs)
        raise PassRefused(
            f"the model runs on no inputs of these sizes ({sizes}): {said}",
            hint="give sizes that it takes, as dims=NAME:SIZE or [model] dims in edgekit.toml",
        ) from error


def _refusal(model: Model, dims: Mapping[str, int]) -> str | None:
    """What the runtime says against zeros of these sizes."""
    feed = {s.name: np.zeros(_shape(s, dims), s.dtype) for s in model.signature.inputs}
    made = next(iter(outputs(model, [feed])))
    return made if isinstance(made, str) else None


def _shape(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        d if isinstance(d, int) else dims.get(spec.dimension(axis), 1)
        for axis, d in enumerate(spec.shape)
    )
