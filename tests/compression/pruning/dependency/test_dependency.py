"""Dependency groups of any graph, and reasons why channels cannot be removed."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import helper

from edgekit.compression.pruning.dependency import find_channels
from edgekit.compression.pruning.surgery import remove_groups
from edgekit.errors import PassRefused
from edgekit.onnx_graph.rewrites.prepare import prepare
from tests.builders.blocks import images, sequences
from tests.builders.blocks.cuts import found, holds, kinds, reasons, run, shares
from tests.builders.blocks.sketch import Sketch
from tests.builders.tiny import normal, proto

D = sequences.D


def of_one(block, seed, opset=17):
    """A transformer of one block without positions, its mean the output."""
    s = Sketch(seed, opset)
    x = s.add("Gather", s.weight(20, D), s.feed("ids", ["n", "l"], 7))
    s.output(s.mean(block(s, x), 1, 2, keepdims=0), 1)
    return found(s.proto())


@pytest.mark.parametrize("seed", range(8))
def test_attention_has_heads_and_dims_in_whatever_way_it_was_exported(seed):
    channels = of_one(sequences.attention, seed)
    heads = [f for f in channels.families if f.kind == "heads"]
    assert [len(f.groups) for f in heads] == [3]
    places = channels.groups[heads[0].groups[0]].places
    assert {p.role for p in places} >= {"makes", "reads"}
    # What is left is the width of the embedding and the sizes of heads.
    assert {f.kind for f in channels.families} == {"heads", "channels"}
    smaller = holds(channels, heads[0].groups[:2])
    sizes = {tuple(t.dims) for t in smaller.graph.initializer}
    assert (D, 4) in sizes or (D, 12) in sizes
    assert (4, D) in sizes


@pytest.mark.parametrize("block", [sequences.merged, sequences.by_einsum, sequences.one_operator])
def test_heads_are_heads_beside_the_batch_by_letters_and_as_one_operator(block):
    assert ("heads", 3) in [(kind, count) for kind, count, _ in kinds(of_one(block, 3))]


def test_shared_key_heads_are_removed_with_all_their_query_heads():
    channels = of_one(sequences.repeated, 2)
    heads = [f for f in channels.families if f.kind == "heads"]
    assert [(len(f.groups), f.width) for f in heads] == [(2, 8)]


def test_products_have_neurons_and_convolutions_channels():
    s = Sketch()
    x = s.add("Relu", images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, 6))
    y = s.add("Flatten", s.add("GlobalAveragePool", x))
    y = s.add("Relu", s.add("Gemm", y, s.weight(10, 6), s.vector(10), transB=1))
    s.output(s.add("Gemm", y, s.weight(2, 10), transB=1), 2)
    channels = found(s.proto())
    assert kinds(channels) == [("channels", 6, 1), ("neurons", 10, 1)]
    assert list(reasons(channels).values()) == [f"they are tied to the output {s.outputs[0].name}"]


def test_a_place_says_where_a_channel_is_and_which_value_has_it():
    text = """
    net (float[n, 3, 8, 8] x) => (float[n, 2, 8, 8] y)
    {
      a = Conv(x, w, b)
      c = BatchNormalization(a, s, h, m, v)
      d = Relu(c)
      y = Conv(d, u)
    }
    """
    weights = {"w": normal(4, 3, 1, 1), "b": normal(4), "u": normal(2, 4, 1, 1)}
    weights |= {name: normal(4) for name in "shm"} | {"v": np.ones(4, np.float32)}
    channels = found(proto(text, weights=weights))
    places = channels.groups[2].places
    seen = [(p.tensor, p.axis, p.indices.tolist(), p.role, p.value, p.value_axis) for p in places]
    assert seen[0] == ("w", 0, [2], "makes", "a", 1)
    assert seen[-1] == ("u", 1, [2], "reads", "d", 1)
    assert {(tensor, role) for tensor, _, _, role, _, _ in seen[1:-1]} == {
        (name, "along") for name in "bshmv"
    }


def test_groups_of_a_convolution_are_removed_whole_or_channels_in_all_groups():
    s = Sketch()
    x = images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, 12, bias=0)
    y = images.conv(s, s.add("Relu", x), 12, 18, 3, group=3)
    s.output(images.conv(s, y, 18, 2), 4)
    channels = found(s.proto())
    assert sorted(kinds(channels)) == [("channels", 3, 4), ("channels", 4, 3), ("channels", 6, 3)]
    whole = next(f for f in channels.families if len(f.groups) == 3)
    smaller = holds(channels, whole.groups[:1])
    group = next(a.i for a in smaller.graph.node[2].attribute if a.name == "group")
    assert group == 2


def reason_of(block, seed=0, *, width=6, opset=17):
    s = Sketch(seed, opset)
    x = images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, width, bias=1)
    first = s.nodes[-1].name
    s.output(images.conv(s, block(s, x), width, 2), 4)
    return reasons(found(s.proto())).get(first, "")


@pytest.mark.parametrize(
    ("block", "said"),
    [
        (lambda s, x: s.add("Softmax", x, axis=1), "Softmax v1_2_0 computes over this axis"),
        (lambda s, x: s.add("LRN", x, size=3), "depends on the positions of this axis"),
        (lambda s, x: s.add("Sigmoid", x), "maps zeros to other values, which Conv"),
        (lambda s, x: s.add("Softplus", x), "maps zeros to other values, which Conv"),
        (lambda s, x: s.add("Add", x, s.number(1)), "maps zeros to other values, which Conv"),
        (lambda s, x: s.add("CumSum", x, s.constant(np.int64(1))), "computes over this axis"),
        (lambda s, x: s.add("Mul", x, s.mean(x, 1, kind="ReduceMax")), "ReduceMax"),
        (lambda s, x: s.add("GatherElements", x, s.constant(np.zeros((1, 6, 8, 8), np.int64))),
         "pruning does not support GatherElements v1_3"),
        (lambda s, x: s.add("Add", x, s.add("Expand", s.vector(1, 1, 8, 8), s.add("Shape", x))),
         "maps zeros to other values, which Conv"),
    ],
)  # fmt: skip
def test_reasons_why_channels_stay_are_named(block, said):
    assert said.replace("_0", "") in reason_of(block)


def test_constants_that_are_nodes_count_as_stored():
    text = """
    net (float[n, 6] x) => (float[n, 2] y)
    {
      b = Constant <value_floats = [1.0, 2.0, 3.0, 4.0]> ()
      s = Constant <value_ints = [0, 2, 2]> ()
      f = Constant <value_ints = [0, 4]> ()
      a = MatMul(x, w)
      c = Add(a, b)
      d = Reshape(c, s)
      e = Relu(d)
      g = Reshape(e, f)
      y = MatMul(g, v)
    }
    """
    channels = found(proto(text, weights={"w": normal(6, 4), "v": normal(4, 2)}))
    assert kinds(channels) == [("neurons", 2, 2), ("neurons", 2, 2)]
    holds(channels, [0, 2])


def test_values_added_to_an_input_or_an_unknown_operator_keep_their_channels():
    s = Sketch(0)
    x = s.feed("x", ["n", 3, 8, 8])
    y = s.add("Add", images.conv(s, x, 3, 3), x)
    first = s.nodes[0].name
    z = images.conv(s, y, 3, 3)
    second = s.nodes[-1].name
    odd = s.add("RandomNormalLike", x)
    s.output(images.conv(s, s.add("Add", z, odd), 3, 2), 4)
    said = reasons(found(s.proto()))
    assert said[first] == "they are tied to the input x"
    assert said[second] == f"they are tied to the output of RandomNormalLike {odd}"


def test_a_layer_norm_without_scales_keeps_the_channels_it_reads():
    s = Sketch(0)
    x, width = images.bare_norm(s, s.feed("x", ["n", 3, 8, 8]), 3)
    s.output(images.conv(s, x, width, 2), 4)
    assert not found(s.proto()).groups


@pytest.mark.parametrize("op", ["Tanh", "Relu", "Elu", "Selu", "Softsign", "HardSwish", "Erf"])
def test_activations_that_map_zero_to_zero_allow_pruning(op):
    assert reason_of(lambda s, x: s.add(op, x)) == ""


def test_the_state_of_an_lstm_is_kept_and_its_inputs_can_be_pruned():
    s = Sketch(0)
    x = s.add("Gather", s.weight(20, D), s.feed("ids", ["n", "l"], 7))
    s.output(s.mean(sequences.recurrent(s, x), 1, 2, keepdims=0), 1)
    channels = found(s.proto())
    assert ("neurons", 10, 1) in kinds(channels)


def test_channels_inside_if_are_kept():
    s = Sketch(0)
    x = s.add("Gather", s.weight(20, D), s.feed("ids", ["n", "l"], 7))
    s.output(s.mean(sequences.branching(s, x), 1, 2, keepdims=0), 1)
    said = reasons(found(s.proto())).values()
    assert "they are read inside If, Loop or Scan" in said


def test_a_model_with_lengths_as_input_is_traced_with_ones():
    s = Sketch(0)
    x = s.feed("x", ["n", 6])
    count = s.feed("count", [1], 7)
    y = s.add("Relu", s.add("MatMul", x, s.weight(6, 8)))
    y = s.add("Slice", y, s.integers(0), count, s.integers(0))
    s.output(s.mean(s.add("MatMul", y, s.weight(8, 3)), 0, keepdims=0), 1)
    assert kinds(found(s.proto())) == [("neurons", 8, 1)]


def test_sizes_of_real_samples_are_used_if_random_inputs_fail():
    s = Sketch(0)
    x = s.feed("x", ["n", "l"])
    y = s.add("MatMul", s.reshape(x, -1, 5), s.weight(5, 8))
    s.output(s.add("MatMul", s.add("Relu", y), s.weight(8, 3)), 2)
    made = prepare(s.proto(), 13)
    with pytest.raises(PassRefused, match="fails on every random input"):
        find_channels(made, {"x": (1, 33)})
    assert kinds(find_channels(made, {"x": (1, 10)})) == [("neurons", 8, 1)]


def test_a_split_with_computed_sizes_is_followed():
    s = Sketch(0)
    x, width = images.halved(s, s.feed("x", ["n", 3, 8, 8]), 3)
    s.output(images.conv(s, x, width, 2), 4)
    channels = found(s.proto())
    assert kinds(channels) == [("channels", 4, 2)]
    smaller = holds(channels, channels.families[0].groups[:3])
    assert {n.op_type for n in smaller.graph.node} <= {n.op_type for n in s.nodes} | {"Mul", "Div"}


def test_bounds_of_a_slice_may_be_of_32_bits():
    s = Sketch(0)
    x = images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, 8)
    bounds = [s.constant(np.array([n], np.int32)) for n in (0, 5, 1, 1)]
    s.output(images.conv(s, s.add("Slice", x, *bounds), 5, 2), 4)
    channels = found(s.proto())
    holds(channels, [1, 6])


def test_nodes_of_other_domains_are_kept_with_their_name():
    s = Sketch(0)
    x = images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, 6)
    y = s.add("Trilu", x)
    s.nodes.append(helper.make_node("Inverse", [y], ["inv"], "inv", domain="com.microsoft"))
    s.domains["com.microsoft"] = 1
    s.output("inv", 4)
    assert "pruning does not support Inverse inv" in reasons(found(s.proto())).values()


def test_a_pruned_model_can_be_pruned_again():
    for seed in range(4):
        once = of_one(lambda s, x: sequences.attention(s, sequences.layer_norm(s, x)), seed, 18)
        smaller = found(remove_groups(once, shares(once, 0.4)))
        assert {kind for kind, *_ in kinds(smaller)} == {"channels", "heads"}
        holds(smaller, shares(smaller, 0.5))


def test_a_pruned_model_runs_at_unseen_sizes():
    channels = of_one(sequences.merged, 5)
    smaller = remove_groups(channels, shares(channels, 0.5))
    feeds = [{"ids": np.ones(size, np.int64)} for size in ((1, 1), (5, 31))]
    assert [out[0].shape for out in run(smaller, feeds)] == [(1,), (5,)]


@pytest.mark.parametrize("shape", [(1, 8, 1, 1), (1, -1, 1, 1)])
def test_a_stored_vector_that_is_reshaped_before_it_is_added_goes_with_the_channels(shape):
    s = Sketch()
    x = s.add("Relu", images.conv(s, s.feed("x", ["n", 3, 8, 8]), 3, 8))
    x = s.add("Relu", s.add("Add", x, s.add("Reshape", s.vector(8), s.integers(*shape))))
    y = s.add("Flatten", s.add("GlobalAveragePool", x))
    s.output(s.add("Gemm", y, s.weight(2, 8), transB=1), 2)
    channels = found(s.proto())

    smaller = holds(channels, channels.families[0].groups[:2])

    assert (6,) in {tuple(t.dims) for t in smaller.graph.initializer}
