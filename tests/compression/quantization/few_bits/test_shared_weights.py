"""Few bits for recurrent layers, for layers inside If, Loop and Scan, and for shared weights."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from edgekit.compression.layers.shared_weights import collect_shared_layers
from edgekit.compression.pass_specs import PASSES
from edgekit.compression.step_runner import run_step
from edgekit.errors import PassRefused
from edgekit.onnx_graph.io import iter_graphs
from edgekit.recipe import Step
from tests.builders.tiny import (
    apply,
    model,
    normal,
    ops,
    proto,
    run,
    samples,
    sqnr_db,
    uniform,
    work,
    write,
)

GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}
UNITS, INPUTS, STEPS = 48, 24, 10


def recurrent(folder, kind, direction="forward", *, opset=17, lengths=False, states=False):
    """A recurrent layer over sequences, its steps first."""
    sides, gates = (2 if direction == "bidirectional" else 1), GATES[kind]
    weights = {
        "w": normal(sides, gates * UNITS, INPUTS, scale=0.3),
        "r": normal(sides, gates * UNITS, UNITS, seed=1, scale=0.15),
        "b": normal(sides, 2 * gates * UNITS, seed=2, scale=0.1),
    }
    names = ["x", "w", "r", "b", "", "", ""]
    if lengths:
        weights["l"], names[4] = np.array([7], np.int32), "l"
    if states:
        weights["h"], names[5] = normal(sides, 1, UNITS, seed=3, scale=0.3), "h"
        if kind == "LSTM":
            weights["c"], names[6] = normal(sides, 1, UNITS, seed=4, scale=0.3), "c"
    while not names[-1]:
        names.pop()
    # The output of all steps is asked for by nobody: the last state is enough for the user.
    text = (
        f"g (float[{STEPS},1,{INPUTS}] x) => (float[{sides},1,{UNITS}] y) {{ "
        f', y = {kind}<hidden_size = {UNITS}, direction = "{direction}">({", ".join(names)}) }}'
    )
    return model(folder, text, weights=weights, opset=opset, ir=10 if opset > 20 else 8)


def sequences(folder):
    """Samples of 10 steps whose 24 numbers hang on six."""
    return samples(folder, x=mix(40))


def mix(count, seed=0):
    base = normal(count * STEPS, 1, 6, seed=seed) @ normal(6, INPUTS, seed=9)
    return base + normal(count * STEPS, 1, INPUTS, seed=seed + 1, scale=0.1)


def large(made, kind):
    """The large constants of a type."""
    stored = onnx.load(str(made.path)).graph.initializer
    return [t for t in stored if t.data_type == kind and math.prod(t.dims) >= 1024]


@pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])
@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_get_few_bits(tmp_path, kind, direction):
    source = recurrent(tmp_path, kind, direction)
    made = apply("quantize-weights", source, tmp_path, sequences(tmp_path), bits=4.0)

    assert not large(made, TensorProto.FLOAT)
    integers = [numpy_helper.to_array(t) for t in large(made, TensorProto.INT8)]
    assert sum(each.size for each in integers) == sum(
        math.prod(t.dims) for t in large(source, TensorProto.FLOAT)
    )
    x = mix(1, seed=50)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 20


@pytest.mark.parametrize("extras", [{"lengths": True}, {"states": True}])
@pytest.mark.parametrize("opset", [11, 14, 22])
@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_lengths_first_states_and_opsets_change_nothing(tmp_path, kind, opset, extras):
    source = recurrent(tmp_path, kind, opset=opset, **extras)
    made = apply("quantize-weights", source, tmp_path, sequences(tmp_path), bits=5.0)
    x = mix(1, seed=50)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 24


def test_rounding_errors_are_compensated_for_the_layers_inputs(tmp_path):
    """Second moments of inputs and states: better than rounding each weight by itself."""
    source = recurrent(tmp_path, "LSTM")
    made = apply(
        "quantize-weights", source, tmp_path, sequences(tmp_path), bits=3.0, grid="fixed",
        allocation="uniform",
    )  # fmt: skip
    weights = {t.name: numpy_helper.to_array(t) for t in large(source, TensorProto.FLOAT)}
    rounded = onnx.load(str(source.path))
    for tensor in rounded.graph.initializer:
        if tensor.name in weights:
            weight = weights[tensor.name]
            best = min(
                (
                    np.clip(np.rint(weight / s), -3, 3) * s
                    for s in np.abs(weight).max() * np.linspace(0.1, 0.4, 31)
                ),
                key=lambda each, w=weight: np.square(each - w).sum(),
            )
            tensor.CopyFrom(numpy_helper.from_array(best.astype(np.float32), tensor.name))
    plain = write(tmp_path, rounded)
    x = [mix(1, seed=60 + i) for i in range(8)]
    expected = np.stack([run(source, x=each)[0] for each in x])
    found = np.stack([run(made, x=each)[0] for each in x])
    naive = np.stack([run(plain, x=each)[0] for each in x])
    assert sqnr_db(expected, found) > sqnr_db(expected, naive) + 1


def test_an_integer_lstm_takes_the_integers_as_they_are(tmp_path):
    text = (
        f"g (float[{STEPS},1,{INPUTS}] x) => (float[1,1,128] y) "
        "{ , y = LSTM<hidden_size = 128>(x, w, r) }"
    )
    weights = {"w": normal(1, 512, INPUTS, scale=0.3), "r": normal(1, 512, 128, scale=0.1)}
    source = model(tmp_path, text, weights=weights)
    data = sequences(tmp_path)
    few = apply("quantize-weights", source, tmp_path, data, bits=3.0)
    made = apply("quantize-static", few, tmp_path, data)

    def contents(model_):
        return [numpy_helper.to_array(t) for t in large(model_, TensorProto.INT8)]

    before = {each.transpose(0, 2, 1).tobytes() for each in contents(few)}
    if "DynamicQuantizeLSTM" in ops(made):
        assert {each.tobytes() for each in contents(made)} == before
    else:  # slower than float on this machine: the integers stay where they are
        assert {each.tobytes() for each in contents(made)} == {e.tobytes() for e in contents(few)}
    assert not large(made, TensorProto.FLOAT)
    x = mix(1, seed=50)
    assert sqnr_db(run(few, x=x)[0], run(made, x=x)[0]) > 25


def test_weights_in_4_bits_are_stored_in_4_bits(tmp_path):
    source = recurrent(tmp_path, "LSTM", "bidirectional")
    made = apply(
        "quantize-weights", source, tmp_path, sequences(tmp_path), bits=4.0, container="native",
        allocation="uniform",
    )  # fmt: skip
    assert len(large(made, TensorProto.INT4)) == 2
    assert made.bytes < 0.2 * source.bytes
    x = mix(1, seed=50)
    assert sqnr_db(run(source, x=x)[0], run(made, x=x)[0]) > 15


INNER = {
    "a branch": (
        "g (float[N,48] x) => (float[N,48] y) { h = MatMul(x, v) big = ReduceMean<keepdims = 0>(h) "
        "zero = Constant<value = float {0.0}>() k = Greater(big, zero) y = If(k)<"
        "then_branch = t () => (float[N,48] a) { a = MatMul(h, w) }, "
        "else_branch = e () => (float[N,48] b) { n = MatMul(h, u) b = Neg(n) }> }",
        {"v", "w", "u"},
    ),
    "one weight in both branches": (
        "g (float[N,48] x) => (float[N,48] y) { h = MatMul(x, v) big = ReduceMean<keepdims = 0>(h) "
        "zero = Constant<value = float {0.0}>() k = Greater(big, zero) y = If(k)<"
        "then_branch = t () => (float[N,48] a) { a = MatMul(h, w) }, "
        "else_branch = e () => (float[N,48] b) { n = MatMul(h, w) b = Neg(n) }> }",
        {"v", "w"},
    ),
    "a loop": (
        "g (float[1,48] x) => (float[1,48] y) { n = Constant<value = int64 {3}>() "
        "y = Loop(n, , x)<body = b (int64 i, bool go, float[1,48] a) => (bool on, float[1,48] o) "
        "{ on = Identity(go) m = MatMul(a, w) o = Tanh(m) }> }",
        {"w"},
    ),
    "a scan": (
        "g (float[1,7,48] x) => (float[1,48] y, float[7,1,48] z) "
        "{ first = Constant<value = int64[1] {0}>() q = Squeeze(x, first) "
        "s = ReduceMean<axes = [1], keepdims = 0>(x) "
        "y, z = Scan<num_scan_inputs = 1, body = b (float[1,48] h, float[48] e) => "
        "(float[1,48] o, float[1,48] r) { m = MatMul(h, w) k = Add(m, e) o = Tanh(k) "
        "r = Identity(o) }>(s, q) }",
        {"w"},
    ),
    "two products with one weight": (
        "g (float[N,48] x) => (float[N,48] y) { h = MatMul(x, w) r = Tanh(h) y = MatMul(r, w) }",
        {"w"},
    ),
    "a recurrent layer in a branch": (
        "g (float[5,1,48] x) => (float[1,1,48] y) { big = ReduceMean<keepdims = 0>(x) "
        "zero = Constant<value = float {0.0}>() k = Greater(big, zero) y = If(k)<"
        "then_branch = t () => (float[1,1,48] a) { , a = GRU<hidden_size = 48>(x, gw, gr) }, "
        "else_branch = e () => (float[1,1,48] b) { , b = GRU<hidden_size = 48>(x, gw, gr) }> }",
        {"gw", "gr"},
    ),
}


def inner(folder, case):
    text, names = INNER[case]
    weights = {
        name: normal(1, 144, 48, seed=i, scale=0.2)
        if name.startswith("g")
        else normal(48, 48, seed=i, scale=0.2)
        for i, name in enumerate(sorted(names))
    }
    shapes = {"a scan": (1, 7, 48), "a recurrent layer in a branch": (5, 1, 48)}
    feeds = [
        {"x": uniform(*shapes.get(case, (1, 48)), seed=i)} for i in range(28)
    ]  # four are held out
    columns = {"x": np.concatenate([feed["x"] for feed in feeds])}
    return model(folder, text, weights=weights), columns, feeds


@pytest.mark.parametrize("case", INNER)
def test_weights_of_inner_graphs_and_shared_ones_get_few_bits(tmp_path, case):
    source, columns, feeds = inner(tmp_path, case)
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, **columns), bits=5.0)
    assert not large(made, TensorProto.FLOAT)
    assert large(made, TensorProto.INT8)
    for feed in feeds[:4]:
        assert sqnr_db(run(source, **feed)[0], run(made, **feed)[0]) > 20


@pytest.mark.parametrize("case", INNER)
def test_what_they_read_is_observed(tmp_path, case):
    source, columns, _ = inner(tmp_path, case)
    parts = [samples(tmp_path, **columns)]
    layers, why = collect_shared_layers(onnx.load(str(source.path)), parts, lambda *_: None)
    assert not why
    assert {layer.name for layer in layers} == INNER[case][1] - {"v"}
    for layer in layers:
        assert layer.moments is not None
        assert layer.moments.count > 4


@pytest.mark.parametrize("case", [case for case in INNER if "recurrent" not in case])
@pytest.mark.parametrize("name", ["quantize-static", "quantize-dynamic"])
def test_integer_products_take_the_integers_as_they_are(tmp_path, name, case):
    source, columns, feeds = inner(tmp_path, case)
    few = apply("quantize-weights", source, tmp_path, samples(tmp_path, **columns), bits=4.0)
    made = apply(name, few, tmp_path, samples(tmp_path, **columns))
    assert len(large(made, TensorProto.INT8)) == len(large(few, TensorProto.INT8))
    assert not large(made, TensorProto.FLOAT)
    for feed in feeds[:4]:
        assert sqnr_db(run(few, **feed)[0], run(made, **feed)[0]) > 22
    if "products" not in case:
        inner_kinds = [n.op_type for g in inner_graphs_of(made) for n in g.node]
        assert "MatMulInteger" in inner_kinds
        assert "MatMul" not in inner_kinds


def inner_graphs_of(made):
    graph = onnx.load(str(made.path)).graph
    return [g for g in iter_graphs(graph) if g is not graph]


def test_a_model_of_integers_without_integer_kernels_is_refused_as_such(tmp_path):
    source = recurrent(tmp_path, "GRU")
    data = sequences(tmp_path)
    few = apply("quantize-weights", source, tmp_path, data, bits=4.0)
    for name in ("quantize-static", "quantize-dynamic"):
        with pytest.raises(PassRefused, match="already stores its weights as integers"):
            apply(name, few, tmp_path, data)


def test_a_weight_too_sensitive_for_8_bits_gets_16(tmp_path):
    text = (
        f"g (float[{STEPS},1,{INPUTS}] x) => (float[1,1,{UNITS}] y) "
        f"{{ , y = LSTM<hidden_size = {UNITS}>(x, w, r) }}"
    )
    weight = normal(1, 4 * UNITS, INPUTS, scale=0.3)
    # A large weight of an input that is quiet: it makes the steps of its rows coarse.
    weight[..., 0] *= 3000
    source = model(
        tmp_path, text, weights={"w": weight, "r": normal(1, 4 * UNITS, UNITS, scale=0.1)}
    )
    x = mix(44)  # four are held out
    x[..., 0] *= 1e-4
    made = apply("quantize-weights", source, tmp_path, samples(tmp_path, x=x), bits=6.0)
    assert [list(t.dims) for t in large(made, TensorProto.FLOAT16)] == [[1, 4 * UNITS, INPUTS]]
    assert [list(t.dims) for t in large(made, TensorProto.INT8)] == [[1, 4 * UNITS, UNITS]]
    for i in range(0, 44 * STEPS, STEPS):
        one = x[i : i + STEPS]
        assert sqnr_db(run(source, x=one)[0], run(made, x=one)[0]) > 15


def test_weights_that_stay_float_are_noted_with_the_reason(tmp_path):
    text = (
        "g (float[N,8,12] x) => (float[N,40] y) { c = Conv<pads = [1,1]>(x, w) r = Relu(c) "
        "t = ConvTranspose(r, v) p = GlobalAveragePool(t) f = Flatten(p) y = MatMul(f, m) }"
    )
    weights = {"w": normal(48, 8, 3), "v": normal(48, 32, 3), "m": normal(32, 40)}
    source = model(tmp_path, text, weights=weights)
    its = work(tmp_path, samples(tmp_path, x=uniform(24, 8, 12)))
    spec = PASSES["quantize-weights"]
    step = Step(name="quantize-weights", version=spec.version, settings=spec.settings(bits=5.0))
    run_step(step, source, its)
    told = [note for note in its.notes if note.startswith("weights stay float: v (ConvTranspose")]
    assert told
    assert "whose weights this pass does not change" in told[0]


def test_a_table_that_is_gathered_and_multiplied_is_not_a_shared_weight():
    made = proto(
        "g (int64[N] i) => (float[N,100] y) { v = Gather(w, i) t = Transpose<perm = [1,0]>(w) "
        "y = MatMul(v, t) }",
        weights={"w": normal(100, 48)},
    )
    assert collect_shared_layers(made, [], lambda *_: None) == ([], "")
