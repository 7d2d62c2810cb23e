"""Removing channels that are zero does not change the outputs, in any structure."""

from __future__ import annotations

import time

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.compression.pruning.surgery import (
    count_remaining_macs,
    remove_groups,
    select_removable,
)
from edgekit.onnx_graph.io import load
from tests.builders.blocks import images, sequences
from tests.builders.blocks.cuts import found, holds, kinds, run, shares
from tests.builders.blocks.structures import image_net, transformer
from tests.builders.random.graphs import draft
from tests.builders.tiny import normal, proto

SEEDS = st.integers(0, 2**32 - 1)
OPSETS = st.sampled_from([17, 18, 21, 23])
quietly = settings(max_examples=14, deadline=None, derandomize=True, database=None)


def some(blocks):
    return st.lists(st.sampled_from(blocks), min_size=1, max_size=3)


@quietly
@given(SEEDS, some(images.BLOCKS), OPSETS, st.booleans())
def test_removing_zero_channels_of_an_image_network_changes_nothing(seed, blocks, opset, free):
    channels = found(image_net(seed, blocks, opset=opset, free=free))
    holds(channels, shares(channels, 0.6, seed))


@quietly
@given(SEEDS, some(sequences.BLOCKS), OPSETS, st.booleans())
def test_removing_zero_heads_and_neurons_of_a_transformer_changes_nothing(
    seed, blocks, opset, free
):
    channels = found(transformer(seed, blocks, opset=opset, free=free))
    holds(channels, shares(channels, 0.6, seed))


STRUCTURES = [*images.BLOCKS, *dict.fromkeys(sequences.BLOCKS)]


@pytest.mark.parametrize("block", STRUCTURES, ids=lambda block: block.__name__)
def test_nearly_all_of_each_structure_can_be_removed(block):
    if block in images.BLOCKS:
        channels = found(image_net(8, [images.plain, block], opset=21))
    else:
        channels = found(transformer(8, [sequences.feed_forward, block], opset=21))
    gone = shares(channels, 1.0)
    assert gone
    holds(channels, gone)
    assert count_remaining_macs(channels, gone) < count_remaining_macs(channels)


@pytest.mark.parametrize("seeds", [range(first, first + 12) for first in (0, 12)], ids=str)
def test_removing_zero_channels_of_a_random_graph_changes_nothing(seeds):
    for seed in seeds:
        channels = found(draft(seed, most=24).finished())
        holds(channels, shares(channels, 0.5, seed))


@pytest.mark.zoo
def test_removing_zero_channels_of_real_models_changes_nothing(zoo):
    for path in sorted(zoo.glob("*/model.onnx")):
        channels = found(load(path))
        assert channels.families, path
        gone = shares(channels, 0.4)
        smaller = holds(channels, gone, sizes=((1, 9),), counts=False)
        assert smaller.ByteSize() < 0.8 * channels.proto.ByteSize()


MLP = """
mlp (float[n, 6] x) => (float[n, 3] y)
{
  a = MatMul(x, w)
  b = Relu(a)
  y = MatMul(b, v)
}
"""


def mlp():
    return found(proto(MLP, weights={"w": normal(6, 8), "v": normal(8, 3, seed=1)}))


def test_a_removal_does_not_change_the_given_model():
    channels = mlp()
    before = channels.proto.SerializeToString()
    assert remove_groups(channels, []).SerializeToString() == before
    assert {t.name: list(t.dims) for t in remove_groups(channels, [0, 5]).graph.initializer} == {
        "w": [6, 6],
        "v": [6, 3],
    }
    assert channels.proto.SerializeToString() == before


def test_a_value_that_would_become_empty_is_named():
    channels = mlp()
    with pytest.raises(ValueError, match="a would become empty"):
        remove_groups(channels, range(8))
    assert select_removable(channels, range(8)) == list(range(7))
    assert kinds(channels) == [("neurons", 8, 1)]


def test_a_weight_read_twice_is_cut_as_one():
    text = """
    twice (float[n, 6] x) => (float[n, 4] y, float[n, 4] z)
    {
      a = Gemm(x, w, s)
      b = Relu(a)
      y = MatMul(b, v)
      c = Gemm(x, u, s)
      d = Tanh(c)
      z = MatMul(d, v)
    }
    """
    weights = {"w": normal(6, 8), "u": normal(6, 8, seed=1), "v": normal(8, 4), "s": normal(8)}
    channels = found(proto(text, weights=weights))
    assert kinds(channels) == [("neurons", 8, 1)]
    smaller = holds(channels, [0, 1])
    sizes = sorted(tuple(t.dims) for t in smaller.graph.initializer)
    assert sizes == [(6,), (6, 4), (6, 6), (6, 6)]


def test_a_bias_read_twice_is_cut_for_each_reader_as_it_needs():
    text = """
    twice (float[n, 6] x) => (float[n, 4] y)
    {
      a = Gemm(x, w, s)
      b = Relu(a)
      e = MatMul(b, v)
      c = Gemm(x, u, s)
      d = Tanh(c)
      f = MatMul(d, t)
      y = Add(e, f)
    }
    """
    weights = {"w": normal(6, 8), "u": normal(6, 8, seed=1), "s": normal(8)}
    channels = found(proto(text, weights=weights | {"v": normal(8, 4), "t": normal(8, 4, seed=2)}))
    assert kinds(channels) == [("neurons", 8, 1), ("neurons", 8, 1)]
    smaller = holds(channels, [0, 1, 12])
    sizes = {tuple(t.dims) for t in smaller.graph.initializer}
    assert sizes == {(6, 6), (6, 7), (6,), (7,), (6, 4), (7, 4)}


def test_counting_the_remaining_macs_is_fast():
    channels = found(transformer(3, [sequences.attention, sequences.feed_forward] * 3))
    gone = shares(channels, 0.5)
    count_remaining_macs(channels)

    def cost():
        started = time.process_time()
        for _ in range(100):
            count_remaining_macs(channels, gone)
        return time.process_time() - started

    assert min(cost() for _ in range(3)) < 1.0


def test_removing_one_head_does_not_change_the_others():
    channels = found(transformer(1, [sequences.attention]))
    heads = next(f for f in channels.families if f.kind == "heads")
    smaller = remove_groups(channels, heads.groups[:1])
    onnx.checker.check_model(smaller, full_check=True)
    for batch, length in ((1, 4), (2, 9)):
        ids = {v.name: np.ones((batch, length), np.int64) for v in smaller.graph.input}
        (outputs,) = run(smaller, [ids])
        assert all(np.isfinite(each).all() for each in outputs)
