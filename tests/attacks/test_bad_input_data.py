"""Invalid or damaged data: one line names the cause, and nothing is written."""

import io
import zipfile

import numpy as np
import onnx
import onnx.parser
import pytest

from edgekit.conversion.open_model import read_model
from edgekit.data.dataset import open_dataset
from edgekit.errors import UserError
from edgekit_agent.measure.feeds import open_columns
from tests.builders.projects import assert_refused, assert_untouched, spawn

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 4)).astype(np.float32)
LABEL = RNG.integers(0, 3, size=40)


def spoilt(index, value):
    array = X.copy()
    array[index] = value
    return array


def refused_build(project, *arguments, says):
    with assert_untouched(project):
        return assert_refused("build", "-C", project, *arguments, says=says)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pixels": X, "label": LABEL}, "no array for the model input 'x'; arrays found: pixels"),
        ({"label": LABEL}, "no array for the model input 'x'; arrays found: none"),
        ({"x": X[:, :3], "label": LABEL}, "x: samples of shape [3] do not fit the model input"),
        ({"x": X[:, :, None], "label": LABEL}, "x: samples of shape [4, 1] do not fit"),
        ({"x": np.float32(1), "label": LABEL}, "x: a single value"),
        ({"x": X[:, 0], "label": LABEL}, "x: samples of shape [] do not fit"),
        ({"x": X.astype(complex), "label": LABEL}, "x: contains complex128, not numbers"),
        ({"x": X.astype("U8"), "label": LABEL}, "x: contains <U8, not numbers"),
        ({"x": X.astype(np.int64), "label": LABEL}, "x: int64 cannot be fed to a float32 input"),
        ({"x": X[:30], "label": LABEL}, "arrays differ in their number of samples"),
        ({"x": X[:0], "label": LABEL[:0]}, "has no samples"),
        ({"x": spoilt(7, np.nan), "label": LABEL}, "x: sample 7 has NaN or infinite values"),
        ({"x": spoilt(9, np.inf), "label": LABEL}, "x: sample 9 has NaN or infinite values"),
        ({"x": spoilt(0, -np.inf), "label": LABEL}, "x: sample 0 has NaN or infinite values"),
        ({"x": X}, "eval.npz: metric top1 needs targets"),
        ({"x": X, "label": LABEL + 0.5}, "labels must be integers"),
        ({"x": X, "label": np.eye(3, dtype=int)[LABEL]}, "one label per sample is needed"),
        ({"x": X, "label": np.where(LABEL == 2, np.nan, LABEL)}, "label: sample"),
        ({"x": X, "label": LABEL + 1}, "eval.npz: label 3 of sample"),
        ({"x": X, "label": LABEL - 5}, "must be from 0 to 2, as there are 3 classes"),
        ({"x": X, "label": LABEL, "slice_a": LABEL[:5]}, "slice_a 5"),
        ({"x": np.asfortranarray(X), "label": LABEL}, "x: stored in Fortran order"),
        ({"x": X.astype(">f4"), "label": LABEL}, "x: stored big-endian"),
        ({}, "contains no arrays"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)
def test_evaluation_data_that_does_not_fit_is_refused(tiny, arrays, says):
    np.savez(tiny / "eval.npz", **arrays)
    refused_build(tiny, "--metric", "top1", says=says)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"pixels": X}, "no array for the model input 'x'"),
        ({"x": X[:, :3]}, "calib.npz: x: samples of shape [3] do not fit"),
        ({"x": spoilt(3, np.nan)}, "calib.npz: x: sample 3 has NaN"),
        ({"x": X[:0]}, "calib.npz: has no samples"),
    ],
    ids=["name", "shape", "nan", "none"],
)
def test_calibration_data_that_does_not_fit_is_refused(tiny, arrays, says):
    np.savez(tiny / "calib.npz", **arrays)
    refused_build(tiny, says=says)


def test_objects_in_an_archive_are_never_unpickled(tiny):
    class Trap:
        def __reduce__(self):
            return (open, (str(tiny / "sprung"), "w"))

    for name, arrays in {
        "x": {"x": np.array([Trap()] * 40, object), "label": LABEL},
        "label": {"x": X, "label": np.array([Trap()] * 40, object)},
        "more": {"x": X, "label": LABEL, "more": np.array([Trap()] * 40, object)},
    }.items():
        np.savez(tiny / "eval.npz", allow_pickle=True, **arrays)
        refused_build(tiny, says=f"{name}: contains object, not numbers")
    assert not (tiny / "sprung").exists()


def assert_refused_or_whole(project):
    """Check an archive; bytes that no array depends on (dates, comments) may be anything."""
    signature = read_model(project / "model.onnx").signature
    cache = project.parent / "columns"
    try:
        found = open_dataset("eval.npz", signature, folder=project, cache=cache, targets="required")
    except UserError:
        return
    columns = (*found.samples.columns, found.samples.label)
    with open_columns(columns) as opened:
        for column, array in zip(columns, (X, LABEL), strict=True):
            np.testing.assert_array_equal(opened[column.name].read(0, len(array)), array)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_a_truncated_or_damaged_archive_is_refused_or_read_completely(tiny, save):
    path = tiny / "eval.npz"
    save(path, x=X, label=LABEL)
    whole = path.read_bytes()
    for cut in np.linspace(0, len(whole) - 1, 25, dtype=int):
        path.write_bytes(whole[:cut])
        refused_build(tiny, says="eval.npz")
    for at in np.linspace(0, len(whole) - 1, 150, dtype=int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        assert_refused_or_whole(tiny)
    path.write_bytes(b"not a zip at all")
    refused_build(tiny, says="eval.npz: not an .npz file")
    path.write_bytes(b"")
    refused_build(tiny, says="eval.npz: not an .npz file")


def npz(path, **members):
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            archive.writestr(f"{name}.npy", data)


def npy(array, header=None):
    buffer = io.BytesIO()
    np.save(buffer, array)
    data = buffer.getvalue()
    if header is None:
        return data
    text = header.encode() + b"\n"
    return data[:8] + len(text).to_bytes(2, "little") + text + array.tobytes()


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1000000, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-40, -4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (40, -1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (4611686018427387904, 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': 160}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': ('a', 4)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (40.0, 4)}",
        "{'descr': '<f4', 'fortran_order': False}",
        "{'descr': '<f4', 'shape': (40, 4)}",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (40, 4)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (40, 4)}",
        "['descr']",
        "__import__('os').system('true')",
        "{" * 500,
        "",
    ],
)
def test_an_array_with_a_wrong_header_is_refused(tiny, header):
    npz(tiny / "eval.npz", x=npy(X, header), label=npy(LABEL))
    refused_build(tiny, says="eval.npz: x: ")


