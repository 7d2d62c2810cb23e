"""Dimensions of size 0 or less are free, and sizes beyond the memory are refused."""

import numpy as np
import onnx
import pytest

from edgekit.cache.store import Store
from edgekit.compression.pass_specs import build_step
from edgekit.conversion.importers.source_opener import open_model
from edgekit.errors import UserError
from edgekit.onnx_graph.io import open_session, read_onnx
from edgekit.pass_settings import Clean, QuantizeDynamic, QuantizeStatic, ToTflite
from edgekit.pipeline.apply import apply
from edgekit.progress import ignore_progress
from tests.builders.tiny import normal, proto

NET = (
    "g (float[N,3,H,W] x) => (float[N,10] y) <float[N,16,H,W] r> {"
    " c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) p = GlobalAveragePool(r) f = Flatten(p)"
    " y = Gemm(f, v) }"
)
WEIGHTS = {"w": normal(16, 3, 3, 3), "v": normal(16, 10)}
LEAST = -(2**63)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def state_sizes(folder, sizes):
    """The network with dimensions of its values as (value, axis): number or name."""
    made = proto(NET, weights=WEIGHTS)
    values = {v.name: v for v in (*made.graph.input, *made.graph.value_info, *made.graph.output)}
    for (name, axis), size in sizes.items():
        dim = values[name].type.tensor_type.shape.dim[axis]
        dim.Clear()
        if isinstance(size, int):
            dim.dim_value = size
        else:
            dim.dim_param = size
    path = folder / "model.onnx"
    path.write_bytes(made.SerializeToString())
    return path


def samples(folder):
    np.savez(folder / "data.npz", x=normal(12, 3, 8, 8, seed=1))
    return str(folder / "data.npz")


def run(path, x):
    return open_session(path).run(None, {"x": x})[0]


@pytest.mark.parametrize("settings", [Clean(), QuantizeStatic(), QuantizeDynamic(), ToTflite()])
@pytest.mark.parametrize(
    "sizes",
    [
        {("x", 0): -1, ("y", 0): -1},
        {("x", 0): 0, ("y", 0): 0},
        {("x", 0): LEAST},
        {("x", 2): -1, ("x", 3): 0, ("r", 0): 0, ("r", 2): -1},
        {("x", 0): "-1", ("x", 2): "?", ("x", 3): "?"},
        {("r", 1): 1 << 62, ("y", 1): 1 << 40},
    ],
    ids=["minus-one", "zero", "least", "space", "names", "huge-inside"],
)
def test_a_size_of_zero_or_less_is_free_for_every_pass(tmp_path, sizes, settings):
    suffix = ".tflite" if isinstance(settings, ToTflite) else ".onnx"
    path, out = state_sizes(tmp_path, sizes), tmp_path / f"out{suffix}"
    apply(
        build_step(settings),
        path,
        out,
        data=samples(tmp_path),
        folder=tmp_path,
        tick=ignore_progress,
    )

    assert out.stat().st_size


@pytest.mark.parametrize("size", [-1, 0])
def test_a_cleaned_classifier_of_a_batch_of_minus_one_takes_any_batch(tmp_path, size):
    path, out = state_sizes(tmp_path, {("x", 0): size, ("y", 0): size}), tmp_path / "out.onnx"
    apply(build_step(Clean()), path, out, data=None, folder=tmp_path, tick=ignore_progress)

    whole = run(state_sizes(tmp_path, {}), normal(5, 3, 8, 8))
    assert np.allclose(run(out, normal(5, 3, 8, 8)), whole, atol=1e-5)


def test_a_model_with_an_input_of_size_zero_runs(tmp_path):
    path = state_sizes(tmp_path, {("x", 0): 0})
    store = Store(tmp_path / "store")
    found = open_model(path, folder=tmp_path, store=store, trusted=False, tick=ignore_progress)

    assert run(found.path, normal(2, 3, 8, 8)).shape == (2, 10)
    assert found.display_name == str(path)
    assert found.origin.notes == ("input dimensions of size 0 in the file are treated as free",)


def test_a_stored_tensor_may_be_empty(tmp_path):
    made = proto(
        "g (float[1,4,8,8] x, float[0] roi) => (float[1,4,16,16] y)"
        ' { y = Resize<mode = "nearest">(x, roi, s) }',
        weights={"roi": np.zeros(0, np.float32), "s": np.float32([1, 1, 2, 2])},
    )
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    out = tmp_path / "out.onnx"
    apply(
        build_step(Clean()),
        tmp_path / "m.onnx",
        out,
        data=None,
        folder=tmp_path,
        tick=ignore_progress,
    )

    onnx.checker.check_model(str(out), full_check=True)


@pytest.mark.parametrize("axis", [0, 2])
@pytest.mark.parametrize("size", [1 << 31, 1 << 40, 1 << 62])
def test_a_size_beyond_the_memory_is_refused(tmp_path, axis, size):
    path = state_sizes(tmp_path, {("x", axis): size})
    store = Store(tmp_path / "store")

    with pytest.raises(UserError, match=r"the input x float32 \[.*\] takes"):
        open_model(path, folder=tmp_path, store=store, trusted=False, tick=ignore_progress)


def test_a_name_that_a_terminal_cannot_show_is_shown_as_far_as_it_can_be(tmp_path):
    path = state_sizes(tmp_path, {("x", 2): "a\x1b[31m\nb"})

    assert str(read_onnx(path).signature.inputs[0]) == "x float32 [N, 3, a?[31m?b, W]"
