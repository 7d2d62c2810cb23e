"""Embeddings in 8 bits: smaller, close, and only where that pays."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import PassRefused
from tests.tiny import apply, model, normal, run, samples, sqnr_db

LOOK_UP = "g (int64[N,5] i) => (float[N,5,64] y) { y = Gather(t, i) }"
IDS = np.random.default_rng(0).integers(-200, 200, (8, 5))


def test_a_table_is_stored_in_a_quarter_and_its_rows_stay_close(tmp_path):
    table = normal(200, 64) * np.logspace(-3, 3, 200, dtype=np.float32)[:, None]
    source = model(tmp_path, LOOK_UP, weights={"t": table})
    made = apply("quantize-dynamic", source, tmp_path, samples(tmp_path, i=IDS))

    assert made.bytes < 0.3 * source.bytes
    for row in range(-200, 200, 7):
        feeds = {"i": np.full((1, 5), row)}
        assert sqnr_db(run(source, **feeds)[0], run(made, **feeds)[0]) > 35


def test_a_row_of_zeros_stays_zeros(tmp_path):
    table = normal(200, 64)
    table[0] = 0
    source = model(tmp_path, LOOK_UP, weights={"t": table})
    made = apply("quantize-dynamic", source, tmp_path)

    assert not run(made, i=np.zeros((1, 5), np.int64))[0].any()


def test_a_table_that_the_output_layer_shares_is_not_stored_twice(tmp_path):
    text = (
        "g (int64[N,5] i) => (float[N,5,200] y) "
        "{ h = Gather(t, i) k = Transpose<perm = [1,0]>(t) z = MatMul(h, v) y = MatMul(z, k) }"
    )
    source = model(tmp_path, text, weights={"t": normal(200, 64), "v": normal(64, 64)})
    made = apply("quantize-dynamic", source, tmp_path, weight_bits=8)

    assert made.bytes < 0.35 * source.bytes
    ids = IDS % 200
    assert sqnr_db(run(source, i=ids)[0], run(made, i=ids)[0]) > 25


@pytest.mark.parametrize(
    ("text", "table"),
    [
        (LOOK_UP, np.concatenate([np.full((1, 64), -np.inf, np.float32), normal(199, 64)])),
        (
            LOOK_UP.replace("Gather(", "Gather<axis = 1>(").replace("N,5,64", "64,N,5"),
            normal(64, 200),
        ),
        (LOOK_UP.replace(",64]", ",3]"), normal(200, 3)),
    ],
    ids=["a row that is not finite", "columns, not rows", "too small to pay"],
)
def test_other_tables_are_left_alone(tmp_path, text, table):
    source = model(tmp_path, text, weights={"t": table})

    with pytest.raises(PassRefused, match=r"^nothing to quantise: "):
        apply("quantize-dynamic", source, tmp_path)


def test_static_quantisation_stores_tables_in_8_bits_as_well(tmp_path):
    text = "g (int64[N,5] i) => (float[N,5,9] y) { h = Gather(t, i) y = MatMul(h, w) }"
    source = model(tmp_path, text, weights={"t": normal(200, 64), "w": normal(64, 9)})
    made = apply("quantize", source, tmp_path, samples(tmp_path, i=IDS))

    assert made.bytes < 0.35 * source.bytes
    assert sqnr_db(run(source, i=IDS)[0], run(made, i=IDS)[0]) > 25
