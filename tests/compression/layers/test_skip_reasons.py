"""Reasons that passes give for the weights that they do not change."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.compression.layers.skip_reasons import LAYER_OPS, find_unchanged_weights
from edgekit.errors import PassRefused
from tests.builders.tiny import apply, model, normal, proto, samples


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("e = Gather(t, i) r = Reshape(t, s) y = MatMul(e, r)", "is also read by Reshape"),
        ("y = Gather<axis = 1>(t, i)", "is gathered along axis 1, not along axis 0"),
        ("y = Gather(t, i)", "is too small for an embedding: 256 entries, fewer than 4096"),
    ],
)
def test_a_table_that_is_not_an_embedding_has_the_true_reason(body, reason):
    text = f"g (int64[N,4] i) => (y) {{ {body} }}"
    made = proto(text, weights={"t": normal(32, 8), "s": [8, 32]})

    (found,) = find_unchanged_weights(made, ops=LAYER_OPS)

    assert found.reason == f"t (Gather, 32 x 8) {reason}"


def test_a_table_of_more_than_two_axes_is_not_said_to_be_small():
    text = "g (int64[N] i, float[N,1,24] x) => (y) { w = Gather(t, i) y = MatMul(x, w) }"
    made = proto(text, weights={"t": normal(4, 24, 64)})

    (found,) = find_unchanged_weights(made, ops=LAYER_OPS)

    assert found.reason == "t (Gather, 4 x 24 x 64) has 3 axes; an embedding has two"


SMALL_LSTM = "g (float[5,N,8] x) => (float[5,1,N,8] y) { y = LSTM<hidden_size = 8>(x, w, r) }"
INNER = (
    "g (bool c, float[N,24] x) => (float[N,24] y) { y = If(c) <"
    " then_branch = g1 () => (float[N,24] a) { a = MatMul(x, w) },"
    " else_branch = g2 () => (float[N,24] b) { b = Neg(x) }> }"
)
CONVOLUTIONS = (
    "g (float[N,8,4,4] x) => (float[N,8,4,4] y) { h = Conv(x, w) i = Conv(h, v) y = Neg(i) }"
)
VECTOR = "g (float[64] x) => (float[3,64] y) { h = Neg(x) y = MatMul(h, w) }"
REFUSALS = {
    "a small LSTM": (
        SMALL_LSTM, "quantize-weights", {"w": (1, 32, 8), "r": (1, 32, 8)},
        "w (LSTM, 1 x 32 x 8), r (LSTM, 1 x 32 x 8): each is too small: 256 entries, "
        "fewer than 1024"
    ),
    "a small weight of a branch in few bits": (
        INNER, "quantize-weights", {"w": (24, 24)},
        "w (MatMul, 24 x 24) is too small: 576 entries, fewer than 1024"
    ),
    "a small weight of a branch in 8 bits": (
        INNER, "quantize-static", {"w": (24, 24)},
        "w (MatMul, 24 x 24) is too small: 576 entries, fewer than 1024"
    ),
    "a weight of a branch": (
        INNER, "prune-weights", {"w": (24, 24)},
        "w (MatMul, 24 x 24) is read inside If, Loop or Scan"
    ),
    "convolutions": (
        CONVOLUTIONS, "quantize-dynamic", {"w": (8, 8, 1, 1), "v": (8, 8, 1, 1)},
        "w (Conv, 8 x 8 x 1 x 1), v (Conv, 8 x 8 x 1 x 1): each belongs to Conv, whose weights "
        "this pass does not change"
    ),
    "one weight for each channel of a convolution": (
        "g (float[N,1,4,4] x) => (float[N,8,4,4] y) { h = Conv(x, w) y = Relu(h) }",
        "quantize-weights", {"w": (8, 1, 1, 1)},
        "w (Conv, 8 x 1 x 1 x 1) has one weight for each output channel, and a scale "
        "needs as much space"
    ),
    "one weight for each column": (
        "g (float[N,1] x) => (float[N,8] y) { h = MatMul(x, w) y = Relu(h) }",
        "quantize-weights", {"w": (1, 8)},
        "w (MatMul, 1 x 8) has one weight for each output channel, and a scale "
        "needs as much space"
    ),
    "a batch of matrices and a vector": (
        VECTOR, "low-rank", {"w": (3, 64, 64)},
        "w (MatMul, 3 x 64 x 64) is a batch of matrices or the left operand, in a "
        "layout that this pass does not support"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSALS)
def test_a_refusal_gives_the_true_reason(tmp_path, case):
    text, step, shapes, reason = REFUSALS[case]
    source = model(tmp_path, text, weights={n: normal(*shape) for n, shape in shapes.items()})
    data = samples(tmp_path, **{s.name: fed(s) for s in source.signature.inputs})

    with pytest.raises(PassRefused) as refused:
        apply(step, source, tmp_path, data)

    assert refused.value.message.partition(": ")[2] == reason


def fed(spec):
    shape = [16 if size == "N" else size for size in spec.shape]
    return np.ones(16, np.bool_) if spec.dtype == "bool" else normal(*shape)
