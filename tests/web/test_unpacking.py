"""Packed models expand to the same bytes in the page as on other devices."""

from __future__ import annotations

import hashlib
import lzma
import zlib
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgekit.bundle.packing import pack
from edgekit.onnx_graph.rewrites.bias_scales import store_bias_scales
from tests.builders.tiny import apply, model, samples
from tests.web.node_calls import NodeError, Numbers, call, call_all


def _bytes(data: bytes) -> Numbers:
    return Numbers(np.frombuffer(data, np.uint8))


def _make_file(*arrays: NDArray[Any]) -> bytes:
    tensors = [numpy_helper.from_array(array, f"t{i}") for i, array in enumerate(arrays)]
    graph = helper.make_graph([], "g", [], [], tensors)
    return bytes(helper.make_model(graph).SerializeToString())


def _list_files() -> dict[str, bytes]:
    random = np.random.default_rng(0)
    few = np.clip(np.rint(random.normal(0, 2, (200, 30))), -7, 7)
    floats = random.normal(0, 0.05, (150, 40)).astype(np.float32)
    scales = random.uniform(0.001, 0.1, 1000).astype(np.float32)
    spread = np.clip(
        np.rint(random.normal(0, 1, (48, 900)) * np.linspace(0.5, 12, 48)[:, None]), -127, 127
    )
    return {
        "bytes": random.bytes(3000),
        "nothing": b"",
        "integers": _make_file(
            few.astype(np.int8), few.astype(np.int32), (few + 8).astype(np.uint8)
        ),
        "pairs": _make_file(
            (few[:, ::2].astype(np.uint8) & 15) | (few[:, 1::2].astype(np.uint8) & 15) << 4
        ),
        "floats": _make_file(
            floats, floats.astype(np.float16), np.where(floats > 0, 0, floats).astype("f4")
        ),
        "short floats": _make_file((scales.view(np.uint32) & 0xFFFF0000).view(np.float32)),
        "derived": _make_file(
            scales, np.float32(0.0377), scales * np.float32(0.0377), np.zeros(4000, np.int8), scales
        ),
        "channels": _make_file(
            spread.astype(np.int8), np.ascontiguousarray(spread.T).astype(np.int8)
        ),
        "long integers": _make_file(random.integers(-(2**40), 2**40, 300)),
    }


_FILES = _list_files()


@pytest.mark.parametrize("name", list(_FILES))
def test_tensors_of_any_type_are_restored(name: str) -> None:
    """Whether the size of the file is known or not."""
    data = _FILES[name]
    packed = pack(data)
    for size in (len(data), None):
        found = call(
            "packing/unpack", "unpack", _bytes(packed), *([size] if size is not None else [])
        )
        assert found.tobytes() == data


def test_quantized_models_are_restored_and_checked(tmp_path: Any) -> None:
    """Weights of 7 bits, activations, and the scales of biases that follow from others."""
    random = np.random.default_rng(1)
    weights = {
        "w": random.laplace(0, 0.1, (16, 3, 3, 3)).astype(np.float32),
        "b": random.normal(0, 0.1, 16).astype(np.float32),
        "v": random.laplace(0, 0.1, (48, 16, 3, 3)).astype(np.float32),
        "c": random.normal(0, 0.1, 48).astype(np.float32),
    }
    text = "g (float[N,3,12,12] x) => (y) { h = Conv(x, w, b) r = Relu(h) y = Conv(r, v, c) }"
    inputs = random.normal(0, 1, (16, 3, 12, 12)).astype(np.float32)
    source, data = model(tmp_path, text, weights=weights), samples(tmp_path, x=inputs)
    made = source
    for step in ("quantize-weights", "quantize-static"):
        made = apply(step, made, tmp_path, data, weight_bits=7)
    proto = onnx.load(made.path)
    store_bias_scales(proto)
    for raw in (made.path.read_bytes(), proto.SerializeToString()):
        file = {"digest": hashlib.sha256(raw).hexdigest(), "bytes": len(raw)}
        assert call("packing/unpack", "expandModel", _bytes(pack(raw)), file).tobytes() == raw
        with pytest.raises(NodeError, match="digest"):
            call("packing/unpack", "expandModel", _bytes(pack(raw)), {**file, "digest": "0" * 64})


@pytest.mark.parametrize(
    ("lc", "lp", "pb"), [(3, 0, 2), (0, 0, 0), (4, 0, 0), (0, 2, 2), (1, 3, 4)]
)
def test_lzma_is_decoded(lc: int, lp: int, pb: int) -> None:
    """Literals, new and repeated matches near and far, and runs, with any settings."""
    random = np.random.default_rng(lc)
    words = [random.bytes(int(n)) for n in random.integers(1, 40, 50)]
    text = b"".join(words[k] for k in random.integers(0, 50, 3000))
    data = text + bytes(5000) + random.bytes(500) + text[:20_000] + b"ab" * 3000
    filters = [
        {"id": lzma.FILTER_LZMA1, "preset": 9, "lc": lc, "lp": lp, "pb": pb, "dict_size": 1 << 22}
    ]
    packed = bytes([lc + 9 * (lp + 5 * pb)]) + lzma.compress(data, lzma.FORMAT_RAW, filters=filters)
    assert call("packing/lzma", "decodeLzma", _bytes(packed), len(data)).tobytes() == data


def test_deflated_plans_are_bounded() -> None:
    """What expands to more than was said is refused before it fills the memory."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = packer.compress(bytes(1 << 24)) + packer.flush()
    assert len(call("packing/inflate", "inflate", _bytes(packed), 1 << 24)) == 1 << 24
    with pytest.raises(NodeError, match="wrong size"):
        call("packing/inflate", "inflate", _bytes(packed), 1000)
    with pytest.raises(NodeError, match="damaged"):
        call("packing/inflate", "inflate", _bytes(packed[:50]), 1 << 24)


def test_damaged_files_are_one_clear_error_or_have_another_digest() -> None:
    """Bits that flip, files that are cut or longer, and any bytes at all."""
    data = _make_file(
        np.clip(np.rint(np.random.default_rng(4).normal(0, 2, (64, 9))), -7, 7).astype(np.int8),
        np.arange(40, dtype=np.int32),
        np.linspace(0, 1, 30, dtype="f4"),
    )
    packed, random = pack(data), np.random.default_rng(5)
    wrong = [
        packed[:at] + bytes([packed[at] ^ 0x55]) + packed[at + 1 :] for at in range(len(packed))
    ]
    wrong += [packed[:at] for at in range(0, len(packed), 3)] + [packed + b"\0\0"]
    heads = (b"", b"ekp1", b"ekp1\0\x20\x20\0\1")
    wrong += [head + random.bytes(int(n)) for head in heads for n in random.integers(0, 200, 40)]
    calls = [[_bytes(each), len(data)] for each in wrong]
    for found in call_all("packing/unpack", "unpack", calls):
        if isinstance(found, NodeError):
            assert found.kind == "corrupt", found
            assert "\n" not in found.message
        else:
            assert len(found) == len(data)
