"""Operators of older opsets, with settings as attributes."""

import numpy as np
import pytest

from tests.builders.both_runtimes import agree, noise
from tests.builders.tiny import proto

WRITTEN = {
    "slices by attributes": (9, "y = Slice<starts = [1, -3], ends = [4, 9], axes = [0, 1]>(x)"),
    "slices with steps": (10, "y = Slice(x, b, e, a, t)"),
    "pads by attributes": (9, 'y = Pad<mode = "edge", pads = [1, 2, 0, 1], value = 3.0>(x)'),
    "pads with a value": (9, "y = Pad<pads = [1, 2, -1, 1], value = 3.0>(x)"),
    "reflected pads": (11, 'y = Pad<mode = "reflect">(x, p)'),
    "pads of some axes": (18, "y = Pad(x, q, , r)"),
    "wrapped pads": (19, 'y = Pad<mode = "wrap">(x, p)'),
    "parts by attributes": (11, "y, z = Split<axis = 1, split = [2, 4]>(x)"),
    "equal parts": (11, "y, z = Split<axis = 1>(x)"),
    "parts by number": (18, "y, z = Split<axis = 1, num_outputs = 2>(x)"),
    "axes by attributes": (11, "h = Unsqueeze<axes = [0, 2]>(x) y = Squeeze<axes = [0]>(h)"),
    "the best by attribute": (9, "y, z = TopK<k = 2>(x)"),
    "the worst": (11, "y, z = TopK<largest = 0, axis = 0>(x, k)"),
    "flattened from the end": (11, "y = Flatten<axis = -1>(x)"),
    "scattered": (9, "y = Scatter<axis = 1>(x, g, g2)"),
    "reshaped by zero and the rest": (13, "y = Reshape(x, s)"),
    "joined": (11, "y = Concat<axis = -1>(x, x)"),
    "repeated": (13, "y = Tile(x, n)"),
    "cumulated": (14, "y = CumSum<reverse = 1, exclusive = 1>(x, axis)"),
    "the last of the largest": (12, "y = ArgMax<axis = 1, select_last_index = 1>(x)"),
    "whole numbers one hot": (11, "h = ArgMin<axis = 1, keepdims = 0>(x) y = OneHot(h, d, v)"),
    "a triangle": (14, "y = Trilu<upper = 0>(x, one)"),
    "gathered elements": (13, "y = GatherElements<axis = 1>(x, i)"),
    "gathered tuples": (13, "y = GatherND(x, i)"),
    "added at places": (16, 'y = ScatterND<reduction = "add">(x, j, u)'),
    "largest at places": (18, 'y = ScatterND<reduction = "max">(x, j, u)'),
    "not zero": (13, "y = NonZero(x)"),
    "compressed": (11, "y = Compress<axis = 1>(x, c)"),
}
WEIGHTS = {
    "b": np.array([3, 5]), "e": np.array([-9, 0]), "a": np.array([0, 1]), "t": np.array([-1, -2]),
    "p": np.array([1, 2, 0, 1]), "q": np.array([2, 1]), "r": np.array([1]), "k": np.array([2]),
    "i": np.array([[0, -1], [1, 2], [2, 0], [-4, 3]]), "s": np.array([0, 2, -1]),
    "n": np.array([2, 3]), "axis": np.array(1), "d": np.array(6), "one": np.array(1),
    "v": np.float32([-1, 2]), "j": np.array([[1], [1], [-1]]), "u": noise(3, 6, seed=7),
    "g": np.array([[0, 1], [2, 5], [4, 3]]), "g2": noise(3, 2),
    "c": np.array([True, False, True, True, False, False]),
}  # fmt: skip


@pytest.mark.parametrize("name", WRITTEN)
def test_operators_of_older_opsets_are_converted(name):
    opset, text = WRITTEN[name]
    outputs = "y, z" if "y, z" in text else "y"
    read = text.replace("(", " ").replace(")", " ").replace(",", " ").split()
    weights = {key: value for key, value in WEIGHTS.items() if key in read}
    made = proto(
        f"agraph (float[4, 6] x) => ({outputs}) {{ {text} }}", weights=weights, opset=opset
    )
    agree(made, x=noise(4, 6))


def test_indices_that_are_fed_may_count_from_the_end():
    text = "agraph (float[4, 6] x, int64[3] i) => (y) { y = Gather<axis = 1>(x, i) }"
    agree(proto(text), x=noise(4, 6), i=np.array([5, -1, -6]))


def test_boxes_that_overlap_better_ones_are_left_out():
    text = """agraph (float[1, 6, 4] b, float[1, 2, 6] s) => (int64[K, 3] y) {
        y = NonMaxSuppression(b, s, m, o, f) }"""
    weights = {"m": np.array([3]), "o": np.float32([0.5]), "f": np.float32([0.1])}
    corners = np.random.default_rng(0).uniform(0, 1, (1, 6, 2)).astype(np.float32)
    boxes = np.concatenate([corners, corners + np.float32(0.6)], 2)
    agree(proto(text, weights=weights), b=boxes, s=np.abs(noise(1, 2, 6)))
