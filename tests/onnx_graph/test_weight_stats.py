"""Stored bytes are counted by type and by reader, and invalid values are named."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.onnx_graph.weight_stats import count_packed_bytes, read_storage_stats
from tests.builders.tiny import normal, proto, write

NET = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Add(h, b) }"


def count(folder, text=NET, **weights):
    return read_storage_stats(write(folder, proto(text, weights=weights)).path)


def test_bytes_are_counted_by_type_and_weights_apart_from_biases(tmp_path):
    found = count(tmp_path, w=normal(6, 4), b=normal(4))

    assert found.bytes_of == {"float32": 112}
    assert (found.weight_bytes, found.shared_bytes, found.nodes) == (96, 0, 2)
    assert found.file_bytes > 112
    assert (found.nan, found.infinite) == (None, None)


def test_a_weight_in_a_constant_node_is_one(tmp_path):
    text = (
        "g (float[N,2] x) => (float[N,2] y) "
        "{ w = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>() y = MatMul(x, w) }"
    )
    assert count(tmp_path, text).weight_bytes == 16


@pytest.mark.parametrize(
    "text",
    [
        "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) k = MatMul(x, w) y = Add(h, k) }",
        "g (float[N,6] x) => (float[6,4] w, float[N,4] y) { y = MatMul(x, w) }",
    ],
)
def test_a_weight_with_another_reader_is_shared(tmp_path, text):
    found = count(tmp_path, text, w=normal(6, 4))

    assert (found.weight_bytes, found.shared_bytes) == (0, 96)


def test_weights_inside_branches_count_like_those_of_the_graph(tmp_path):
    text = (
        "g (float[N,2] x, bool c) => (float[N,2] y) { y = If(c)<"
        "then_branch = t () => (float[N,2] p) "
        "{ v = Constant<value = float[2,2] {1.0, 2.0, 3.0, 4.0}>() p = MatMul(x, v) }, "
        "else_branch = e () => (float[N,2] q) { q = MatMul(x, w) }> }"
    )
    found = count(tmp_path, text, w=normal(2, 2))

    assert (found.weight_bytes, found.shared_bytes) == (16, 16)


@pytest.mark.parametrize(
    ("value", "seen"),
    [(np.nan, ("b", None)), (np.inf, (None, "b")), (-np.inf, (None, "b"))],
)
def test_a_nan_is_named_with_its_tensor(tmp_path, value, seen):
    found = count(tmp_path, w=normal(6, 4), b=np.array([1, value, 2, 3], np.float32))

    assert (found.nan, found.infinite) == seen


@pytest.mark.parametrize(
    ("body", "halves"),
    [
        ("y = MatMul(x, w)", True),
        ("f = Cast<to = 1>(x) v = Cast<to = 1>(w) h = MatMul(f, v) y = Cast<to = 10>(h)", False),
    ],
)
def test_a_graph_that_casts_float16_before_it_computes_does_not_compute_in_it(
    tmp_path, body, halves
):
    text = f"g (float16[N,6] x) => (float16[N,4] y) {{ {body} }}"
    found = count(tmp_path, text, w=normal(6, 4).astype(np.float16))

    assert found.computes_in_half is halves


def test_four_bit_entries_count_as_half_a_byte_however_a_file_holds_them():
    tensor = helper.make_tensor("w", TensorProto.INT4, [3, 3], [1] * 9)

    assert count_packed_bytes(tensor) == 5
    assert count_packed_bytes(numpy_helper.from_array(np.zeros((3, 3), np.int32))) == 36