def test_missing_data_is_named(tiny):
    refused_build(tiny, "--eval", "none.npz", says="none.npz: no such file or folder")
    refused_build(tiny, "--data", "none.npz", says="none.npz: no such file or folder")
    refused_build(tiny, "--eval", "no_module:f", says="no_module:f: ModuleNotFoundError")
    (tiny / "empty").mkdir()
    refused_build(tiny, "--eval", "empty", says="empty: contains neither .npy files nor images")
    (tiny / "eval.npz").write_text("label,x\n1,2\n")
    refused_build(tiny, says="eval.npz: not an .npz file")


def test_a_build_without_evaluation_data_is_refused(tiny):
    settings = (tiny / "edgekit.toml").read_text().replace('evaluation = "eval.npz"', "")
    (tiny / "edgekit.toml").write_text(settings)
    done = refused_build(tiny, says="no evaluation data")
    assert "--eval EVAL" in done.err


def test_a_metric_that_does_not_fit_the_output_is_refused(tiny):
    refused_build(
        tiny, "--metric", "binary", says="metric binary needs one output value, the output has 3"
    )


def test_preprocessing_that_does_not_fit_the_channels_is_refused(tiny):
    with (tiny / "edgekit.toml").open("a") as file:
        file.write("[data.preprocess]\nmean = [1.0, 2.0]\n")
    refused_build(tiny, says="mean has 2 values for 4 channels")


def test_an_outlier_that_ruins_the_quantization_is_named(workplace):
    """The pass was said to have broken its promise, with exit code 1."""
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (float[N, 4] x) => (float[N, 2] y)'
        " <float[4, 2] w = {1, 2, 3, 4, 5, 6, 7, 8}> { h = MatMul(x, w) y = Relu(h) }"
    )
    onnx.save(model, workplace / "model.onnx")
    x = np.abs(np.random.default_rng(0).standard_normal((40, 4))).astype(np.float32)
    x[7] = -1.8e36  # its output is 0
    np.savez(workplace / "calib.npz", x=x)
    assert_refused(
        *("apply", "quantize-static", workplace / "model.onnx", "-o", workplace / "out.onnx"),
        *("--data", workplace / "calib.npz"),
        says="sample 7 of x is an outlier: its largest value, 1.8e+36, ",
    )


def test_preprocessing_that_divides_by_zero_is_refused(tiny):
    with (tiny / "edgekit.toml").open("a") as file:
        file.write("[data.preprocess]\nstd = 0.0\n")
    refused_build(tiny, says="std")


def test_wrong_evaluation_data_end_a_bench_with_2(tiny):
    np.savez(tiny / "eval.npz", x=X[:, :3], label=LABEL)
    with assert_untouched(tiny):
        assert_refused(
            "bench",
            "-C",
            tiny,
            tiny / "model.onnx",
            "local",
            "--eval",
            "eval.npz",
            says="shape [3]",
        )


def test_bad_data_end_a_real_process_with_2_and_no_traceback(tiny):
    np.savez(tiny / "eval.npz", x=spoilt(7, np.nan), label=LABEL)
    with assert_untouched(tiny):
        done = spawn("build", "-C", tiny)
    assert (done.code, done.out) == (2, "")
    # On a busy machine lines that tell how far it is may stand before the message.
    assert "Traceback" not in done.err
    assert (
        "edgekit: eval.npz: x: sample 7 has NaN or infinite values\n  remove or fix these samples\n"
    ) in done.err


@pytest.mark.parametrize(
    ("tables", "metric", "says"),
    [
        (
            "[gate.guards]\nlog-loss = 2\n",
            "agreement",
            "log-loss compares with targets, but agreement with the outputs of the original",
        ),
        ('[postprocess]\nkind = "ctc"\n', "cer", "edgekit.toml: postprocess.charset: missing"),
        ("", "miou", "eval.npz: the target of sample 0 must have whole numbers only"),
    ],
    ids=["guard", "charset", "whole numbers"],
)
def test_metric_that_does_not_fit_is_refused_with_file_and_advice(tiny, tables, metric, says):
    with (tiny / "edgekit.toml").open("a") as file:
        file.write(tables)
    np.savez(tiny / "eval.npz", x=X, label=LABEL + 0.5)
    refused_build(tiny, "--metric", metric, says=says)


def test_texts_as_labels_of_a_classifier_are_refused_with_what_to_do(tiny):
    np.savez(tiny / "eval.npz", x=X, y=np.array(["cat", "dog"] * 20)[: len(X)])

    done = refused_build(tiny, "--metric", "top1", says="one label per sample is needed")

    assert "the targets are texts: for metric top1, number the classes 0, 1, ..." in done.err
