"""Refusal of input sizes on which the source model itself fails."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np

from edgekit.errors import PassRefused
from edgekit.model import Model, TensorSpec
from edgekit.onnx_graph.runs.model_outputs import iter_outputs

_CONTRADICTIONS = (ValueError, IndexError, KeyError, TypeError)


@contextmanager
def refuse_bad_sizes(model: Model, dims: Mapping[str, int]) -> Iterator[None]:
    """Turn an exception into a refusal if the model itself fails on inputs of these sizes.

    Args:
        model: the model.
        dims: sizes of free dimensions by name; others count as 1.

    Raises:
        PassRefused: the model fails on these sizes; the message quotes the runtime.
    """
    try:
        yield
    except _CONTRADICTIONS as error:
        reason = _find_runtime_error(model, dims)
        if reason is None:
            raise
        sizes = ", ".join(
            f"{s.name} {list(_resolve_shape(s, dims))}" for s in model.signature.inputs
        )
        raise PassRefused(
            f"the model fails on inputs of these sizes ({sizes}): {reason}",
            hint="set sizes that it accepts with dims=NAME:SIZE, or [model] dims in edgekit.toml",
        ) from error


def _find_runtime_error(model: Model, dims: Mapping[str, int]) -> str | None:
    """Return the runtime's error on zeros of these sizes; ``None`` if the model runs."""
    feed = {s.name: np.zeros(_resolve_shape(s, dims), s.dtype) for s in model.signature.inputs}
    outputs = next(iter(iter_outputs(model, [feed])))
    return outputs if isinstance(outputs, str) else None


def _resolve_shape(spec: TensorSpec, dims: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(
        d if isinstance(d, int) else dims.get(spec.dimension(axis), 1)
        for axis, d in enumerate(spec.shape)
    )
