"""Static int8 files compute the scales of biases, with the same results everywhere."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from edgekit.bundle.packing import pack
from edgekit.onnx_graph.cost import compute_cost
from edgekit.onnx_graph.rewrites.bias_scales import computes_bias_scales, store_bias_scales
from tests.builders.tiny import apply, fused_ops, model, normal, run, samples, uniform, write

TEXT = (
    "g (float[N,3,12,12] x) => (float[N,10] y) { c = Conv<pads = [1,1,1,1]>(x, w0, b0) "
    "r = Relu(c) d = Conv<group = 32, pads = [1,1,1,1]>(r, w1, b1) s = Relu(d) "
    "p = GlobalAveragePool(s) f = Flatten(p) h = Gemm<transB = 1>(f, v, k) t = Relu(h) "
    "y = Gemm<transB = 1>(t, u, m) }"
)
WEIGHTS = {
    "w0": normal(32, 3, 3, 3, scale=0.3),
    "b0": normal(32, seed=1),
    "w1": normal(32, 1, 3, 3, scale=0.3),
    "b1": normal(32, seed=2),
    "v": normal(64, 32, scale=0.2),
    "k": normal(64, seed=3),
    "u": normal(10, 64, scale=0.2),
    "m": normal(10, seed=4),
}
CHANNELS = 32 + 32 + 64  # of the layers with more than a few


@pytest.fixture(scope="module")
def int8(tmp_path_factory):
    folder = tmp_path_factory.mktemp("int8")
    source = model(folder, TEXT, weights=WEIGHTS)
    return apply("quantize-static", source, folder, samples(folder, x=uniform(16, 3, 12, 12)))


@pytest.fixture(scope="module")
def plain(int8, tmp_path_factory):
    """The same file with its scales stored."""
    proto = onnx.load(int8.path)
    store_bias_scales(proto)
    return write(tmp_path_factory.mktemp("plain"), proto)


def test_a_quantized_file_does_not_store_the_scales_of_its_biases(int8, plain):
    scales = [
        tensor
        for tensor in onnx.load(int8.path).graph.initializer
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.dims
    ]

    assert sorted(tensor.dims[0] for tensor in scales) == [10, 10, 32, 32, 64]
    assert int8.bytes < plain.bytes - 3 * CHANNELS


def test_onnxruntime_finds_the_same_kernels_and_computes_the_same_bits(int8, plain, tmp_path):
    found = fused_ops(int8, tmp_path)

    assert found == fused_ops(plain, tmp_path)
    assert found.count("QLinearConv") == found.count("QGemm") == 2
    x = uniform(5, 3, 12, 12, seed=7)
    np.testing.assert_array_equal(run(int8, x=x)[0], run(plain, x=x)[0])


def test_the_lite_file_is_the_same_to_the_byte(int8, plain, tmp_path):
    made = [apply("to-tflite", each, tmp_path).path.read_bytes() for each in (int8, plain)]

    assert made[0] == made[1]


def test_cleaning_leaves_the_file_as_it_is(int8, tmp_path):
    assert apply("clean", int8, tmp_path).path.read_bytes() == int8.path.read_bytes()


def test_cleaning_folds_the_rest_and_keeps_the_scales_computed(int8, tmp_path):
    proto = onnx.load(int8.path)
    proto.graph.node.add(op_type="Identity", input=["y"], output=["again"])
    proto.graph.output[0].name = "again"
    made = apply("clean", write(tmp_path, proto), tmp_path)

    assert computes_bias_scales(onnx.load(made.path))
    x = uniform(2, 3, 12, 12)
    np.testing.assert_array_equal(run(made, x=x)[0], run(int8, x=x)[0])


def test_inspection_counts_no_more_live_memory_or_products(int8, plain):
    found, other = (compute_cost(onnx.load(each.path), {}) for each in (int8, plain))

    assert found.peak_activation_bytes == other.peak_activation_bytes
    assert found.macs == other.macs
    assert not found.unknown


def test_the_packed_file_does_not_grow(int8, plain):
    assert len(pack(int8.path.read_bytes())) <= len(pack(plain.path.read_bytes()))
