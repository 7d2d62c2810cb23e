"""The kind of a file is detected by its content, whatever its name."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from edgekit.conversion.importers.file_kind import detect_content
from edgekit.conversion.importers.source import detect_source
from edgekit.conversion.open_model import read_model
from tests.builders.projects import assert_refused, edgekit
from tests.builders.tiny import apply, model, normal

NET = "g (float[N,8] x) => (float[N,4] y) { y = MatMul(x, w) }"


@pytest.fixture
def source(tmp_path):
    return model(tmp_path, NET, weights={"w": normal(8, 4)})


def kind_of(path):
    found = detect_source(path, folder=path.parent, trusted=False)
    return found.kind if found else None


@pytest.mark.parametrize(
    "name", ["m.json", "m.bin", "m.h5", "m.pt", "m.pkl", "m.txt", "m.tflite", "m"]
)
def test_an_onnx_file_of_any_name_is_one(tmp_path, source, name):
    (tmp_path / name).write_bytes(source.path.read_bytes())

    assert edgekit("inspect", tmp_path / name).code == 0


@pytest.mark.parametrize("name", ["m.onnx", "m.json", "m.keras", "m.pb"])
def test_a_tflite_file_of_any_name_is_one(tmp_path, source, name):
    lite = apply("to-tflite", source, tmp_path)
    (tmp_path / name).write_bytes(lite.path.read_bytes())

    assert kind_of(tmp_path / name) is None
    assert read_model(tmp_path / name).format == "tflite"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (json.dumps({"graph": {}}).encode(), "not an ONNX model"),
        (b"[1, 2, 3]", "not an ONNX model"),
        (b'{"irVersion": "8", "graph": {"node": []}}', "not an ONNX model"),
        (b"ir_version: 8 graph { }", "not an ONNX model"),
        (b"\xff\xfe{", "not an ONNX model"),
    ],
)
@pytest.mark.parametrize("name", ["x.json", "x.textproto", "x.onnxtxt", "x.onnx"])
def test_text_is_not_a_model_under_any_name(tmp_path, name, content, says):
    (tmp_path / name).write_bytes(content)
    assert_refused("inspect", tmp_path / name, says=says)


@pytest.mark.parametrize(
    ("members", "kind"),
    [
        (("config.json", "metadata.json", "model.weights.h5"), "keras"),
        (("model/data.pkl", "model/version"), "torch_pickle"),
        (("archive/data.pkl", "archive/code/m.py"), "torch_pickle"),
        (("serialized_exported_program.json", "version"), "torch_program"),
        (("archive/models/model.json", "archive/archive_format"), "torch_program"),
        (("x.npy",), None),
    ],
)
def test_a_zip_archive_is_identified_by_its_members(tmp_path, members, kind):
    path = tmp_path / "model.onnx"
    with zipfile.ZipFile(path, "w") as archive:
        for member in members:
            archive.writestr(member, "")

    assert detect_content(path) == kind


def test_a_pickle_of_any_name_needs_trust(tmp_path):
    (tmp_path / "model.onnx").write_bytes(pickle.dumps({"w": np.zeros(3)}))

    assert kind_of(tmp_path / "model.onnx") == "pickle"
    assert_refused("inspect", tmp_path / "model.onnx", says="contains Python pickles")


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"PK\x03\x04" + bytes(100), b"TFL3"])
def test_damage_is_reported_by_the_loader(tmp_path, content):
    (tmp_path / "model.keras").write_bytes(content)

    assert detect_content(tmp_path / "model.keras") is None
    assert kind_of(tmp_path / "model.keras") == "keras"
