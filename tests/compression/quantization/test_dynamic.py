"""Dynamic int8: close to float without any data, each activation quantized once."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.builders.tiny import apply, fused_ops, model, normal, ops, run, sqnr_db, uniform


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=4),
    st.sampled_from(["MatMul(v, w)", "Gemm(v, w, b)", "Gemm<transB = 1>(v, w, b)"]),
    st.floats(1e-3, 1e3),
    st.integers(0, 1000),
)
@settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))
def test_any_dense_network_stays_close_to_float(tmp_path, widths, layer, scale, seed):
    lines, weights = [], {}
    for i, (into, out) in enumerate(itertools.pairwise(widths)):
        shape = (out, into) if "transB" in layer else (into, out)
        # All of one sign, so that the sums do not cancel and leave only what was rounded away.
        weights |= {
            f"w{i}": np.abs(normal(*shape, seed=seed + i, scale=scale)),
            f"b{i}": normal(out),
        }
        body = layer.replace("v", f"v{i}", 1).replace("w)", f"w{i})").replace("w,", f"w{i},")
        lines.append(f"v{i + 1} = {body.replace('b)', f'b{i})')}")
    last = f"v{len(widths) - 1}"
    text = f"g (float[N,{widths[0]}] v0) => (float[N,{widths[-1]}] {last}) {{ {' '.join(lines)} }}"
    source = model(tmp_path, text, weights=weights)
    x = np.abs(uniform(4, widths[0], seed=seed))

    made = apply("quantize-dynamic", source, tmp_path)

    assert sqnr_db(run(source, v0=x)[0], run(made, v0=x)[0]) > 25


def test_an_activation_that_three_layers_read_is_quantized_once(tmp_path):
    text = (
        "g (float[N,5,16] x) => (float[N,5,16] y) "
        "{ q = MatMul(x, a) k = MatMul(x, b) v = MatMul(x, c) s = Add(q, k) y = Mul(s, v) }"
    )
    weights = {name: normal(16, 16, seed=i) for i, name in enumerate("abc")}
    source = model(tmp_path, text, weights=weights)
    made = apply("quantize-dynamic", source, tmp_path)

    assert ops(made).count("DynamicQuantizeLinear") == 1
    assert ops(made).count("MatMulInteger") == 3
    assert not set(fused_ops(made, tmp_path)) & {"MatMul", "MatMulInteger", "Cast"}
    x = uniform(2, 5, 16)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25


def test_a_weight_that_two_layers_share_is_stored_once(tmp_path):
    text = "g (float[N,64] x) => (float[N,64] y) { h = MatMul(x, w) y = MatMul(h, w) }"
    source = model(tmp_path, text, weights={"w": normal(64, 64, scale=0.1)})

    assert apply("quantize-dynamic", source, tmp_path).bytes < 0.35 * source.bytes


def test_an_input_of_zeros_gives_only_the_bias(tmp_path):
    text = "g (float[N,6] x) => (float[N,4] y) { y = Gemm(x, w, b) }"
    bias = normal(4)
    source = model(tmp_path, text, weights={"w": normal(6, 4), "b": bias})
    made = apply("quantize-dynamic", source, tmp_path)

    np.testing.assert_allclose(run(made, x=np.zeros((1, 6), np.float32))[0][0], bias, rtol=1e-6)
