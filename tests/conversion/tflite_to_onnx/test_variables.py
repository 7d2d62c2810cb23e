"""Variables of streaming models become inputs and outputs of the ONNX graph."""

import numpy as np
import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.conversion.open_model import read_model
from edgekit.conversion.tflite_to_onnx.convert import convert_to_onnx
from edgekit.errors import PassRefused
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit.onnx_graph.states import read_states
from edgekit.pass_settings import ToOnnx
from edgekit.tflite.flatbuffer import read_lite, write_lite
from edgekit.tflite.ir import LiteGraph, Op, Tensor, constant
from tests.builders.handmade_tflite import by_onnxruntime, convert, set_scale, tensor
from tests.builders.tiny import normal, samples, work


def handle(name):
    made = Tensor(name=name, dtype="resource", shape=())
    return Op(op_type="VAR_HANDLE", inputs=[], outputs=[made], options={"shared_name": name}), made


def first_values(**values):
    """The graph that runs once and assigns the first values."""
    ops = []
    for name, value in values.items():
        op, made = handle(name)
        given = value if isinstance(value, Tensor) else constant("v", value)
        ops += [op, Op(op_type="ASSIGN_VARIABLE", inputs=[made, given], outputs=[])]
    return LiteGraph(ops=ops, inputs={}, outputs={})


def once():
    return Op(op_type="CALL_ONCE", inputs=[], outputs=[], options={"init_subgraph_index": 1})


def streaming(first, *, name="h", size=(1, 4)):
    """y = tanh(x + h), and h = y / 2 afterwards."""
    x, h, both, y, half = (tensor(n, size) for n in ("x", "read", "both", "y", "half"))
    var, made = handle(name)
    ops = [
        once(),
        var,
        Op(op_type="READ_VARIABLE", inputs=[made], outputs=[h]),
        Op(op_type="ADD", inputs=[x, h], outputs=[both]),
        Op(op_type="TANH", inputs=[both], outputs=[y]),
        Op(op_type="MUL", inputs=[y, constant("two", np.float32(0.5))], outputs=[half]),
        Op(op_type="ASSIGN_VARIABLE", inputs=[made, half], outputs=[]),
    ]
    inner = [first_values(**{name: first})]
    return LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": y}, inner=inner)


def convert_file(graph, folder):
    """Write a graph, run the pass with its checks, and return source and result."""
    path = folder / "model.tflite"
    path.write_bytes(write_lite(graph))
    source = read_model(path)
    return source, run_checked(build_step(ToOnnx()), source, work(folder))


def follow(source, made, *, steps=5, size=(1, 4)):
    feeds = [{"x": normal(*size, seed=n)} for n in range(steps)]
    for want, got in zip(iter_outputs(source, feeds), iter_outputs(made, feeds), strict=True):
        for name, value in want.items():
            np.testing.assert_allclose(got[name], value, atol=1e-5)


@pytest.mark.parametrize("first", [np.zeros((1, 4), np.float32), normal(1, 4, seed=9)])
def test_a_variable_becomes_a_state_that_follows_the_stream(tmp_path, first, monkeypatch):
    monkeypatch.setattr("edgekit.compression.checks.timing.measure_time_ratio", lambda *_: 1.0)
    source, found = convert_file(streaming(first), tmp_path)

    assert [spec.name for spec in found.model.signature.inputs] == ["x", "h"]
    assert [spec.name for spec in found.model.signature.outputs] == ["y", "h_next"]
    follow(source, found.model)
    begins = "non-zero values, recorded in the file" if first.any() else "zeros"
    assert found.notes == (
        "variable h became the input h and the output h_next; feed the output back to the input, "
        f"starting with {begins}",
    )


def test_states_that_are_fed_by_hand_give_the_same(tmp_path):
    first = normal(1, 4, seed=9)
    made = convert(streaming(first))
    (state,) = read_states(made)
    np.testing.assert_array_equal(state.initial, first)

    held = state.initial
    want = first.astype(np.float64)
    for n in range(4):
        x = normal(1, 4, seed=n)
        given = by_onnxruntime(made, {"x": x, state.input: held})
        want = np.tanh(x + want)
        np.testing.assert_allclose(given["y"], want, atol=1e-5)
        held, want = given[state.output], want / 2


def test_a_variable_named_as_an_input_has_a_name_of_its_own(tmp_path):
    source, found = convert_file(streaming(np.zeros((1, 4), np.float32), name="x"), tmp_path)

    assert [spec.name for spec in found.model.signature.inputs] == ["x", "x_state"]
    follow(source, found.model)


def test_a_variable_that_is_never_assigned_is_a_constant(tmp_path):
    x, w, y = (tensor(n, (1, 4)) for n in ("x", "w", "y"))
    var, made = handle("weights")
    ops = [
        once(),
        var,
        Op(op_type="READ_VARIABLE", inputs=[made], outputs=[w]),
        Op(op_type="MUL", inputs=[x, w], outputs=[y]),
    ]
    first = [first_values(weights=normal(1, 4, seed=3))]
    graph = LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": y}, inner=first)
    source, found = convert_file(graph, tmp_path)

    assert [spec.name for spec in found.model.signature.inputs] == ["x"]
    follow(source, found.model)


