"""Losses between the values of a student and those of its teacher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from edgekit.training.learning.targets import FeatureTarget, OutputTarget, Targets

_LEAST = 1e-7


def compute_loss(
    targets: Targets,
    values: Mapping[str, Any],
    wanted: Mapping[str, Any],
    maps: Mapping[str, Any],
) -> tuple[Any, Any]:
    """Compute the loss of the outputs and that of the inner values, each a scalar.

    Args:
        targets: values to match.
        values: of the student, by name.
        wanted: of the teacher, by name.
        maps: learned linear maps [student's channels, teacher's], by the student's value.
    """
    values, wanted = _cast_floats(values), _cast_floats(wanted)
    outputs = [
        target.weight * compute_output_loss(target, values[target.name], wanted[target.wanted])
        for target in targets.outputs
    ]
    features = [
        compute_feature_loss(
            target, values[target.name], wanted[target.wanted], maps.get(target.name)
        )
        for target in targets.features
    ]
    of_features = tf.add_n(features) / len(features) if features else tf.constant(0.0)
    return tf.add_n(outputs) if outputs else tf.constant(0.0), of_features


def _cast_floats(values: Mapping[str, Any]) -> dict[str, Any]:
    """Cast floats of half or double precision to float32, in which losses are computed."""
    return {
        name: tf.cast(value, tf.float32) if value.dtype.is_floating else value
        for name, value in values.items()
    }


def compute_agreement(
    targets: Targets, values: Mapping[str, Any], wanted: Mapping[str, Any]
) -> Any:  # noqa: ANN401 - TensorFlow has no types
    """Compute the share of rows of scores whose largest entry is at the same place; 1 if none."""
    shares = [
        tf.reduce_mean(
            tf.cast(
                tf.argmax(values[t.name], axis=-1) == tf.argmax(wanted[t.wanted], axis=-1),
                tf.float32,
            )
        )
        for t in targets.outputs
        if t.kind != "values"
    ]
    return tf.add_n(shares) / len(shares) if shares else tf.constant(1.0)


def compute_output_loss(target: OutputTarget, value: Any, wanted: Any) -> Any:  # noqa: ANN401
    """Compute the mean divergence in nats of two values, or their squared error over the spread.

    Source: Hinton et al., Distilling the Knowledge in a Neural Network, 2015 (temperature 1).

    Args:
        target: the kind of the values.
        value: of the student, float32.
        wanted: of the teacher, in the same shape. Entries that are not finite do not count.
    """
    if target.kind == "values":
        return _compute_relative_error(value, wanted, target.spread)
    if target.kind == "logits":
        before, after = tf.nn.log_softmax(wanted), tf.nn.log_softmax(value)
    else:
        before = tf.math.log(tf.maximum(wanted, _LEAST))
        after = tf.math.log(tf.maximum(value, _LEAST))
    return tf.reduce_mean(tf.reduce_sum(tf.exp(before) * (before - after), axis=-1))


def compute_feature_loss(
    target: FeatureTarget,
    value: Any,  # noqa: ANN401
    wanted: Any,  # noqa: ANN401
    linear_map: Any,  # noqa: ANN401
) -> Any:  # noqa: ANN401
    """Compute the squared error of an inner value over its spread, in the student's channels.

    With a linear map, the mapped value is compared in the teacher's channels.

    Source: Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015.
    """
    if linear_map is not None:
        value = tf.tensordot(value, linear_map, axes=[[target.axis], [0]])
        order = [axis for axis in range(len(value.shape)) if axis != target.axis]
        wanted = tf.transpose(wanted, [*order, target.axis])
    elif target.channels is not None:
        wanted = tf.gather(wanted, np.asarray(target.channels, np.int32), axis=target.axis)
    return _compute_relative_error(value, wanted, target.spread)


def _compute_relative_error(value: Any, wanted: Any, spread: float) -> Any:  # noqa: ANN401
    known = tf.math.is_finite(wanted)
    # Both are replaced: the gradient through an infinite value would not be a number.
    difference = tf.where(known, value, 0.0) - tf.where(known, wanted, 0.0)
    return tf.reduce_mean(tf.square(difference)) / spread
