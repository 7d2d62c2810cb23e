"""The reasons that passes give for weights that they leave as they are."""

from __future__ import annotations

import pytest

from edgekit.passes.reasons import LAYER_OPS, find_unchanged_weights
from tests.tiny import normal, proto


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("e = Gather(t, i) r = Reshape(t, s) y = MatMul(e, r)", "is also read by Reshape"),
        ("y = Gather<axis = 1>(t, i)", "is gathered along axis 1, not by rows"),
        ("y = Gather(t, i)", "is too small for an embedding"),
    ],
)
def test_a_table_that_is_no_embedding_has_the_reason_that_holds(body, reason):
    text = f"g (int64[N,4] i) => (y) {{ {body} }}"
    made = proto(text, weights={"t": normal(32, 8), "s": [8, 32]})

    (found,) = find_unchanged_weights(made, ops=LAYER_OPS)

    assert found.reason == f"t (Gather, 32 x 8) {reason}"


def test_a_table_of_more_than_two_axes_is_not_said_to_be_small():
    text = "g (int64[N] i, float[N,1,24] x) => (y) { w = Gather(t, i) y = MatMul(x, w) }"
    made = proto(text, weights={"t": normal(4, 24, 64)})

    (found,) = find_unchanged_weights(made, ops=LAYER_OPS)

    assert found.reason == "t (Gather, 4 x 24 x 64) has 3 axes, and an embedding has two"
