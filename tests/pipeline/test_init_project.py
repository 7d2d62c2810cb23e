"""`edgekit init` writes an edgekit.toml with the models and data that it finds."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from edgekit.config.project import load_project
from edgekit.errors import UserError
from edgekit.pipeline.init_project import init_project
from tests.builders.tiny import model, proto


@pytest.fixture(autouse=True)
def cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))


DENSE = "g (float[N,6] x) => (float[N,3] y) { y = Slice(x, a, b, c) }"
SLICE = {"a": np.array([0]), "b": np.array([3]), "c": np.array([1])}


def dense(folder, name="net.onnx"):
    return model_file(folder, DENSE, name, weights=SLICE)


def model_file(folder, text, name="net.onnx", **how):
    made = model(folder, text, **how)
    return made.path.rename(folder / name)


def images(folder, shape=(4, 8, 8, 3), label=True):
    arrays = {"x": np.zeros(shape, np.float32)}
    if label:
        arrays["label"] = np.zeros(shape[0], np.int64)
    np.savez(folder / "eval.npz", **arrays)


def test_the_only_model_and_the_data_beside_it_are_found_by_name(tmp_path):
    dense(tmp_path)
    for name in ("calib.npz", "test.npz"):
        np.savez(tmp_path / name, x=np.zeros((4, 6), np.float32), label=np.zeros(4, np.int64))

    started = init_project(tmp_path, None)

    project = load_project(tmp_path)
    assert project.model.path == "net.onnx"
    assert (project.data.calibration, project.data.evaluation) == ("calib.npz", "test.npz")
    assert project.data.metric == "top1"
    assert started.open_points == ()
    assert "x float32 [N, 6]" in started.text


def test_missing_models_and_data_are_reported(tmp_path):
    dense(tmp_path)

    points = init_project(tmp_path, None).open_points

    assert [p.partition(":")[0] for p in points] == ["[data] calibration", "[data] evaluation"]


def test_data_without_labels_are_reported(tmp_path):
    dense(tmp_path)
    np.savez(tmp_path / "eval.npz", x=np.zeros((4, 6), np.float32))

    assert any("no labels found" in point for point in init_project(tmp_path, None).open_points)


def test_image_folders_with_one_folder_per_class_are_found(tmp_path):
    dense(tmp_path)
    for split in ("train", "val"):
        (tmp_path / split / "cat").mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(tmp_path / split / "cat" / "1.JPG")

    init_project(tmp_path, None)

    data = load_project(tmp_path).data
    assert (data.calibration, data.evaluation) == ("train", "val")


def test_tables_texts_and_audio_are_found(tmp_path):
    dense(tmp_path)
    (tmp_path / "train" / "yes").mkdir(parents=True)
    (tmp_path / "train" / "yes" / "1.wav").write_bytes(b"RIFF")
    (tmp_path / "train.csv").write_text("file,label\nyes/1.wav,1\n")  # labels, no table of its own
    for name in ("val.csv", "val.jsonl"):
        (tmp_path / name).write_text("")
        started = init_project(tmp_path, None)

        data = load_project(tmp_path).data
        assert (data.calibration, data.evaluation) == ("train", name)
        assert started.open_points == ()
        (tmp_path / name).unlink()
        (tmp_path / "edgekit.toml").unlink()


@pytest.mark.parametrize(
    ("inputs", "data", "layout"),
    [
        ("float[N,3,8,8]", (4, 8, 8, 3), "NCHW"),
        ("float[N,3,H,W]", (4, 8, 8, 3), "NCHW"),
        ("float[N,3,8,8]", (4, 3, 8, 8), None),
        ("float[N,C,H,W]", (4, 3, 8, 8), None),
        ("float[N,8,8,3]", (4, 8, 8, 3), None),
    ],
)
def test_the_layout_is_set_only_where_the_data_has_to_be_turned(tmp_path, inputs, data, layout):
    model_file(tmp_path, f"g ({inputs} x) => ({inputs} y) {{ y = Relu(x) }}")
    images(tmp_path, data)

    init_project(tmp_path, None)

    preprocess = load_project(tmp_path).data.preprocess
    assert (preprocess.layout if preprocess else None) == layout


def test_names_with_quotes_and_line_breaks_do_no_harm(tmp_path):
    made = proto("g (float[N,3] x) => (float[N,3] y) { y = Relu(x) }")
    made.graph.input[0].name = made.graph.node[0].input[0] = "x\n[build]\ndevice = 'evil'"
    path = tmp_path / 'my "best" net\\.onnx'
    path.write_bytes(made.SerializeToString())

    init_project(tmp_path, None)

    project = load_project(tmp_path)
    assert project.model.path == path.name
    assert project.build.device is None


def test_an_existing_file_is_not_changed(tmp_path):
    dense(tmp_path)
    (tmp_path / "edgekit.toml").write_text("# mine")

    with pytest.raises(UserError, match="exists already"):
        init_project(tmp_path, None)
    assert (tmp_path / "edgekit.toml").read_text() == "# mine"


def test_with_several_models_or_none_the_user_is_asked(tmp_path):
    with pytest.raises(UserError, match="contains no model file"):
        init_project(tmp_path, None)
    dense(tmp_path, "a.onnx")
    dense(tmp_path, "b.onnx")
    with pytest.raises(UserError, match=r"2 model files \(a\.onnx, b\.onnx\)"):
        init_project(tmp_path, None)

    init_project(tmp_path, tmp_path / "b.onnx")
    assert load_project(tmp_path).model.path == "b.onnx"


def test_a_broken_model_leaves_no_half_written_file(tmp_path):
    (tmp_path / "net.onnx").write_bytes(b"\x08\x08rubbish")

    with pytest.raises(UserError, match=r"net\.onnx"):
        init_project(tmp_path, None)
    assert not (tmp_path / "edgekit.toml").exists()
