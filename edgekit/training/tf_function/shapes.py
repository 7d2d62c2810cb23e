"""Operators that reshape, move, slice, join, split, repeat or fill tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _reshape(op: Op, args: list[Any]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    fixed = op.outputs[0].shape
    return tf.reshape(args[0], args[1] if -1 in fixed and len(args) > 1 else fixed)


def _strided_slice(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    masks = {
        name: op.options.get(name, 0)
        for name in ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask")
    }
    return tf.strided_slice(*args, **masks)


def _split(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    axis, value = args
    return tf.split(value, len(op.outputs), axis=int(axis.ravel()[0]))


def _split_v(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    value, sizes, axis = args
    return tf.split(value, sizes, axis=int(axis.ravel()[0]))


def _pad(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    del op
    value, pads, *fill = args
    return tf.pad(value, pads, constant_values=fill[0] if fill else 0)


def _reverse_sequence(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.reverse_sequence(
        *args, seq_axis=op.options.get("seq_dim", 0), batch_axis=op.options.get("batch_dim", 0)
    )


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "BATCH_TO_SPACE_ND": lambda op, args: tf.batch_to_space(*args),
    "BROADCAST_TO": lambda op, args: tf.broadcast_to(*args),
    "CONCATENATION": lambda op, args: tf.concat(args, op.options.get("axis", 0)),
    "DEPTH_TO_SPACE": lambda op, args: tf.nn.depth_to_space(args[0], op.options["block_size"]),
    "EXPAND_DIMS": _reshape,
    "FILL": lambda op, args: tf.fill(*args),
    "MIRROR_PAD": lambda op, args: tf.pad(*args, mode=op.options.get("mode", "REFLECT")),
    "PACK": lambda op, args: tf.stack(args, op.options.get("axis", 0)),
    "PAD": _pad,
    "PADV2": _pad,
    "RANGE": lambda op, args: tf.range(*args),
    "RESHAPE": _reshape,
    "REVERSE_SEQUENCE": _reverse_sequence,
    "REVERSE_V2": lambda op, args: tf.reverse(*args),
    "SHAPE": lambda op, args: tf.shape(args[0], out_type=op.outputs[0].dtype),
    "SLICE": lambda op, args: tf.slice(*args),
    "SPACE_TO_BATCH_ND": lambda op, args: tf.space_to_batch(*args),
    "SPACE_TO_DEPTH": lambda op, args: tf.nn.space_to_depth(args[0], op.options["block_size"]),
    "SPLIT": _split,
    "SPLIT_V": _split_v,
    "SQUEEZE": _reshape,
    "STRIDED_SLICE": _strided_slice,
    "TILE": lambda op, args: tf.tile(*args),
    "TRANSPOSE": lambda op, args: tf.transpose(*args),
    "UNPACK": lambda op, args: tf.unstack(args[0], axis=op.options.get("axis", 0)),
}
