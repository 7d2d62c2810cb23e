"""Names that onnxruntime adds to a graph are unique in the whole model."""

from __future__ import annotations

from collections import Counter

import numpy as np
import onnx
import pytest

from edgekit.onnx_graph.io import iter_graphs, read_onnx
from edgekit.onnx_graph.rewrites.ort_simplification import rewrite_basic
from tests.builders.tiny import model, normal, run, uniform, write

# Products of rank 3 with a bias, which become Gemm between two Reshape.
LAYER = "{out}m = MatMul({x}, w) {out} = Add({out}m, b)"
BRANCHES = (
    "g (float[1,5,8] x, bool c) => (float[1,5,8] y) { "
    + LAYER.format(out="h", x="x")
    + " i = If(c)<then_branch = t () => (float[1,5,8] p) { "
    + LAYER.format(out="p", x="h")
    + " }, else_branch = e () => (float[1,5,8] q) { "
    + LAYER.format(out="q", x="h")
    + " }> "
    + LAYER.format(out="y", x="i")
    + " }"
)
CHAIN = (
    "g (float[1,5,8] x) => (float[1,5,8] y) { "
    + LAYER.format(out="h", x="x")
    + " r = Relu(h) s = MatMul(r, v) y = Add(s, b) }"
)
WEIGHTS = {"w": normal(8, 8), "b": normal(8)}


def names_given(proto):
    for graph in iter_graphs(proto.graph):
        yield from (tensor.name for tensor in graph.initializer)
        yield from (name for node in graph.node for name in node.output)


def test_no_name_is_given_twice_in_a_graph_and_its_branches(tmp_path):
    source = model(tmp_path, BRANCHES, weights=WEIGHTS)

    made = rewrite_basic(source, tmp_path)

    assert "Gemm" in {node.op_type for graph in iter_graphs(made.graph) for node in graph.node}
    assert [n for n, count in Counter(names_given(made)).items() if count > 1] == []
    onnx.checker.check_model(made, full_check=True)
    for which in (True, False):
        feed = {"x": uniform(1, 5, 8), "c": np.array(which)}
        np.testing.assert_allclose(
            run(write(tmp_path, made), **feed)[0], run(source, **feed)[0], rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("rounds", [2, 3])
def test_a_graph_that_was_rewritten_can_be_rewritten_again(tmp_path, rounds):
    source = model(tmp_path, CHAIN, weights=WEIGHTS | {"v": normal(1, 8, 8, seed=1)})
    made = source
    for number in range(rounds):
        proto = rewrite_basic(made, tmp_path)
        # A weight of one in front that loses that axis makes room for another rewrite.
        for tensor in proto.graph.initializer:
            if tensor.name == "v" and number == 0:
                del tensor.dims[0]
        made = write(tmp_path, proto)

    x = uniform(1, 5, 8)
    np.testing.assert_allclose(run(made, x=x)[0], run(source, x=x)[0], rtol=1e-5, atol=1e-5)
    assert read_onnx(made.path).signature == source.signature
