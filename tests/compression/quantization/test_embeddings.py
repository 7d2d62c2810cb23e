"""Embeddings in 8 bits: smaller, close, and only if that saves space."""

from __future__ import annotations

import numpy as np
import pytest

from edgekit.errors import PassRefused
from tests.builders.tiny import apply, model, normal, run, samples, sqnr_db

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
        (LOOK_UP.replace(",64]", ",1]"), normal(5000, 1)),
    ],
    ids=["a row that is not finite", "columns, not rows", "too small to pay", "a column"],
)
def test_other_tables_are_not_changed(tmp_path, text, table):
    source = model(tmp_path, text, weights={"t": table})

    with pytest.raises(PassRefused, match=r"^nothing to quantize: "):
        apply("quantize-dynamic", source, tmp_path)


def test_static_quantization_also_stores_tables_in_8_bits(tmp_path):
    text = "g (int64[N,5] i) => (float[N,5,9] y) { h = Gather(t, i) y = MatMul(h, w) }"
    source = model(tmp_path, text, weights={"t": normal(200, 64), "w": normal(64, 9)})
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, i=IDS))

    assert made.bytes < 0.35 * source.bytes
    assert sqnr_db(run(source, i=IDS)[0], run(made, i=IDS)[0]) > 25


TIED = "e = Gather(t, i) r = Transpose<perm = [1, 0]>(t) y = MatMul(e, r)"
TIED_KINDS = {
    "sliced": (f"{TIED} q = Slice(t, a, b) z = Mul(e, q)", (200, 64)),
    "scaled": (f"{TIED} s = Mul(t, c) z = MatMul(x, s)", (200, 64)),
    "reshaped": (f"{TIED} q = Reshape(t, f) k = Reshape(q, g) z = MatMul(x, k)", (200, 64)),
    "summed": (f"{TIED} m = ReduceMean<axes = [0]>(t) z = Add(e, m)", (200, 64)),
    "stored transposed": (
        "r = Transpose<perm = [1, 0]>(t) e = Gather(r, i) y = MatMul(e, t) z = Neg(e)", (64, 200)
    ),
    "stored transposed, read by columns as well": (
        "r = Transpose<perm = [1, 0]>(t) e = Gather(r, i) y = MatMul(e, t)"
        " h = Gather<axis = 1>(t, a) k = Transpose<perm = [1, 0]>(h) z = Add(e, k)", (64, 200)
    ),
    "stored transposed, two output layers": (
        "r = Transpose<perm = [1, 0]>(t) e = Gather(r, i) y = MatMul(e, t) n = Neg(e)"
        " o = MatMul(n, t) k = Slice(r, a, b) l = Neg(k) m = ReduceMean<axes = [2]>(o)"
        " j = Add(m, l) z = Add(j, e)", (64, 200)
    ),
}  # fmt: skip
NUMBERS = {
    "a": np.array([0]), "b": np.array([1]), "c": np.float32(8.0), "f": np.array([64, 200]),
    "g": np.array([200, 64]),
}  # fmt: skip


@pytest.mark.parametrize("weight_bits", [7, 8])
@pytest.mark.parametrize("step", ["quantize-static", "quantize-dynamic"])
@pytest.mark.parametrize("kind", TIED_KINDS)
def test_a_tied_table_is_stored_once_in_8_bits_whatever_else_reads_it(
    tmp_path, kind, step, weight_bits
):
    body, shape = TIED_KINDS[kind]
    read = ", float[N,5,200] x" if "(x," in body else ""
    text = f"g (int64[N,5] i{read}) => (float[N,5,200] y, float[N,5,64] z) {{ {body} }}"
    numbers = {n: v for n, v in NUMBERS.items() if f", {n})" in body or f", {n}," in body}
    source = model(tmp_path, text, weights={"t": normal(*shape), **numbers})
    feeds = {"i": IDS % 200} | ({"x": normal(8, 5, 200)} if read else {})
    made = apply(step, source, tmp_path, samples(tmp_path, **feeds), weight_bits=weight_bits)

    assert made.bytes < 0.4 * source.bytes
    for exact, found in zip(run(source, **feeds), run(made, **feeds), strict=True):
        assert sqnr_db(exact, found) > 25


EXPERTS = {
    "one for each sample": ("w = Gather(t, i) y = MatMul(h, w)", "N"),
    "two for each sample": (
        "w = Gather(t, i) p = Unsqueeze(h, a) m = MatMul(p, w) y = ReduceMean<axes = [1],"
        " keepdims = 0>(m)", "N,2"
    ),
}  # fmt: skip


@pytest.mark.parametrize("step", ["quantize-static", "quantize-dynamic"])
@pytest.mark.parametrize("kind", EXPERTS)
def test_weights_gathered_by_a_computed_index_are_stored_in_8_bits(tmp_path, kind, step):
    body, axes = EXPERTS[kind]
    text = (
        f"g (float[N,1,24] x, int64[{axes}] i) => (float[N,1,64] y) {{ h = MatMul(x, u) {body} }}"
    )
    weights = {"t": normal(4, 24, 64) * np.logspace(-2, 0, 64, dtype=np.float32)}
    weights |= {"u": normal(24, 24)}
    weights |= {"a": np.array([1])} if "Unsqueeze" in body else {}
    source = model(tmp_path, text, weights=weights)
    index = np.arange(32).reshape(16, 2) % 4
    feeds = {"x": normal(16, 1, 24), "i": index if axes == "N,2" else index[:, 0]}
    made = apply(step, source, tmp_path, samples(tmp_path, **feeds))

    assert made.bytes < 0.4 * source.bytes
    exact, found = run(source, **feeds)[0], run(made, **feeds)[0]
    for column in (0, 31, 63):  # each output channel has its own scale
        assert sqnr_db(exact[..., column], found[..., column]) > 25
