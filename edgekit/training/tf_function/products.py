"""Matrix products: FULLY_CONNECTED and BATCH_MATMUL."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from edgekit.tflite.ir import Op


def _fully_connected(op: Op, args: list[Any]) -> Any:  # noqa: ANN401 - TensorFlow has no types
    value, weight, bias = (*args, None)[:3]
    rows = tf.reshape(value, (-1, weight.shape[1]))
    product = tf.matmul(rows, weight, transpose_b=True)
    product = product if bias is None else product + bias
    return tf.reshape(product, op.outputs[0].shape)


def _batch_matmul(op: Op, args: list[Any]) -> Any:  # noqa: ANN401
    return tf.matmul(
        *args,
        transpose_a=op.options.get("adj_x", False),
        transpose_b=op.options.get("adj_y", False),
    )


TABLE: dict[str, Callable[[Op, list[Any]], Any]] = {
    "BATCH_MATMUL": _batch_matmul,
    "FULLY_CONNECTED": _fully_connected,
}
