"""Producers and readers of values, including inner graphs."""

from __future__ import annotations

import numpy as np

from edgekit.onnx_graph.graph_index import GraphIndex
from tests.builders.tiny import normal, proto, run, write

WITH_IF = (
    "g (float[2,3] x, bool k) => (float[2,3] y) { h = Mul(x, used) r = Relu(h) y = If(k)"
    "<then_branch = t () => (float[2,3] p) { p = Add(h, inside) }, "
    "else_branch = e () => (float[2,3] q) { q = Identity(r) }> }"
)
WEIGHTS = {"used": normal(2, 3), "inside": normal(2, 3), "unread": normal(2, 3)}


def test_a_value_that_an_inner_graph_reads_has_more_than_one_reader():
    index = GraphIndex(proto(WITH_IF, weights=WEIGHTS))

    assert index.only_reader("h") is None
    assert index.only_reader("used").op_type == "Mul"


def test_an_output_of_the_graph_has_a_reader_outside():
    index = GraphIndex(
        proto("g (float[2] x) => (float[2] h, float[2] y) { h = Neg(x) y = Abs(h) }")
    )

    assert index.only_reader("h") is None


def test_unread_constants_are_removed_except_those_of_inner_graphs_and_outputs(tmp_path):
    made = proto(WITH_IF, weights=WEIGHTS)
    made.graph.output.append(made.graph.output[0])
    made.graph.output[1].name = "as_it_is"
    made.graph.initializer.add().CopyFrom(made.graph.initializer[0])
    made.graph.initializer[-1].name = "as_it_is"

    GraphIndex(made).drop_unread_constants()

    assert {t.name for t in made.graph.initializer} == {"used", "inside", "as_it_is"}
    feeds = {"x": normal(2, 3, seed=4), "k": np.array(True)}
    np.testing.assert_array_equal(run(write(tmp_path, made), **feeds)[1], WEIGHTS["used"])


def test_fresh_names_are_new_to_inner_graphs_too():
    index = GraphIndex(proto(WITH_IF, weights=WEIGHTS))
    names = [index.fresh(stem) for stem in ("p", "q", "h", "x", "inside", "new", "new")]

    assert len(set(names)) == len(names)
    assert not set(names) & {"p", "q", "h", "x", "inside"}
