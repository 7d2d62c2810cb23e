"""Weights are written to a file and restored unchanged."""

from __future__ import annotations

import numpy as np

from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.runs.weight_offload import copy_without_weights, offload, restore_weights
from tests.builders.tiny import normal, proto

TEXT = "g (float[N,32] x) => (float[N,32] y) { h = MatMul(x, w) y = Add(h, b) }"
WEIGHTS = {"w": normal(32, 32), "b": normal(32)}


def lean_of(folder):
    made = proto(TEXT, weights=WEIGHTS)
    lean = copy_without_weights(made)
    offload(made, lean, folder)
    return made, lean


def test_a_model_without_its_weights_is_small_and_they_can_still_be_read(tmp_path):
    made, lean = lean_of(tmp_path)

    assert lean.ByteSize() < made.ByteSize() / 5
    index = GraphIndex(lean, tmp_path)
    for name, weight in WEIGHTS.items():
        np.testing.assert_array_equal(index.float_constant(name), weight)


def test_weights_come_back_to_the_byte_and_the_file_goes(tmp_path):
    made, lean = lean_of(tmp_path)

    restore_weights(lean, tmp_path)

    stored = {t.name: t.raw_data for t in lean.graph.initializer}
    assert stored == {t.name: t.raw_data for t in made.graph.initializer}
    assert not list(tmp_path.iterdir())
