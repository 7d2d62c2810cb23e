"""The cost of a graph is counted where shapes are known, and reported as unknown elsewhere."""

from __future__ import annotations

from edgekit.onnx_graph.cost import compute_cost
from tests.builders.tiny import normal, proto

CONV = "g (float[N,1,L] x) => (float[N,4,M] y) { h = Conv<strides = [2]>(x, w) y = Abs(h) }"


def test_the_cost_of_a_window_larger_than_its_input_is_unknown():
    made = proto(CONV, weights={"w": normal(4, 1, 16)})

    found = compute_cost(made, {})

    assert (found.macs, len(found.unknown), found.peak_activation_bytes) == (0, 1, None)


def test_the_same_window_is_counted_once_it_fits():
    made = proto(CONV, weights={"w": normal(4, 1, 16)})

    found = compute_cost(made, {"L": 32})

    assert (found.macs, found.unknown) == (4 * 9 * 16, ())
