"""Packing of the tensors of .tflite files, and expansion to the same bytes."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit.bundle.packing import pack
from edgekit.bundle.packing.tflite_tensors import find_tflite_tensors
from edgekit_agent.packing.unpack import unpack
from tests.builders.tiny import apply, model, normal, samples, uniform

NET = "g (float[N,64] x) => (float[N,9] y) { h = MatMul(x, w) r = Relu(h) y = MatMul(r, v) }"
WEIGHTS = {"w": normal(64, 300), "v": normal(300, 9, seed=1)}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lite")
    source = model(folder, NET, weights=WEIGHTS)
    int8 = apply("quantize-static", source, folder, samples(folder, x=uniform(64, 64)))
    return [apply("to-tflite", made, folder).path.read_bytes() for made in (source, int8)]


def test_weights_are_found_in_the_file(files):
    found = {t.dims: t for t in find_tflite_tensors(files[0])}
    for weight in WEIGHTS.values():
        at = found[weight.T.shape]
        stored = np.frombuffer(files[0], "<f4", weight.size, at.start).reshape(at.dims)
        np.testing.assert_array_equal(stored, weight.T)


def test_packed_files_expand_to_the_same_bytes_and_integers_are_smaller(files):
    for data in files:
        packed = pack(data)
        assert unpack(packed, len(data)) == data
        assert len(packed) < 0.93 * len(data)


@pytest.mark.parametrize("cut", [5, 40, 400, -400, -1])
def test_damaged_files_are_packed_as_any_other(files, cut):
    for data in (files[0][:cut], files[0][:8] + files[0][cut:], b"\x04\0\0\0TFL3" + bytes(60)):
        assert unpack(pack(data), len(data)) == data