def test_two_variables_and_reads_after_assignments_keep_their_order(tmp_path):
    """A buffer of three frames, and a count that is read again after it was raised."""
    x, ring = tensor("x", (1, 1, 4)), tensor("ring", (1, 3, 4))
    rest, new = tensor("rest", (1, 2, 4)), tensor("new", (1, 3, 4))
    count, more, again, y = (tensor(n, (1, 3, 4)) for n in ("count", "more", "again", "y"))
    (one, first), (two, second) = handle("ring"), handle("count")
    ints = [constant("i", np.array(n, np.int32)) for n in ([0, 1, 0], [1, 2, 4])]
    ops = [
        once(), one, two,
        Op(op_type="READ_VARIABLE", inputs=[first], outputs=[ring]),
        Op(op_type="SLICE", inputs=[ring, *ints], outputs=[rest]),
        Op(op_type="CONCATENATION", inputs=[rest, x], outputs=[new], options={"axis": 1}),
        Op(op_type="ASSIGN_VARIABLE", inputs=[first, new], outputs=[]),
        Op(op_type="READ_VARIABLE", inputs=[second], outputs=[count]),
        Op(op_type="ADD", inputs=[count, new], outputs=[more]),
        Op(op_type="ASSIGN_VARIABLE", inputs=[second, more], outputs=[]),
        Op(op_type="READ_VARIABLE", inputs=[second], outputs=[again]),
        Op(op_type="MUL", inputs=[again, new], outputs=[y]),
    ]  # fmt: skip
    values = {"ring": normal(1, 3, 4), "count": np.zeros((1, 3, 4), np.float32)}
    graph = LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": y}, inner=[first_values(**values)])
    source, found = convert_file(graph, tmp_path)

    assert {s.input for s in read_states(convert_to_onnx(read_lite(write_lite(graph))))} == {
        "ring",
        "count",
    }
    follow(source, found.model, size=(1, 1, 4))


def test_a_variable_that_is_passed_into_a_branch_is_refused():
    graph = streaming(np.zeros((1, 4), np.float32))
    truth, made = constant("t", np.array(True)), graph.ops[1].outputs[0]
    inner = Tensor(name="r", dtype="resource", shape=())
    value = tensor("v", (1, 4))
    branch = LiteGraph(
        ops=[Op(op_type="READ_VARIABLE", inputs=[inner], outputs=[value])],
        inputs={"r": inner},
        outputs={"v": value},
    )
    out = tensor("out", (1, 4))
    options = {"then_subgraph_index": 2, "else_subgraph_index": 2}
    graph.ops.append(Op(op_type="IF", inputs=[truth, made], outputs=[out], options=options))
    graph.inner.append(branch)
    graph.outputs["out"] = out

    with pytest.raises(PassRefused, match="IF passes a variable into a subgraph"):
        convert_to_onnx(graph)


def test_an_initial_value_computed_at_run_time_is_refused():
    unknown = tensor("u", (1, 4))
    graph = streaming(np.zeros((1, 4), np.float32))
    graph.inner = [first_values(h=unknown)]

    with pytest.raises(
        PassRefused, match="the initial value of a variable is computed at run time"
    ):
        convert_to_onnx(graph)


def test_a_quantized_variable_is_a_state_of_floats():
    graph = streaming(np.full((1, 4), 30, np.int8))
    for op in graph.ops:
        for t in (*op.inputs, *op.outputs):
            if t is not None and t.dtype == "float32" and t.data is None:
                t.dtype, t.quantization = "int8", set_scale(0.05, 10)
    graph.ops[5].inputs[1] = constant("two", np.int8([100]), quantization=set_scale(0.005))
    (state,) = read_states(convert_to_onnx(graph))

    np.testing.assert_allclose(state.initial, np.full((1, 4), 1.0), atol=1e-6)


@pytest.mark.parametrize("given", [None, 4])
def test_a_slower_file_with_states_is_noted(tmp_path, monkeypatch, given):
    monkeypatch.setattr("edgekit.compression.checks.timing.measure_time_ratio", lambda *_: 2.0)
    monkeypatch.setattr(
        "edgekit.compression.checks.conversion_growth.measure_thread_seconds", lambda *_: 5e-5
    )
    path = tmp_path / "model.tflite"
    path.write_bytes(write_lite(streaming(np.ones((1, 4), np.float32))))
    data = samples(tmp_path, x=normal(given, 4)) if given else None

    found = run_checked(build_step(ToOnnx()), read_model(path), work(tmp_path, data))

    assert (
        "on this machine the file takes 2.00 times as long as its source (one thread)"
        in found.notes
    )
