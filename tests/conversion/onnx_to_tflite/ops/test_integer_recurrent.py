"""Recurrent layers with integer weights, as edgekit writes them, in LiteRT."""

import numpy as np
import onnx
import pytest

from edgekit.compression.quantization.lstm import quantize_recurrent
from edgekit.conversion.onnx_to_tflite.convert import convert_to_tflite
from edgekit.errors import PassRefused
from edgekit.onnx_graph.rewrites.prepare import prepare
from edgekit.tflite.flatbuffer import read_lite
from tests.builders.qdq_graphs import by_litert
from tests.builders.tiny import apply, model, normal, ops, run, samples, uniform, write

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNITS, INPUTS = 48, 24


def layer(folder, kind, direction, *, lengths=False, states=False, attributes=""):
    """A recurrent layer over 5 steps of 2 samples."""
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    weights = {
        "w": normal(sides, gates * UNITS, INPUTS, scale=0.3),
        "r": normal(sides, gates * UNITS, UNITS, seed=1, scale=0.3),
        "b": normal(sides, 2 * gates * UNITS, seed=2, scale=0.1),
    }
    names = ["x", "w", "r", "b", "", "", ""]
    if lengths:
        weights["l"], names[4] = np.array([5, 3], np.int32), "l"
    if states:
        weights["h"], names[5] = normal(sides, 2, UNITS, seed=3, scale=0.3), "h"
        if kind == "LSTM":
            weights["c"], names[6] = normal(sides, 2, UNITS, seed=4, scale=0.3), "c"
    while not names[-1]:
        names.pop()
    made = ", ".join(["y", "yh", "yc"][: 3 if kind == "LSTM" else 2])
    text = (
        f"g (float[5,2,{INPUTS}] x) => ({made}) {{ {made} = {kind}<hidden_size = {UNITS}, "
        f'direction = "{direction}"{attributes}>({", ".join(names)}) }}'
    )
    return model(folder, text, weights=weights)


def with_integers(source, folder):
    """Return the model with onnxruntime's integer LSTM, even if it is slower."""
    proto = prepare(onnx.load(str(source.path)), 13)
    assert quantize_recurrent(proto, 64) == 1
    return write(folder, proto)


def in_litert(made, names, **inputs):
    found = by_litert(convert_to_tflite(onnx.load(str(made.path)), {}), inputs)
    return [found[name] for name in names]


def close(before, after, *, within):
    """Assert that every output differs by at most this relative error."""
    for old, new in zip(before, after, strict=True):
        error = np.sqrt(np.square(new - old).mean() / np.square(old).mean())
        assert error < within


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("extras", [{}, {"lengths": True}, {"states": True}])
def test_an_integer_lstm_has_the_same_outputs_in_litert(tmp_path, direction, extras):
    source = layer(tmp_path, "LSTM", direction, **extras)
    made = with_integers(source, tmp_path)
    assert "DynamicQuantizeLSTM" in ops(made)
    x = uniform(5, 2, INPUTS, seed=9)
    names = [value.name for value in source.signature.outputs]
    expected, found = run(source, x=x), in_litert(made, names, x=x)
    # Weights of 7 bits; activations are not rounded here, as they are in onnxruntime.
    close(expected, found, within=0.03)
    close(run(made, x=x), found, within=0.03)


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["GRU", "RNN"])
def test_weights_stored_as_integers_have_the_same_outputs_in_litert(tmp_path, kind, direction):
    source = layer(tmp_path, kind, direction, states=True)
    made = apply("quantize-dynamic", source, tmp_path)
    x = uniform(5, 2, INPUTS, seed=9)
    names = [value.name for value in source.signature.outputs]
    close(run(made, x=x), in_litert(made, names, x=x), within=1e-5)


def test_each_direction_keeps_its_own_activations(tmp_path):
    given = (
        ', activations = ["HardSigmoid", "Tanh", "Affine", "Sigmoid", "HardSigmoid", "Tanh"], '
        "activation_alpha = [0.3, 0.7, 0.4], activation_beta = [0.4, 0.1, 0.2]"
    )
    source = layer(tmp_path, "LSTM", "bidirectional", attributes=given)
    made = with_integers(source, tmp_path)
    x = uniform(5, 2, INPUTS, seed=9)
    names = [value.name for value in source.signature.outputs]
    close(run(made, x=x), in_litert(made, names, x=x), within=0.03)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_weights_stay_in_8_bits_and_are_stored_once(tmp_path, kind, direction):
    source = layer(tmp_path, kind, direction)
    made = (
        with_integers(source, tmp_path)
        if kind == "LSTM"
        else apply("quantize-dynamic", source, tmp_path)
    )
    lite = read_lite(convert_to_tflite(onnx.load(str(made.path)), {}))
    read = {id(t): t for op in lite.ops for t in op.inputs if t is not None and t.data is not None}
    integers = sum(t.data.size for t in read.values() if t.dtype == "int8")
    floats = sum(t.data.size for t in read.values() if t.dtype == "float32")
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    assert integers == sides * gates * UNITS * (INPUTS + UNITS)
    assert floats < integers / 10


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
def test_weights_of_4_bits_stay_in_4_bits(tmp_path, kind, direction):
    source = layer(tmp_path, kind, direction)
    data = samples(tmp_path, x=uniform(80, 2, INPUTS))
    made = apply(
        "quantize-weights",
        source,
        tmp_path,
        data,
        bits=4.0,
        container="native",
        allocation="uniform",
    )
    x = uniform(5, 2, INPUTS, seed=9)
    names = [value.name for value in source.signature.outputs]
    close(run(made, x=x), in_litert(made, names, x=x), within=1e-5)
    lite = read_lite(convert_to_tflite(onnx.load(str(made.path)), {}))
    stored = {
        id(t): t for op in lite.ops for t in op.inputs if t is not None and t.data is not None
    }
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    four = sum(t.data.size for t in stored.values() if t.dtype == "int4")
    assert four == sides * gates * UNITS * (INPUTS + UNITS)


def test_integer_products_inside_a_loop_have_the_same_outputs_in_litert(tmp_path):
    text = (
        "g (float[1,48] x) => (float[1,48] y) { n = Constant<value = int64 {3}>() "
        "y = Loop(n, , x)<body = b (int64 i, bool go, float[1,48] a) => (bool on, float[1,48] o) "
        "{ on = Identity(go) m = MatMul(a, w) o = Tanh(m) }> }"
    )
    source = model(tmp_path, text, weights={"w": normal(48, 48, scale=0.3)})
    made = apply("quantize-dynamic", source, tmp_path)
    x = uniform(1, 48, seed=5)
    close(run(made, x=x), in_litert(made, ["y"], x=x), within=0.01)


def test_kernels_for_few_bits_are_refused_with_a_hint(tmp_path):
    text = "g (float[N,64] x) => (float[N,64] y) { y = MatMul(x, w) }"
    source = model(tmp_path, text, weights={"w": normal(64, 64, scale=0.2)})
    data = samples(tmp_path, x=uniform(16, 64))
    made = apply("quantize-weights", source, tmp_path, data, container="native")
    with pytest.raises(PassRefused) as refusal:
        convert_to_tflite(onnx.load(str(made.path)), {})
    assert "MatMulNBits" in refusal.value.message
    assert "container=int8" in refusal.value.hint
