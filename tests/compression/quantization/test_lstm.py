"""Integer LSTM, and other recurrent layers stored in 8 bits without loss of speed."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from tests.builders.all_graphs import HEAVY
from tests.builders.tiny import apply, fused_ops, model, normal, ops, run, samples, sqnr_db, uniform


def source_of(name, folder):
    kind = HEAVY[name]
    return model(folder, kind.text, weights=kind.weights)


@pytest.mark.parametrize("step", ["quantize-static", "quantize-dynamic"])
def test_an_lstm_runs_with_integer_products(tmp_path, step):
    text = (
        "g (float[N,24,32] x) => (float[24,1,N,128] y) "
        "{ t = Transpose<perm = [1,0,2]>(x) y = LSTM<hidden_size = 128>(t, w, r) }"
    )
    weights = {
        "w": normal(1, 512, 32, scale=0.2),
        "r": normal(1, 512, 128, seed=1, scale=0.1),
    }
    source = model(tmp_path, text, weights=weights)
    made = apply(step, source, tmp_path, samples(tmp_path, x=uniform(16, 24, 32)))

    assert "DynamicQuantizeLSTM" in fused_ops(made, tmp_path)
    x = uniform(5, 24, 32, seed=7)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 30


@pytest.mark.parametrize("name", ["gru", "rnn", "transposed conv of one axis"])
def test_weights_without_an_integer_kernel_are_dequantized_at_load(tmp_path, name):
    source = source_of(name, tmp_path)
    made = apply("quantize-dynamic", source, tmp_path)

    assert {"Cast", "Mul"} <= set(ops(made))
    assert not set(fused_ops(made, tmp_path)) & {"Cast", "Mul", "DequantizeLinear"}


def test_inner_graphs_multiply_integers(tmp_path):
    name = "a loop that reads an outer weight"
    source = source_of(name, tmp_path)
    made = apply("quantize-dynamic", source, tmp_path)
    loop = next(n for n in onnx.load(str(made.path)).graph.node if n.op_type == "Loop")
    inner = [n.op_type for n in loop.attribute[0].g.node]

    assert "MatMulInteger" in inner
    assert "MatMul" not in inner
    feeds = {"x": uniform(1, 48, seed=5), "n": np.array([4])}
    assert sqnr_db(run(source, **feeds)[0], run(made, **feeds)[0]) > 25
