"""Layout of outputs and targets: the same shape, moved channels, and the axis of classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Tuple

import numpy as np

from edgekit_agent.failures import AgentError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from edgekit_agent.metrics import ScoredSample
    from edgekit_agent.scoring import MetricOptions


def read_value_pair(
    sample: ScoredSample, options: MetricOptions, metric: str
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return output and target as float64, both in the shape of the target.

    Axes of length 1 do not count; an image may have its channels first in one of them and last in
    the other.

    Raises:
        AgentError: ``bad_job``; the shapes differ otherwise, or the target is empty or not finite.
            ``model_failed``; the output is not finite.
    """
    target = np.ascontiguousarray(sample.get_target(), np.float64)
    output = sample.get_output(options.output)
    matched = _match_layout(output, target.shape)
    if matched is None:
        raise AgentError(
            "bad_job",
            f"metric {metric}: the output of sample {sample.number} has shape {output.shape}, "
            f"but its target has {target.shape}",
            hint="choose the scored output, or store targets in the shape of the output",
        )
    if not target.size:
        raise AgentError("bad_job", f"the target of sample {sample.number} is empty")
    if not np.isfinite(target).all():
        raise AgentError("bad_job", f"the target of sample {sample.number} is not finite")
    values = np.ascontiguousarray(matched, np.float64)
    if not np.isfinite(values).all():
        raise AgentError("model_failed", f"the output of sample {sample.number} is not finite")
    return values, target


def _match_layout(output: NDArray[Any], shape: Tuple[int, ...]) -> NDArray[Any] | None:
    wanted = drop_ones(shape)
    if drop_ones(output.shape) == wanted:
        return output.reshape(shape)
    if len(wanted) == 3:
        squeezed = output.reshape(drop_ones(output.shape))
        for source, place in ((0, -1), (-1, 0)):
            if squeezed.ndim == 3 and np.moveaxis(squeezed, source, place).shape == wanted:
                return np.moveaxis(squeezed, source, place).reshape(shape)
    return None


def drop_ones(shape: Tuple[int, ...]) -> Tuple[int, ...]:
    """Return a shape without its axes of length 1."""
    return tuple(length for length in shape if length != 1)


def find_class_axis(shape: Tuple[int, ...], labels: Tuple[int, ...]) -> int | None:
    """Return the axis of an output that its labels lack; the last one if there are several.

    Returns:
        ``None`` if there is no such axis.
    """
    for axis in reversed(range(len(shape))):
        if shape[:axis] + shape[axis + 1 :] == labels:
            return axis
    return None


def move_classes_last(output: NDArray[Any], labels: Tuple[int, ...]) -> NDArray[Any] | None:
    """Return the output with its class axis last; axes of length 1 do not count.

    Returns:
        ``None`` if no axis can be the one of the classes. With one channel, the last axis has
        length 1.
    """
    wanted = drop_ones(labels)
    values = output.reshape(drop_ones(output.shape))
    if values.shape == wanted:
        return values[..., None]
    axis = find_class_axis(values.shape, wanted)
    return None if axis is None else np.moveaxis(values, axis, -1)


def read_integers(values: NDArray[Any], name: str) -> NDArray[np.int64]:
    """Return whole numbers as int64.

    Raises:
        AgentError: ``bad_job``; other numbers are among them.
    """
    with np.errstate(invalid="ignore"):
        integers = values.astype(np.int64)
    if not np.array_equal(integers, values):
        raise AgentError(
            "bad_job",
            f"{name} must have whole numbers only",
            hint="use a metric of numbers, such as mae, if other numbers are meant",
        )
    return integers
