"""Packed files expand to the same bytes, are small, and damage is detected."""

import hashlib
import lzma
import zlib

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from edgekit.bundle.packing import encode_for_transfer, pack
from edgekit.bundle.packing.tensors import find_onnx_tensors
from edgekit.onnx_graph.rewrites.bias_scales import store_bias_scales
from edgekit_agent.failures import AgentError
from edgekit_agent.packing.unpack import unpack
from tests.builders.all_graphs import NOT_QUANTIZABLE, QUANTIZABLE
from tests.builders.tiny import apply, model, samples

KINDS = QUANTIZABLE | NOT_QUANTIZABLE


def file_of(*arrays):
    """Write an .onnx file with these tensors."""
    tensors = [
        a if isinstance(a, TensorProto) else numpy_helper.from_array(a, f"t{i}")
        for i, a in enumerate(arrays)
    ]
    graph = helper.make_graph([], "g", [], [], tensors)
    return helper.make_model(graph).SerializeToString()


def low_bits(*shape, spread=2.0, seed=0, kind=np.int8):
    values = np.random.default_rng(seed).normal(0, spread, shape)
    return np.clip(np.rint(values), -7, 7).astype(kind)


def entropy_bytes(array):
    _, counts = np.unique(array, return_counts=True)
    return -(counts * np.log2(counts / counts.sum())).sum() / 8


def repack(data):
    packed = pack(data)
    assert unpack(packed, len(data)) == data
    return packed


@pytest.mark.parametrize("name", KINDS)
def test_every_graph_is_restored_bit_by_bit(tmp_path, name):
    kind = KINDS[name]
    source = model(tmp_path, kind.text, weights=kind.weights, **kind.how)
    repack(source.path.read_bytes())
    if name in QUANTIZABLE:
        data = samples(tmp_path, **kind.inputs)
        repack(apply("quantize-static", source, tmp_path, data).path.read_bytes())


