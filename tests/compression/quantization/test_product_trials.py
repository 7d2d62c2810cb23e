"""Matrix products of recurrent models are static or dynamic int8, by measured time."""

from __future__ import annotations

import math

import onnx
import pytest

from edgekit.compression.quantization.affine import LARGEST, compute_unsigned_affine
from edgekit.compression.quantization.calibration.trial_models import Version
from edgekit.compression.quantization.product_trials import ProductTrials
from edgekit.onnx_graph.graph_index import GraphIndex
from edgekit.onnx_graph.qdq_placement import plan_placement
from edgekit.onnx_graph.runs.weight_offload import copy_without_weights, offload, restore_weights
from tests.builders.tiny import (
    apply,
    model,
    normal,
    ops,
    run,
    samples,
    sqnr_db,
    uniform,
    work,
    write,
)

TEXT = (
    "g (float[N,64] x) => (float[N,32] y) { a = MatMul(x, u) b = Relu(a) c = MatMul(b, v) "
    "d = Tanh(c) y = MatMul(d, w) }"
)
WEIGHTS = {
    "u": normal(64, 96, scale=0.1),
    "v": normal(96, 64, seed=1, scale=0.1),
    "w": normal(64, 32, seed=2, scale=0.1),
}


@pytest.fixture
def trials(tmp_path):
    source = model(tmp_path, TEXT, weights=WEIGHTS)
    proto = onnx.load(str(source.path))
    lean = copy_without_weights(proto)
    folder = tmp_path / "weights"
    folder.mkdir()
    offload(proto, lean, folder)
    index = GraphIndex(lean, folder)
    values = plan_placement(index).values
    parameters = {name: compute_unsigned_affine(-4.0, 4.0) for name in values}
    return source, ProductTrials(index, Version(parameters=parameters), LARGEST[7])


@pytest.mark.parametrize("dynamic", [(), ("c",), ("a", "y"), ("a", "c", "y")])
def test_each_product_is_static_or_dynamic_as_asked(tmp_path, trials, dynamic):
    source, its = trials
    made = its.write(frozenset(dynamic))
    restore_weights(made, its.index.folder)
    kinds = [node.op_type for node in made.graph.node]

    assert kinds.count("MatMulInteger") == len(dynamic)
    assert kinds.count("MatMul") == 3 - len(dynamic)
    x = uniform(4, 64, seed=5)
    assert sqnr_db(run(source, x=x)[0], run(write(tmp_path, made), x=x)[0]) > 25


def test_the_fastest_version_has_the_same_outputs(tmp_path, trials):
    source, its = trials
    data = samples(tmp_path, x=uniform(16, 64))
    made = its.find_fastest(source, work(tmp_path, data))
    restore_weights(made, its.index.folder)
    x = uniform(4, 64, seed=5)
    assert sqnr_db(run(source, x=x)[0], run(write(tmp_path, made), x=x)[0]) > 25


def test_products_beside_an_lstm_stay_integers(tmp_path):
    text = (
        "g (float[N,12,64] x) => (float[N,12,48] y) { e = MatMul(x, u) r = Relu(e) "
        "t = Transpose<perm = [1,0,2]>(r) a = LSTM<hidden_size = 96>(t, lw, lr) "
        "s = Squeeze(a, one) b = Transpose<perm = [1,0,2]>(s) y = MatMul(b, v) }"
    )
    weights = {
        "u": normal(64, 96, scale=0.1),
        "v": normal(96, 48, seed=1, scale=0.1),
        "lw": normal(1, 384, 96, seed=2, scale=0.1),
        "lr": normal(1, 384, 96, seed=3, scale=0.1),
        "one": [1],
    }
    source = model(tmp_path, text, weights=weights)
    made = apply("quantize-static", source, tmp_path, samples(tmp_path, x=uniform(16, 12, 64)))
    kinds = ops(made)
    assert {"DynamicQuantizeLSTM", "LSTM"} & set(kinds)
    assert kinds.count("MatMulInteger") + kinds.count("MatMul") + kinds.count("Gemm") == 2
    stored = onnx.load(str(made.path)).graph.initializer
    assert not [t.name for t in stored if t.data_type == 1 and math.prod(t.dims) >= 1024]
    x = uniform(4, 12, 64, seed=5)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 25
