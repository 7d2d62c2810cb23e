"""edgekit.toml: values, defaults, and all errors at once."""

from __future__ import annotations

import pytest

from edgekit.config.project import Project, load_project
from edgekit.errors import UserError


@pytest.fixture
def read(tmp_path):
    def write_and_read(text):
        (tmp_path / "edgekit.toml").write_text(text, encoding="utf-8")
        return load_project(tmp_path)

    return write_and_read


def test_a_folder_without_the_file_is_a_project_of_defaults(tmp_path):
    assert load_project(tmp_path) == Project()


def test_everything_that_can_be_set_is_read(read):
    project = read("""
        [model]
        path = "net.onnx"
        dims = { time = 16 }
        [data]
        calibration = "calib.npz"
        evaluation = "eval.npz"
        metric = "top5"
        output = "scores"
        [data.preprocess]
        resize = 256
        crop = 224
        scale = 0.5
        mean = [1, 2.5, 3]
        std = 2
        layout = "NCHW"
        [gate]
        max_drop_points = 0.5
        require_proof = true
        [build]
        device = "tablet"
        seed = 3
    """)

    assert project.model.dims == {"time": 16}
    assert project.data.metric == "top5"
    assert project.gate.max_drop_points == 0.5
    assert project.build.seed == 3
    how = project.data.preprocess.to_preprocess()
    assert (how.scale, how.mean, how.std, how.channels_first) == (0.5, (1, 2.5, 3), (2,), True)


def test_all_mistakes_are_reported_at_once_with_their_paths(read):
    with pytest.raises(UserError) as refused:
        read('[model]\npaht = "x"\n[data]\nmetric = 1\n[gate]\nmax_drop_points = -1\n')

    for path in ("model.paht: unknown key", "data.metric", "gate.max_drop_points"):
        assert path in str(refused.value)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        ("std = 0", "data.preprocess.std"),
        ("std = [1.0, 0.0, 1.0]", "data.preprocess.std"),
        ("mean = []", "data.preprocess.mean"),
        ("scale = nan", "data.preprocess.scale"),
        ("mean = inf", "data.preprocess.mean"),
        ("crop = 0", "data.preprocess.crop"),
        ('scale = "2"', "data.preprocess.scale"),
    ],
)
def test_preprocessing_that_would_make_nonsense_is_refused(read, line, path):
    with pytest.raises(UserError, match=path):
        read(f"[data.preprocess]\n{line}\n")


def test_a_dimension_of_nothing_is_refused(read):
    with pytest.raises(UserError, match=r"model\.dims\.time"):
        read("[model]\ndims = { time = 0 }\n")


def test_what_is_not_toml_is_refused_with_the_place(read):
    with pytest.raises(UserError, match=r"edgekit\.toml: not TOML: .*line 1"):
        read("[model\n")


def test_a_folder_in_place_of_the_file_and_a_missing_folder_cause_different_errors(tmp_path):
    (tmp_path / "edgekit.toml").mkdir()
    with pytest.raises(UserError, match="directory"):
        load_project(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        load_project(tmp_path / "absent")


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("constant = nan", "x.constant: input should be a valid boolean or "),
        ("constant = { a = 1 }", "or a valid array, got {'a': 1}"),
        ("batch_axis = 'two'", "x.batch_axis: input should be a valid integer or 'none', got"),
    ],
)
def test_an_error_in_a_field_of_several_types_is_one_line(read, line, told):
    with pytest.raises(UserError) as caught:
        read(f"[model.inputs.x]\n{line}\n")
    assert told in caught.value.message
    assert "\n" not in caught.value.message
