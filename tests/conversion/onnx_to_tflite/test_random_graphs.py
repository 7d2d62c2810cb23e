"""Random float and QDQ graphs are converted, and back again."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.tflite.flatbuffer import read_lite
from tests.builders.both_runtimes import in_litert
from tests.builders.qdq_graphs import by_onnxruntime
from tests.builders.random.graphs import draft
from tests.builders.random.qdq_graphs import quantize

SEEDS = [range(first, first + 25) for first in range(0, 150, 25)]
# What rounding on the way may move in graphs as deep as these: a part of the largest value.
ROUNDED = 0.06


def fed(proto, drawn):
    return {v.name: drawn.arrays[v.name] for v in proto.graph.input}


def close(proto, made, expected, part=1e-4):
    for value, got, want in zip(proto.graph.output, made, expected, strict=True):
        assert (got.shape, got.dtype) == (want.shape, want.dtype), value.name
        bound = 1e-5 + part * np.abs(want, dtype=np.float64).max(initial=0)
        np.testing.assert_allclose(got, want, rtol=0, atol=bound, err_msg=value.name)


@pytest.mark.parametrize("seeds", SEEDS, ids=str)
def test_a_random_graph_gives_the_same_in_litert(seeds):
    for seed in seeds:
        drawn = draft(seed)
        proto = drawn.finished()
        feeds = fed(proto, drawn)
        close(proto, in_litert(proto, **feeds), by_onnxruntime(proto, feeds))


@pytest.mark.parametrize("seeds", SEEDS[:4], ids=str)
def test_a_random_qdq_graph_gives_the_same_but_for_rounding(seeds):
    for seed in seeds:
        drawn = draft(seed)
        proto, _ = quantize(drawn)
        feeds = fed(proto, drawn)
        close(proto, in_litert(proto, **feeds), by_onnxruntime(proto, feeds), ROUNDED)


@pytest.mark.parametrize("seeds", SEEDS[:3], ids=str)
def test_a_random_graph_is_restored_by_the_conversion_back(seeds):
    for seed in seeds:
        drawn = draft(seed)
        proto = drawn.finished()
        feeds = fed(proto, drawn)
        back = convert_to_onnx(read_lite(convert_to_tflite(proto, {})))
        made = by_onnxruntime(back, feeds)
        names = [value.name for value in back.graph.output]
        ordered = [made[names.index(value.name)] for value in proto.graph.output]
        close(proto, ordered, by_onnxruntime(proto, feeds))
