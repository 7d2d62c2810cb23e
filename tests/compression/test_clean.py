"""Clean: BatchNorm and constants are folded, the file does not grow, operators are standard."""

from __future__ import annotations

import numpy as np
import onnx

from edgekit.onnx_graph.io import iter_graphs
from tests.builders.tiny import apply, model, normal, ops, run, samples, uniform


def test_a_batch_norm_and_an_identity_go_into_the_convolution(tmp_path):
    text = (
        "g (float[N,3,8,8] x) => (float[N,4,6,6] y) { c = Conv(x, w) "
        "n = BatchNormalization(c, s, b, m, v) i = Identity(n) y = Relu(i) }"
    )
    weights = {
        "w": normal(4, 3, 3, 3),
        "s": normal(4),
        "b": normal(4),
        "m": normal(4),
        "v": np.abs(normal(4)) + 0.5,
    }
    source = model(tmp_path, text, weights=weights)
    x = uniform(4, 3, 8, 8)
    made = apply("clean", source, tmp_path, samples(tmp_path, x=x))

    assert ops(made) == ["Conv", "Relu"]
    np.testing.assert_allclose(run(made, x=x)[0], run(source, x=x)[0], atol=1e-5)


def test_a_constant_larger_than_its_source_is_not_folded(tmp_path):
    text = (
        "g (float[N,4] x) => (float[N,100000] y) "
        "{ z = ConstantOfShape<value = float[1] {0.5}>(shape) y = MatMul(x, z) }"
    )
    source = model(tmp_path, text, weights={"shape": np.array([4, 100000])})
    made = apply("clean", source, tmp_path, samples(tmp_path, x=uniform(4, 4)))

    assert made.bytes < 2 * source.bytes
    np.testing.assert_array_equal(run(made, x=uniform(2, 4))[0], run(source, x=uniform(2, 4))[0])


def test_no_new_operators_or_domains_are_added(tmp_path):
    text = (
        "g (float[N,6] x) => (float[N,6] y) "
        "{ a = Erf(x) b = Add(a, one) c = Mul(x, b) d = com.microsoft.Gelu(c) y = Mul(d, half) }"
    )
    weights = {"one": np.float32(1), "half": np.float32(0.5)}
    source = model(tmp_path, text, weights=weights, imports=', "com.microsoft" : 1, "unused" : 3')
    made = onnx.load(str(apply("clean", source, tmp_path).path))

    assert {n.domain for g in iter_graphs(made.graph) for n in g.node} <= {"", "com.microsoft"}
    assert {o.domain for o in made.opset_import} == {"", "com.microsoft"}


def test_cleaning_twice_gives_the_same_bytes_from_the_same_file(tmp_path):
    text = "g (float[N,6] x) => (float[N,4] y) { h = MatMul(x, w) y = Relu(h) }"
    source = model(tmp_path, text, weights={"w": normal(6, 4)})

    assert apply("clean", source, tmp_path).digest == apply("clean", source, tmp_path).digest


def test_the_stated_size_of_an_output_stays_where_onnxruntime_infers_another(tmp_path):
    text = (
        "g (float[1,2,5,4] x) => (float[1,2,3,2] y) { i = Identity(x) y = AveragePool<ceil_mode "
        "= 1, count_include_pad = 1, kernel_shape = [3,1], strides = [1,2]>(i) }"
    )
    source = model(tmp_path, text)
    made = apply("clean", source, tmp_path)
    assert [str(spec) for spec in made.signature.outputs] == ["y float32 [1, 2, 3, 2]"]
    x = uniform(1, 2, 5, 4)
    assert run(made, x=x)[0].shape == (1, 2, 3, 2)
    np.testing.assert_allclose(run(made, x=x)[0], run(source, x=x)[0])
