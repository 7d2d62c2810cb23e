"""``--dims NAME=SIZE`` sets free dimensions and overrides edgekit.toml."""

import json

import numpy as np
import pytest

from edgekit.compression.pass_specs import build_step
from edgekit.errors import UserError
from edgekit.inspection.summary import inspect
from edgekit.pass_settings import ToTflite
from edgekit.pipeline.apply import apply
from edgekit.progress import ignore_progress
from tests.builders.projects import assert_refused, edgekit
from tests.builders.tiny import model, normal

NET = (
    "g (float[N,3,H,8] x) => (float[N,10] y) { c = Conv<pads = [1,1,1,1]>(x, w) r = Relu(c) "
    "p = GlobalAveragePool(r) f = Flatten(p) y = Gemm(f, v) }"
)
WEIGHTS = {"w": normal(4, 3, 3, 3), "v": normal(4, 10)}
SPECTROGRAM = (
    'g (float[N,T] x) => (float[N,10] y) { p = Pad<mode = "reflect">(x, pads) '
    "u = Unsqueeze(p, one) c = Conv<strides = [160]>(u, w) q = GlobalAveragePool(c) "
    "f = Flatten(q) y = Gemm(f, v) }"
)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


def inspect_model(folder, path, **dims):
    return inspect(path, device=None, folder=folder, dims=dims)


def test_the_command_line_overrides_edgekit_toml(tmp_path):
    (tmp_path / "edgekit.toml").write_text("[model]\ndims = { H = 4 }\n")
    path = model(tmp_path, NET, weights=WEIGHTS).path

    assert inspect_model(tmp_path, path).cost.macs == 4 * 4 * 8 * 27 + 40
    assert inspect_model(tmp_path, path, H=16).cost.macs == 4 * 16 * 8 * 27 + 40


def test_a_dimension_without_a_name_goes_by_its_input_and_axis(tmp_path):
    path = model(tmp_path, NET.replace("H,8", "?,8"), weights=WEIGHTS).path

    assert inspect_model(tmp_path, path, **{"x.2": 8}).cost.macs == 4 * 8 * 8 * 27 + 40


def test_every_command_that_takes_a_model_takes_sizes(tmp_path):
    path = model(tmp_path, NET, weights=WEIGHTS).path
    seen = json.loads(edgekit("inspect", path, "--dims", "H=8", "--json").out)
    timed = edgekit("bench", path, "local", "--dims", "H=8", "--json")
    made = edgekit("apply", "to-tflite", path, "-o", tmp_path / "m.tflite", "--dims", "H=8")

    assert seen["cost"]["macs"] == 4 * 8 * 8 * 27 + 40
    assert (timed.code, made.code) == (0, 0)
    assert "--dims" in edgekit("build", "--help").out


def test_tflite_takes_the_sizes_that_are_given(tmp_path):
    path, out = model(tmp_path, NET, weights=WEIGHTS).path, tmp_path / "m.tflite"
    apply(
        build_step(ToTflite()),
        path,
        out,
        data=None,
        folder=tmp_path,
        tick=ignore_progress,
        dims={"H": 8},
    )

    assert [str(s) for s in inspect_model(tmp_path, out).model.signature.inputs] == [
        "x float32 [1, 3, 8, 8]"
    ]


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("H", "not NAME=SIZE"),
        ("H=", "not NAME=SIZE"),
        ("=3", "not NAME=SIZE"),
        ("H=0", "not NAME=SIZE"),
        ("H=-1", "not NAME=SIZE"),
        ("H=1.5", "not NAME=SIZE"),
        ("H=²", "not NAME=SIZE"),
        ("H=" + "9" * 5000, "not NAME=SIZE"),
        ("H=4294967296", "not NAME=SIZE"),
        ("W=3", "has no free dimension 'W'"),
        ("H=2147483647", "more than the limit of"),
    ],
)
def test_an_invalid_size_is_refused(tmp_path, given, says):
    path = model(tmp_path, NET, weights=WEIGHTS).path
    assert_refused("inspect", path, "--dims", given, says=says)


def test_one_dimension_has_one_size(tmp_path):
    path = model(tmp_path, NET, weights=WEIGHTS).path
    assert_refused(
        "inspect", path, "--dims", "H=3", "--dims", "H=4", says="H is given twice, as 3 and 4"
    )


def test_a_bundle_has_its_sizes(tmp_path):
    (tmp_path / "bundle").mkdir()
    assert_refused(
        "bench",
        tmp_path / "bundle",
        "local",
        "--dims",
        "H=3",
        says="--dims: not possible for a bundle",
    )


def test_mirrored_padding_does_not_prevent_pruning(tmp_path):
    weights = {
        "pads": np.int64([0, 512, 0, 512]),
        "one": np.int64([1]),
        "w": normal(32, 1, 400),
        "v": normal(32, 10),
    }
    path = model(tmp_path, SPECTROGRAM, weights=weights).path
    found = inspect(path, device=None, folder=tmp_path, structure=True).prunable
    asked = inspect(path, device=None, folder=tmp_path, structure=True, dims={"T": 16000}).prunable

    assert [part.groups for part in found.parts] == [32]
    assert asked.sizes == {"x": (1, 16000)}
    with pytest.raises(UserError, match="more than the limit of"):
        inspect_model(tmp_path, path, T=1 << 30)
