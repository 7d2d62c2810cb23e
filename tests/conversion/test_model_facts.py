"""An .onnx file and its .tflite file have the same facts."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.conversion.model_facts import (
    compute_cost,
    list_carried_states,
    list_operators_to_build_in,
    load_graph,
    read_storage_stats,
)
from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.conversion.open_model import read_model
from edgekit.onnx_graph.io import load
from tests.builders.tiny import model, normal, run, write

pytest.importorskip("ai_edge_litert")

TEXT = "g (float[1,8] x) => (float[1,4] y) { h = MatMul(x, w)  y = Relu(h) }"


@pytest.fixture
def both(tmp_path):
    source = model(tmp_path, TEXT, weights={"w": normal(8, 4)})
    made = tmp_path / "made.tflite"
    made.write_bytes(convert_to_tflite(load(source.path), {}))
    return source, read_model(made)


def test_both_files_cost_the_same(both):
    old, new = (compute_cost(each, {}) for each in both)

    assert (old.macs, old.parameters, old.weight_bytes) == (32, 32, 128)
    assert (new.macs, new.weight_bytes) == (old.macs, old.weight_bytes)
    assert (old.opset, new.opset) == (17, None)


def test_both_files_store_the_same_floats(both):
    old, new = (read_storage_stats(each.path) for each in both)

    assert old.weight_bytes == new.weight_bytes == 128
    assert old.file_bytes != new.file_bytes


def test_a_tflite_file_loads_as_a_graph_that_computes_the_same(both, tmp_path):
    x = np.random.default_rng(0).normal(size=(1, 8)).astype(np.float32)

    old, new = (run(write(tmp_path, load_graph(each)), x=x) for each in both)

    np.testing.assert_allclose(old, new, rtol=1e-5)


def test_neither_file_has_states_or_custom_operators(both):
    assert [tuple(list_carried_states(each)) for each in both] == [(), ()]
    assert [list_operators_to_build_in(each) for each in both] == [(), ()]