DTYPES = ("i1", "u1", "<i2", "<u2", "<i4", "<i8", "<f2", "<f4", "<f8", "?")


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_tensors_of_any_type_and_bits_are_restored(data):
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    raw = data.draw(st.binary(max_size=120)) * data.draw(st.integers(1, 40))
    raw = bytes(b & 1 for b in raw) if dtype == np.bool_ else raw
    array = np.frombuffer(raw[: len(raw) // dtype.itemsize * dtype.itemsize], dtype)
    repack(file_of(array, low_bits(50), array))


@settings(deadline=None, max_examples=60)
@given(st.binary(max_size=400))
def test_bytes_that_are_not_a_model_are_restored(data):
    repack(data)


@pytest.mark.parametrize("kind", [TensorProto.INT4, TensorProto.UINT4])
def test_tensors_of_four_bits_are_packed_near_their_entropy(kind):
    values = low_bits(20_001) + (8 if kind == TensorProto.UINT4 else 0)
    nibbles = (np.append(values, 0) & 15).astype(np.uint8)
    tensor = TensorProto(name="w", data_type=kind, dims=[20_001])
    tensor.raw_data = (nibbles[0::2] | nibbles[1::2] << 4).tobytes()
    assert len(repack(file_of(tensor))) < 1.01 * entropy_bytes(values) + 120


@pytest.mark.parametrize("kind", [np.int8, np.uint8])
@pytest.mark.parametrize("count", [3_000, 300_000])
def test_integers_are_packed_near_their_entropy(count, kind):
    values = low_bits(count, kind=np.int16) + (0 if kind == np.int8 else 128)
    array = values.astype(kind)
    assert len(repack(file_of(array))) < 1.005 * entropy_bytes(array) + 90


def test_two_numbers_of_four_bits_in_a_byte_are_packed_separately():
    pairs = (low_bits(2, 50_000) + 8).astype(np.uint8)
    packed = repack(file_of(pairs[0] | pairs[1] << 4))
    assert len(packed) < 1.01 * entropy_bytes(pairs) + 90


def test_tensors_that_follow_from_others_need_no_space():
    rng = np.random.default_rng(3)
    weight_scales = rng.uniform(0.001, 0.1, 1000).astype(np.float32)
    input_scale = np.float32(0.0377)
    alone = len(repack(file_of(weight_scales, np.asarray(input_scale))))
    others = (weight_scales * input_scale, np.zeros(4000, np.int8), weight_scales)
    assert len(repack(file_of(weight_scales, np.asarray(input_scale), *others))) < alone + 60


def test_scales_of_few_digits_are_packed_in_little_more_than_a_byte():
    scales = np.random.default_rng(0).lognormal(-4, 0.5, 2000).astype(np.float32)
    short = (scales.view(np.uint32) & 0xFFFF0000).view(np.float32)
    assert len(repack(file_of(short))) < 1.25 * len(short) + 90


def test_a_quantized_model_is_smaller_than_any_deflater_makes_it(tmp_path):
    rng = np.random.default_rng(1)
    weights = {
        "w": rng.laplace(0, 0.1, (16, 3, 3, 3)).astype(np.float32),
        "b": rng.normal(0, 0.1, 16).astype(np.float32),
        "v": rng.laplace(0, 0.1, (48, 16, 3, 3)).astype(np.float32),
        "c": rng.normal(0, 0.1, 48).astype(np.float32),
    }
    text = "g (float[N,3,12,12] x) => (y) { h = Conv(x, w, b) r = Relu(h) y = Conv(r, v, c) }"
    inputs = rng.normal(0, 1, (16, 3, 12, 12)).astype(np.float32)
    source, data = model(tmp_path, text, weights=weights), samples(tmp_path, x=inputs)
    for steps in (["quantize-static"], ["quantize-weights", "quantize-static"]):
        made = source
        for step in steps:
            made = apply(step, made, tmp_path, data, weight_bits=7)
        # A file that stores the scales of biases, which follow from others.
        proto = onnx.load(made.path)
        store_bias_scales(proto)
        raw = proto.SerializeToString()
        best = min(len(zlib.compress(raw, 9)), len(lzma.compress(raw, preset=9)))
        assert len(repack(raw)) < 0.93 * best
        assert len(repack(made.path.read_bytes())) < 0.93 * best


def test_noise_is_stored_unchanged():
    noise = np.random.default_rng(0).bytes(5000)
    sent = encode_for_transfer(noise)
    assert (sent.encoding, sent.data) == ("raw", noise)


def test_tensors_inside_branches_and_constants_are_found(tmp_path):
    kind = QUANTIZABLE["if that reads an outer weight"]
    proto = onnx.load(str(model(tmp_path, kind.text, weights=kind.weights, **kind.how).path))
    inner = next(n for n in proto.graph.node if n.op_type == "If").attribute[0].g
    array = low_bits(4000)
    inner.node.append(helper.make_node("Constant", [], ["k"], value=numpy_helper.from_array(array)))
    data = proto.SerializeToString()
    found = [t for t in find_onnx_tensors(data) if t.size == 4000]
    assert data[found[0].start :][:4000] == array.tobytes()


PACKED = file_of(low_bits(64, 9), np.arange(40, dtype=np.int32), np.linspace(0, 1, 30, dtype="f4"))


def test_damaged_bytes_never_become_another_file_unnoticed():
    packed, digest = pack(PACKED), hashlib.sha256(PACKED).hexdigest()
    for at in range(0, len(packed), 2):
        for flip in (1, 0xFE):
            damaged = packed[:at] + bytes([packed[at] ^ flip]) + packed[at + 1 :]
            try:
                made = unpack(damaged, len(PACKED))
            except AgentError as error:
                assert error.failure.kind == "corrupt"  # noqa: PT017 - either is right
            else:
                assert len(made) == len(PACKED)
                assert made == PACKED or hashlib.sha256(made).hexdigest() != digest


def test_truncated_and_extended_files_are_refused():
    packed = pack(PACKED)
    for wrong in (*(packed[:at] for at in range(len(packed))), packed + b"\0\0"):
        with pytest.raises(AgentError) as caught:
            unpack(wrong, len(PACKED))
        assert caught.value.failure.kind == "corrupt"


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=300))
def test_any_bytes_at_all_are_refused_in_one_line(data):
    for head in (b"", b"ekp1", b"ekp1\0\x20\x20\0\1"):
        try:
            unpack(head + data, 1000)
        except AgentError as error:
            assert error.failure.kind == "corrupt"  # noqa: PT017 - either is right
            assert "\n" not in error.failure.message  # noqa: PT017


def test_a_wrong_size_is_refused():
    with pytest.raises(AgentError, match="expands to"):
        unpack(pack(PACKED), len(PACKED) - 1)


@pytest.mark.parametrize("axis", [0, 1, 3])
def test_channels_of_other_distributions_are_packed_separately(axis):
    shape = [48, 32, 3, 40]
    spreads = np.linspace(0.5, 12, shape[axis]).reshape([-1 if i == axis else 1 for i in range(4)])
    values = np.random.default_rng(0).normal(0, 1, shape) * spreads
    array = np.clip(np.rint(values), -127, 127).astype(np.int8)
    channels = (entropy_bytes(channel) for channel in np.moveaxis(array, axis, 0))
    assert len(repack(file_of(array))) < 1.02 * sum(channels) + 120 < 0.95 * entropy_bytes(array)


@pytest.mark.parametrize("share", [0.2, 0.45, 0.6, 0.9])
def test_zeros_among_floats_are_packed_near_their_entropy(share):
    rng = np.random.default_rng(0)
    dense = rng.normal(0, 0.05, (200, 200)).astype(np.float32)
    sparse = np.where(rng.random(dense.shape) < share, np.float32(0), dense)
    bits = entropy_bytes(sparse == 0) + (1 - share) * len(repack(file_of(dense)))

    assert len(repack(file_of(sparse))) < 1.09 * bits


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_zeros_among_integers_are_packed_near_their_entropy(share):
    rng = np.random.default_rng(0)
    dense = np.clip(np.rint(rng.normal(0, 20, 100_000)), -64, 64)
    sparse = np.where(rng.random(dense.shape) < share, 0, dense).astype(np.int8)

    assert len(repack(file_of(sparse))) < 1.01 * entropy_bytes(sparse) + 120
