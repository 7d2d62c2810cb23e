"""Time of one training step (forward and backward, batch 32) on models of a zoo in TensorFlow.

    python -m benchmarks.learning.step_time ZOO [--steps 20]

Prints the median over the steps of ic-resnet8 (32x32 images) and text-minilm-agnews (64 tokens),
and the time of the first step, in which TensorFlow prepares the graph.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf

from edgekit.training.tf_function.onnx_function import GraphFunction

BATCH, TOKENS = 32, 64


def images(rng: np.random.Generator) -> dict[str, Any]:
    """Make a batch of random images."""
    return {"input": rng.uniform(0, 255, (BATCH, 32, 32, 3)).astype(np.float32)}


def texts(rng: np.random.Generator) -> dict[str, Any]:
    """Make a batch of random tokens."""
    ids = rng.integers(0, 10_000, (BATCH, TOKENS))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


MODELS: dict[str, Callable[[np.random.Generator], dict[str, Any]]] = {
    "ic-resnet8": images,
    "text-minilm-agnews": texts,
}


def times_ms(path: Path, feeds: dict[str, Any], steps: int) -> list[float]:
    """Measure the time of each step in ms; the loss is the mean square of the outputs."""
    graph = GraphFunction(onnx.load(path))
    variables = list(graph.variables_by_name.values())
    tensors = {name: tf.constant(value) for name, value in feeds.items()}

    @tf.function  # type: ignore[untyped-decorator]
    def step() -> Any:  # noqa: ANN401 - TensorFlow has no types
        with tf.GradientTape() as tape:
            loss = tf.add_n([tf.reduce_mean(tf.square(v)) for v in graph(tensors).values()])
        for variable, slope in zip(variables, tape.gradient(loss, variables), strict=True):
            if slope is not None:
                variable.assign_sub(1e-6 * slope)
        return loss

    found = []
    for _ in range(steps + 1):
        start = time.perf_counter()
        step().numpy()
        found.append(1000 * (time.perf_counter() - start))
    return found


def main() -> None:
    """Time all models and print the results."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("zoo", type=Path)
    parser.add_argument("--steps", type=int, default=20)
    given = parser.parse_args()
    for name, make in MODELS.items():
        first, *rest = times_ms(
            given.zoo / name / "model.onnx", make(np.random.default_rng(0)), given.steps
        )
        print(f"{name}: {statistics.median(rest):.0f} ms a step, {first / 1000:.1f} s the first")


if __name__ == "__main__":
    main()
