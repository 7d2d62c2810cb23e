"""A compacted graph has the same outputs and fewer bytes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.onnx_graph.io import open_session
from edgekit.onnx_graph.rewrites.minify import compact
from tests.builders.tiny import apply, model, normal, proto, run, samples, uniform, write

UNARY = [
    "Relu",
    "Neg",
    "Abs",
    "Identity",
    "Sigmoid",
    "Softmax<axis = -1>",
    "LeakyRelu<alpha = 0.01>",
]
BINARY = ["Add", "Sub", "Mul", "Max"]


@st.composite
def graphs(draw):
    """Small graphs of 4x4 values with constants, several outputs, some of them read inside."""
    values, lines = ["x_in", "other.input", "big_constant"], []
    for number in range(draw(st.integers(1, 8))):
        made = f"layer/{number}/out"
        pick = st.sampled_from(values)
        if draw(st.booleans()):
            op, inputs = draw(st.sampled_from(UNARY)), [draw(pick)]
        else:
            op, inputs = draw(st.sampled_from(BINARY)), [draw(pick), draw(pick)]
        name, _, attributes = op.partition("<")
        attributes = f"<{attributes}" if attributes else ""
        quoted = ", ".join(f'"{i}"' for i in inputs)
        lines.append(f'"{made}" = {name}{attributes}({quoted})')
        values.append(made)
    outputs = draw(st.lists(st.sampled_from(values[3:]), min_size=1, unique=True))
    typed = ", ".join(f'float[4,4] "{o}"' for o in outputs)
    return f'g (float[4,4] x_in, float[4,4] "other.input") => ({typed}) {{ {" ".join(lines)} }}'


@given(graphs(), st.integers(0, 1000))
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_compacting_or_cleaning_any_small_graph_never_changes_an_output(tmp_path, text, seed):
    source = model(tmp_path, text, weights={"big_constant": normal(4, 4, seed=seed)})
    feeds = {"x_in": normal(4, 4, seed=seed + 1), "other.input": normal(4, 4, seed=seed + 2)}
    expected = open_session(source.path).run(None, feeds)

    shortened = onnx.load(str(source.path))
    compact(shortened)
    made = write(tmp_path, shortened)
    cleaned = apply("clean", source, tmp_path)

    assert made.signature == source.signature
    for before, after in zip(expected, open_session(made.path).run(None, feeds), strict=True):
        np.testing.assert_array_equal(after, before)
    for before, after in zip(expected, open_session(cleaned.path).run(None, feeds), strict=True):
        np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)


def test_names_and_comments_of_exporters_are_gone_and_the_users_metadata_stays(tmp_path):
    made = proto(
        "g (float[N,3] x) => (float[N,3] y) { long_value_name = Relu(x) y = Neg(long_value_name) }"
    )
    made.graph.node[0].metadata_props.add(key="stack_trace", value="File model.py" * 1000)
    made.graph.node[0].name = "/encoder/layer.0/relu" * 20
    made.graph.doc_string = made.graph.node[1].doc_string = "comment " * 200
    made.metadata_props.add(key="labels", value="cat,dog")

    compact(made)

    assert made.ByteSize() < 300
    assert [(p.key, p.value) for p in made.metadata_props] == [("labels", "cat,dog")]
    assert write(tmp_path, made).signature.inputs[0].name == "x"


def test_nodes_of_some_operators_keep_a_name_that_the_user_knows(tmp_path):
    made = proto(
        "g (float[N,3] x) => (float[N,3] y) "
        "{ first_product = MatMul(x, a) r = Relu(first_product) y = MatMul(r, a) }",
        weights={"a": normal(3, 3)},
    )
    made.graph.node[1].name, made.graph.node[2].name = "/relu", "/head/MatMul"

    compact(made, named={"MatMul"})

    assert [node.name for node in made.graph.node] == ["first_product", "", "/head/MatMul"]
    assert run(write(tmp_path, made), x=uniform(2, 3))[0].shape == (2, 3)


def test_attributes_that_are_the_default_are_dropped_and_others_stay(tmp_path):
    text = (
        "g (float[N,3,8,8] x) => (float[N,4,3,3] y) { "
        "c = Conv<group = 1, strides = [2,2], dilations = [1,1], pads = [0,0,0,0]>(x, w) "
        "y = LeakyRelu<alpha = 0.2>(c) }"
    )
    made = proto(text, weights={"w": normal(4, 3, 3, 3)})
    before = run(write(tmp_path, made), x=uniform(2, 3, 8, 8))

    compact(made)

    kept = {a.name for node in made.graph.node for a in node.attribute}
    assert kept == {"strides", "alpha"}
    np.testing.assert_array_equal(run(write(tmp_path, made), x=uniform(2, 3, 8, 8)), before)


def test_values_that_an_inner_graph_reads_are_still_found_there(tmp_path):
    text = (
        "g (float[2,3] x, bool[1] which) => (float[2,3] y) { "
        "outer_value = Mul(x, factor_constant) cond = Squeeze(which) "
        "y = If(cond)"
        "<then_branch = t () => (float[2,3] p) { p = Add(outer_value, factor_constant) }, "
        "else_branch = e () => (float[2,3] q) { a = Neg(outer_value) q = Sub(a, x) }> }"
    )
    made = proto(text, weights={"factor_constant": normal(2, 3)})
    source = write(tmp_path, made)
    compact(made)
    small = write(tmp_path, made)

    for which in (True, False):
        feeds = {"x": uniform(2, 3), "which": np.array([which])}
        np.testing.assert_array_equal(run(small, **feeds), run(source, **feeds))


def test_a_graph_with_more_values_than_letters_keeps_them_apart(tmp_path):
    lines = ["v0 = Add(x, one)"] + [f"v{i} = Add(v{i - 1}, one)" for i in range(1, 150)]
    text = f"g (float[3] x) => (float[3] y) {{ {' '.join(lines)} y = Sub(v149, v75) }}"
    made = proto(text, weights={"one": np.ones(3, np.float32)})

    compact(made)

    np.testing.assert_allclose(run(write(tmp_path, made), x=uniform(3))[0], [74] * 3, atol=1e-4)


@pytest.mark.parametrize("letter", ["a", "b", "w"])
def test_inputs_and_outputs_with_short_names_of_their_own_are_not_taken(tmp_path, letter):
    text = "g (float[3] L) => (float[3] c) { t = Neg(L) u = Abs(t) c = Add(u, L) }"
    made = proto(text.replace("L", letter))
    compact(made)

    result = run(write(tmp_path, made), **{letter: np.array([-2, 0, 3], np.float32)})

    np.testing.assert_array_equal(result[0], [0, 0, 6])


def test_a_clean_model_can_be_cleaned_again(tmp_path):
    source = model(
        tmp_path,
        "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w) y = Relu(c) }",
        weights={"w": normal(4, 3, 3, 3)},
    )
    data = samples(tmp_path, x=uniform(4, 3, 8, 8))
    once = apply("clean", source, tmp_path, data)
    twice = apply("clean", once, tmp_path, data)

    assert twice.digest == once.digest
