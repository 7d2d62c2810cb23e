"""A .tflite file whose inputs must be resized: sizes, samples, and errors without them."""

import numpy as np
import pytest

pytest.importorskip("ai_edge_litert", reason="ai-edge-litert is not installed")

from edgekit.compression.pass_specs import build_step
from edgekit.compression.step_runner import run_checked
from edgekit.conversion.open_model import read_model
from edgekit.errors import PassRefused, UserError
from edgekit.onnx_graph.runs.model_outputs import iter_outputs
from edgekit.pass_settings import ToOnnx
from edgekit.tflite.flatbuffer import write_lite
from edgekit.tflite.ir import LiteGraph, Op, Tensor, constant
from tests.builders.tiny import normal, samples, work


def resizable(folder, *, batch=1, free=1):
    """A convolution without pads and a mean, of images that the file states as one pixel."""
    x = Tensor(name="x", dtype="float32", shape=(batch, free, free, 3))
    c = Tensor(name="c", dtype="float32", shape=(batch, free, free, 4))
    y = Tensor(name="y", dtype="float32", shape=(batch, 4))
    weights = [constant("w", normal(4, 3, 3, 3)), constant("b", normal(4, seed=1))]
    axes = constant("a", np.array([1, 2], np.int32))
    window = {"padding": "VALID", "stride_w": 2, "stride_h": 2}
    ops = [
        Op(op_type="CONV_2D", inputs=[x, *weights], outputs=[c], options=window),
        Op(op_type="MEAN", inputs=[c, axes], outputs=[y], options={"keep_dims": False}),
    ]
    path = folder / "resizable.tflite"
    path.write_bytes(write_lite(LiteGraph(ops=ops, inputs={"x": x}, outputs={"y": y})))
    return read_model(path)


@pytest.mark.parametrize("free", [1, -1])
def test_a_file_that_rejects_its_own_sizes_is_read_with_free_ones(tmp_path, free):
    source = resizable(tmp_path, free=free)

    assert source.signature.inputs[0].shape == (1, "?", "?", 3)
    assert source.signature.outputs[0].shape == (1, 4)
    for size in (9, 24):
        (made,) = iter_outputs(source, [{"x": normal(1, size, size + 3, 3)}])
        assert made["y"].shape == (1, 4)


def test_sizes_that_are_given_make_an_onnx_graph_of_them(tmp_path):
    source = resizable(tmp_path)
    settings = ToOnnx(dims=(("x.1", 20), ("x.2", 30)))
    found = run_checked(build_step(settings), source, work(tmp_path))

    assert found.model.signature.inputs[0].shape[1:] == (20, 30, 3)
    feed = {"x": normal(1, 20, 30, 3)}
    (want,), (got,) = iter_outputs(source, [feed]), iter_outputs(found.model, [feed])
    np.testing.assert_allclose(got["y"], want["y"], atol=1e-5)


def test_samples_are_compared_at_the_sizes_that_they_have(tmp_path):
    source, data = resizable(tmp_path), samples(tmp_path, x=normal(20, 15, 18, 3))
    settings = ToOnnx(dims=(("x.1", 15), ("x.2", 18)))
    found = run_checked(build_step(settings), source, work(tmp_path, data))

    assert found.agreement.samples == 16


def test_without_a_size_the_input_and_the_option_are_named(tmp_path):
    with pytest.raises(PassRefused, match=r"input x \[1, 1, 1, 3\] must be resized") as told:
        run_checked(build_step(ToOnnx()), resizable(tmp_path), work(tmp_path))
    assert "--dims x.1=SIZE" in told.value.hint


def test_sizes_that_the_file_rejects_are_a_user_error(tmp_path):
    settings = ToOnnx(dims=(("x.1", 2), ("x.2", 2)))
    with pytest.raises(PassRefused, match="cannot process inputs x"):
        run_checked(build_step(settings), resizable(tmp_path), work(tmp_path))


def test_an_operator_that_no_runtime_has_is_still_refused_as_such(tmp_path):
    x, y = (Tensor(name=n, dtype="float32", shape=(1, 1, 1, 3)) for n in "xy")
    op = Op(op_type="CUSTOM:NobodyHasThis", inputs=[x], outputs=[y])
    path = tmp_path / "custom.tflite"
    path.write_bytes(write_lite(LiteGraph(ops=[op], inputs={"x": x}, outputs={"y": y})))

    with pytest.raises(UserError, match="NobodyHasThis") as told:
        read_model(path)
    assert "without operators that LiteRT lacks" in told.value.hint
