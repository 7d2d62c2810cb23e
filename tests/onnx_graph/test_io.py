"""Reading and writing of model files: external data, checks and signatures."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgekit.conversion.open_model import read_model
from edgekit.errors import UserError
from edgekit.onnx_graph.io import load, read_onnx, save
from tests.builders.tiny import normal, proto, run, uniform, write

NET = "g (float[N,6] x) => (float[N,4] y) { y = MatMul(x, w) }"


def net():
    return proto(NET, weights={"w": normal(6, 4)})


def external(folder, name="weights.bin"):
    onnx.save(
        net(), folder / "net.onnx", save_as_external_data=True, location=name, size_threshold=0
    )
    return folder / "net.onnx"


def test_external_data_are_read_and_saved_into_one_file(tmp_path):
    path = external(tmp_path)
    expected = run(write(tmp_path, net()), x=uniform(2, 6))

    save(load(path), tmp_path / "one.onnx")
    (tmp_path / "weights.bin").unlink()

    one = read_onnx(tmp_path / "one.onnx")
    np.testing.assert_array_equal(run(one, x=uniform(2, 6)), expected)


def test_other_external_data_are_another_model(tmp_path):
    path = external(tmp_path)
    before = read_onnx(path).digest
    data = (tmp_path / "weights.bin").read_bytes()
    (tmp_path / "weights.bin").write_bytes(data[:-4] + b"\0\0\0\0")

    assert read_onnx(path).digest != before


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda f: (f / "weights.bin").unlink(), "is missing"),
        (lambda f: (f / "weights.bin").write_bytes(b"short"), "truncated"),
    ],
)
def test_external_data_that_are_not_there_are_named(tmp_path, damage, complaint):
    path = external(tmp_path)
    damage(tmp_path)

    with pytest.raises(UserError, match=rf"weights\.bin.*{complaint}"):
        read_onnx(path)


@pytest.mark.parametrize("location", ["/etc/passwd", "../outside.bin", ""])
def test_external_data_outside_the_folder_are_refused(tmp_path, location):
    path = external(tmp_path)
    made = onnx.load(str(path), load_external_data=False)
    for entry in made.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    path.write_bytes(made.SerializeToString())

    with pytest.raises(UserError, match="outside the model's folder"):
        read_onnx(path)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8, 0.99])
def test_a_truncated_file_is_refused(tmp_path, share):
    data = net().SerializeToString()
    (tmp_path / "net.onnx").write_bytes(data[: int(len(data) * share)])

    with pytest.raises(UserError, match=r"net\.onnx"):
        read_model(tmp_path / "net.onnx")


def test_every_flipped_byte_is_refused_or_gives_a_model_that_loads(tmp_path):
    data = net().SerializeToString()
    path = tmp_path / "net.onnx"
    for place in range(len(data) - 100):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :])
        try:
            found = read_onnx(path)
        except UserError as error:
            assert "\n" not in error.message  # noqa: PT017 - either is right
        else:
            assert found.signature.inputs


def test_inputs_without_stored_values_are_the_signature(tmp_path):
    text = "g (float[N,?] x, float[6,4] w, int64[2] k) => (float[N,4] y) { y = MatMul(x, w) }"
    found = write(tmp_path, proto(text, weights={"w": normal(6, 4)})).signature

    assert [str(spec) for spec in found.inputs] == ["x float32 [N, ?]", "k int64 [2]"]
    assert [str(spec) for spec in found.outputs] == ["y float32 [N, 4]"]


def test_an_opset_of_the_future_is_refused(tmp_path):
    made = net()
    made.opset_import[0].version = 99
    with pytest.raises(UserError, match="opset 99 is newer"):
        write(tmp_path, made)


def test_inputs_that_are_not_tensors_are_refused(tmp_path):
    sequence = helper.make_tensor_sequence_value_info("s", TensorProto.FLOAT, None)
    made = proto("g (float[2] x) => (float[2] y) { y = Identity(x) }")
    made.graph.input.append(sequence)
    with pytest.raises(UserError, match=r"s: a sequence; only tensors are supported"):
        write(tmp_path, made)


def test_operators_of_a_missing_library_are_refused(tmp_path):
    text = "g (float[2] x) => (float[2] y) { y = acme.Magic(x) }"
    with pytest.raises(UserError, match="rejects the model"):
        write(tmp_path, proto(text, imports=', "acme" : 1'))


def test_a_folder_and_a_missing_file_cause_different_errors(tmp_path):
    with pytest.raises(UserError, match="a folder"):
        read_model(tmp_path)
    with pytest.raises(UserError, match="No such file"):
        read_model(tmp_path / "absent.onnx")


def test_nodes_in_any_order_are_read_as_the_runtime_reads_them(tmp_path):
    made = proto(
        "g (float[N,4] x, bool c) => (float[N,4] y) { h = Relu(x) i = If(c)"
        " <then_branch = t () => (float[N,4] u) { u = Neg(h) },"
        " else_branch = e () => (float[N,4] v) { v = Abs(h) }> y = Add(i, h) }"
    )
    nodes = list(made.graph.node)[::-1]
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    path = tmp_path / "reversed.onnx"
    path.write_bytes(made.SerializeToString())

    read = read_onnx(path)

    assert [node.op_type for node in load(read.path).graph.node] == ["Relu", "If", "Add"]
