"""Inspection of a model: its cost, and what prevents it from running on a device."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from edgekit.cli.render.model import format_inspection
from edgekit.compatibility.runtimes import choose_runtimes
from edgekit.config.profile import load_profile
from edgekit.conversion.open_model import read_model
from edgekit.errors import UserError
from edgekit.inspection.summary import inspect
from edgekit.onnx_graph.cost import compute_cost
from edgekit.tflite.flatbuffer import write_lite
from edgekit.tflite.ir import LiteGraph, Op, Quantization, Tensor, constant
from tests.builders.if_branches import model_by_rate
from tests.builders.tiny import model, normal, proto, write

NET = (
    "g (float[N,3,H,8] x) => (float[N,10] y) { c = Conv<pads = [1,1,1,1]>(x, w, b) r = Relu(c) "
    "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v, k) }"
)
WEIGHTS = {"w": normal(4, 3, 3, 3), "b": normal(4), "v": normal(4, 10), "k": normal(10)}


def test_the_cost_is_what_one_counts_by_hand(tmp_path):
    (tmp_path / "edgekit.toml").write_text("[model]\ndims = { H = 8 }\n")
    source = model(tmp_path, NET, weights=WEIGHTS)

    found = inspect(source.path, device=None, folder=tmp_path)

    assert found.cost.macs == 4 * 8 * 8 * 27 + 4 * 10
    assert found.cost.parameters == 4 * 27 + 4 + 40 + 10
    assert found.cost.weight_bytes == 4 * found.cost.parameters
    # The convolution's output and its activation, alive at once.
    assert found.cost.peak_activation_bytes == 2 * 4 * (4 * 8 * 8)
    assert found.cost.ops == {"Conv": 1, "Flatten": 1, "Gemm": 1, "GlobalAveragePool": 1, "Relu": 1}
    assert found.cost.unknown == ()
    assert found.bytes == source.path.stat().st_size
    assert found.obstacles == ()


def test_weights_count_wherever_they_are_stored(tmp_path):
    """As Paddle stores them: in Constant nodes; besides in branches, lists and sparse tensors."""
    constants = (
        "w = Constant<value = float[8,4] {" + ", ".join(["1"] * 32) + "}>() "
        "b = Constant<value_floats = [1.0, 2.0, 3.0, 4.0]>()"
    )
    text = (
        "g (float[N,8] x, bool k) => (float[N,4] y) { " + constants + " m = MatMul(x, w) "
        "a = Add(m, b) y = If(k)<then_branch = t () => (float[N,4] p) "
        "<float[4] u = {1, 2, 3, 4}> { p = Add(a, u) }, "
        "else_branch = e () => (float[N,4] q) { q = Identity(a) }> }"
    )
    made = proto(text)
    values = numpy_helper.from_array(np.float32([5, 6, 7]), "s")
    places = numpy_helper.from_array(np.int64([0, 2, 3]), "s_indices")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4]))
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())

    found = compute_cost(onnx.load(str(tmp_path / "m.onnx")), {})

    assert found.parameters == 32 + 4 + 4 + 3
    assert found.weight_bytes == 4 * (32 + 4 + 4 + 3) + 8 * 3
    assert found.macs == 8 * 4


def test_shapes_that_depend_on_the_data_are_reported_as_unknown(tmp_path):
    text = (
        "g (float[N,4] x) => (float[M,3] y) "
        "{ i = NonZero(x) k = Cast<to = 1>(i) t = Transpose(k) y = MatMul(t, w) }"
    )
    found = inspect(
        model(tmp_path, text, weights={"w": normal(2, 3)}).path, device=None, folder=tmp_path
    )

    assert found.cost.unknown == ("y",)
    assert found.cost.peak_activation_bytes is None


def test_operators_of_inner_graphs_and_other_domains_are_counted(tmp_path):
    text = (
        "g (float[2] x, bool k) => (float[2] y) { h = com.microsoft.Gelu(x) y = If(k)"
        "<then_branch = t () => (float[2] p) { p = Sin(h) }, "
        "else_branch = e () => (float[2] q) { q = Cos(h) }> }"
    )
    source = model(tmp_path, text, imports=', "com.microsoft" : 1')

    found = inspect(source.path, device=None, folder=tmp_path)

    assert found.cost.ops == {"Cos": 1, "If": 1, "Sin": 1, "com.microsoft:Gelu": 1}


@pytest.mark.parametrize(
    ("text", "macs"),
    [
        ("g (float[1,3,16] x) => (y) { y = Conv<strides = [2]>(x, w) }", (4 * 7) * 3 * 3),
        ("g (float[1,3,16] x) => (y) { y = ConvTranspose(x, t) }", (3 * 16) * 5 * 2),
        ("g (float[2,5,6] x) => (y) { y = MatMul(x, m) }", 2 * 5 * 4 * 6),
        ("g (float[6,2] x) => (y) { y = Gemm<transA = 1>(x, m) }", 2 * 4 * 6),
    ],
)
def test_every_kind_of_product_is_counted(tmp_path, text, macs):
    weights = {"w": normal(4, 3, 3), "t": normal(3, 5, 2), "m": normal(6, 4)}

    found = inspect(model(tmp_path, text, weights=weights).path, device=None, folder=tmp_path)

    assert found.cost.macs == macs


def test_a_device_that_cannot_run_the_opset_says_what_to_do(tmp_path):
    profile = tmp_path / "small.toml"
    profile.write_text(
        'schema = 1\nname = "small"\nsummary = "s"\n'
        '[hardware]\narch = "aarch64"\ncpu = "c"\ncores = 1\nthreads = 1\nmemory_mib = 64\n'
        '[runtimes.onnxruntime]\nversion = ">=1.20"\nopset_max = 13\nforbidden = ["Gemm"]\n'
        "[budget]\nmodel_mib = 5\n"
    )
    found = inspect(
        model(tmp_path, NET, weights=WEIGHTS).path, device=str(profile), folder=tmp_path
    )

    assert [o.what for o in found.obstacles] == [
        "opset 17 is above 13, the limit of the device's onnxruntime",
        "operator Gemm (1 nodes) is not allowed by the device profile",
    ]
    assert all(o.fix for o in found.obstacles)
    assert (found.device, found.model_mib_limit) == ("small", 5)


def test_a_file_that_is_not_a_model_is_refused(tmp_path):
    for data in (b"", b"hello", b"\x08\x08", np.zeros(100).tobytes()):
        (tmp_path / "m.onnx").write_bytes(data)
        with pytest.raises(UserError, match=r"m\.onnx"):
            inspect(tmp_path / "m.onnx", device=None, folder=tmp_path)


def lite(folder, *ops):
    """A .tflite file of a chain of operators, each of its kind, constants and output shape."""
    x = value = Tensor(name="x", dtype="float32", shape=(1, 8, 8, 4))
    made = []
    for kind, constants, shape, options in ops:
        out = Tensor(name=kind.lower(), dtype="float32", shape=shape)
        held = [constant("w", np.ones(c, np.float32)) for c in constants]
        made.append(Op(op_type=kind, inputs=[value, *held], outputs=[out], options=options))
        value = out
    graph = LiteGraph(ops=made, inputs={"x": x}, outputs={"y": value})
    path = folder / "model.tflite"
    path.write_bytes(write_lite(graph))
    return path


STRIDES = {"stride_w": 1, "stride_h": 1}
CONV = ("CONV_2D", [(6, 3, 3, 4), (6,)], (1, 8, 8, 6), STRIDES)
DEEP = ("DEPTHWISE_CONV_2D", [(1, 3, 3, 6), (6,)], (1, 8, 8, 6), {**STRIDES, "depth_multiplier": 1})
DENSE = ("FULLY_CONNECTED", [(10, 384), (10,)], (1, 10), {})


def test_the_cost_of_a_tflite_file_is_what_one_counts_by_hand(tmp_path):
    path = lite(tmp_path, CONV, DEEP, DENSE)

    found = inspect(path, device=None, folder=tmp_path)

    assert found.cost.macs == 64 * 6 * 36 + 64 * 6 * 9 + 384 * 10
    assert found.cost.parameters == 6 * 36 + 6 + 6 * 9 + 6 + 384 * 10 + 10
    assert found.cost.weight_bytes == 4 * found.cost.parameters
    # What two convolutions make, alive at once.
    assert found.cost.peak_activation_bytes == 2 * 4 * 64 * 6
    assert found.cost.ops == {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1}
    shown = format_inspection(found)
    assert "opset" not in shown
    assert "operators: CONV_2D 1, DEPTHWISE_CONV_2D 1, FULLY_CONNECTED 1" in shown


def hybrid(folder):
    """A .tflite file whose weights have a scale per channel under float activations."""
    x = Tensor(name="x", dtype="float32", shape=(1, 4))
    y = Tensor(name="y", dtype="float32", shape=(1, 2))
    scale = Quantization(scales=np.ones(2, np.float32), zero_points=np.zeros(2, np.int64))
    w = constant("w", np.ones((2, 4), np.int8), quantization=scale)
    op = Op(op_type="FULLY_CONNECTED", inputs=[x, w, None], outputs=[y])
    path = folder / "hybrid.tflite"
    path.write_bytes(write_lite(LiteGraph(ops=[op], inputs={"x": x}, outputs={"y": y})))
    return path


def test_operators_that_the_old_runtime_of_a_device_lacks_are_named(tmp_path):
    path = hybrid(tmp_path)

    old = inspect(path, device="beaglebone-black", folder=tmp_path)
    new = inspect(path, device="raspberry-pi-5", folder=tmp_path)

    assert [o.what for o in old.obstacles] == [
        "FULLY_CONNECTED: version 12 is needed, tflite-runtime 2.14 has 10"
    ]
    assert new.obstacles == ()
    assert "every operator can run there" in format_inspection(new)


def test_a_file_that_the_old_runtime_of_a_device_lacks_is_the_reference_alone(tmp_path):
    source = read_model(hybrid(tmp_path))

    old = choose_runtimes(source, load_profile("beaglebone-black"), None)
    new = choose_runtimes(source, load_profile("raspberry-pi-5"), None)

    assert "version 12 is needed" in old.obstacles[0].what
    assert old.names == ("litert",)
    assert new.obstacles == ()


def test_log_output_of_litert_does_not_reach_the_terminal(tmp_path):
    path = lite(tmp_path, CONV)
    script = (
        "import sys; from pathlib import Path; from edgekit.conversion.open_model import read_model"
    )
    run = f"{script}; read_model(Path(sys.argv[1])); print('read', file=sys.stderr)"
    done = subprocess.run(
        [sys.executable, "-c", run, path], capture_output=True, text=True, check=True
    )
    assert done.stderr == "read\n"


def test_a_constant_of_edgekit_toml_decides_what_can_be_converted(tmp_path):
    source = write(tmp_path, model_by_rate())
    found = inspect(source.path, device="beaglebone-black", folder=tmp_path)
    assert "has a condition that depends on the input data" in found.obstacles[0].what

    (tmp_path / "edgekit.toml").write_text(
        "[model.inputs.sr]\nconstant = 16000\n[model.inputs.of_another]\nconstant = 1\n"
    )
    found = inspect(source.path, device="beaglebone-black", folder=tmp_path)
    assert found.crosses
    assert found.obstacles == ()
