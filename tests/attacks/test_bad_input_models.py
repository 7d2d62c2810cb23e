"""Invalid or damaged model files: one line names the cause, and nothing is written."""

import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import onnx
import onnx.parser
import pytest
from onnx import TensorProto, helper

from tests.builders.projects import (
    DIGITS,
    PROFILE,
    assert_refused,
    assert_untouched,
    edgekit,
    inspect_all,
)

PNG = b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + bytes(64)


def refused_everywhere(project, model, says):
    """Check that every command that reads a model refuses it."""
    home = project.parent.parent
    with assert_untouched(project, home):
        assert_refused("build", "-C", project, model, says=says)
        assert_refused("inspect", "-C", project, model, says=says)
        assert_refused("bench", "-C", project, model, "local", says=says)
        (project / "edgekit.toml").rename(home / "aside")
        try:
            assert_refused("init", "-C", project, model, says=says)
        finally:
            (home / "aside").rename(project / "edgekit.toml")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "the file is empty"),
        (b"not a model at all\n", "not an ONNX model, or truncated"),
        (PNG, "not an ONNX model, or truncated"),
        (b"\x1c\x00\x00\x00TFL3", "LiteRT rejects the file"),
        (b"\x00" * 4096, "not an ONNX model, or truncated"),
        (b"PK\x03\x04" + bytes(100), "not an ONNX model, or truncated"),
    ],
    ids=["empty", "text", "png", "tflite-head", "zeros", "zip"],
)
def test_a_file_that_is_not_a_model_is_refused(tiny, content, says):
    (tiny / "thing.onnx").write_bytes(content)
    refused_everywhere(tiny, tiny / "thing.onnx", says)


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"PK\x03\x04" + bytes(100), "it is a zip archive: unpack it"),
        (b"\x1f\x8b\x08" + bytes(100), "it is compressed by gzip: unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>404</html>", "it is a web page"),
        (b'{"layers": []}', "it is JSON text"),
        (b"\x0a\x7f", "compare the file size with its source"),
    ],
    ids=["zip", "gzip", "lfs", "html", "json", "cut"],
)
def test_another_kind_of_file_is_named_with_the_remedy(tiny, content, advice):
    (tiny / "thing.onnx").write_bytes(content)
    assert_refused("inspect", tiny / "thing.onnx", says=advice)


def test_a_folder_and_a_missing_file_are_refused(tiny):
    refused_everywhere(tiny, tiny / "none.onnx", "none.onnx: cannot be read: No such file")
    (tiny / "folder.onnx").mkdir()
    with assert_untouched(tiny):
        assert_refused("build", "-C", tiny, tiny / "folder.onnx", says="a folder, not a model file")
        assert_refused("inspect", tiny / "folder.onnx", says="a folder, not a model file")


def saved(project, text):
    path = project / "model.onnx"
    onnx.save(onnx.parser.parse_model(text), path)
    return path


def test_an_opset_newer_than_this_onnx_is_refused(tiny):
    newest = onnx.defs.onnx_opset_version()
    model = saved(
        tiny,
        f'<ir_version: 10, opset_import: ["" : {newest + 7}]>\n'
        "g (float[N, 4] x) => (float[N, 4] y) { y = Relu(x) }",
    )
    refused_everywhere(tiny, model, f"opset {newest + 7} is newer than the newest known")


def test_an_ir_version_newer_than_this_onnx_is_refused(tiny):
    model = onnx.load(tiny / "model.onnx")
    model.ir_version = 99
    onnx.save(model, tiny / "model.onnx")
    refused_everywhere(tiny, tiny / "model.onnx", "model.onnx: ")


def test_an_operator_of_an_unknown_domain_is_refused(tiny):
    model = saved(
        tiny,
        '<ir_version: 10, opset_import: ["" : 17, "org.example" : 1]>\n'
        "g (float[N, 4] x) => (float[N, 4] y) { y = org.example.Frob(x) }",
    )
    refused_everywhere(tiny, model, "onnxruntime")


def test_an_operator_that_is_not_in_the_standard_is_refused(tiny):
    model = saved(
        tiny,
        '<ir_version: 10, opset_import: ["" : 17]>\n'
        "g (float[N, 4] x) => (float[N, 4] y) { y = Frobnicate(x) }",
    )
    refused_everywhere(tiny, model, "Frobnicate")


@pytest.mark.parametrize(
    ("kind", "named"),
    [
        (helper.make_sequence_type_proto, "sequence"),
        (helper.make_optional_type_proto, "optional"),
    ],
)
def test_an_input_that_is_not_a_tensor_is_refused(tiny, kind, named):
    tensor = helper.make_tensor_type_proto(TensorProto.FLOAT, [1, 4])
    given = helper.make_value_info("things", kind(tensor))
    if named == "sequence":
        node = helper.make_node("SequenceLength", ["things"], ["y"])
        out = helper.make_tensor_value_info("y", TensorProto.INT64, [])
    else:
        node = helper.make_node("OptionalHasElement", ["things"], ["y"])
        out = helper.make_tensor_value_info("y", TensorProto.BOOL, [])
    graph = helper.make_graph([node], "g", [given], [out])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.save(model, tiny / "model.onnx")
    refused_everywhere(tiny, tiny / "model.onnx", f"model.onnx: things: a {named}")


@pytest.mark.parametrize("side", ["input", "output"])
@pytest.mark.parametrize("number", [0, 99, -1])
def test_an_unknown_element_type_is_refused(tiny, side, number):
    """onnx's checker looks only whether there is one."""
    model = onnx.parser.parse_model(
        '<ir_version: 10, opset_import: ["" : 17]> g (float[4] x) => (float[4] y) { y = Relu(x) }'
    )
    (value,) = getattr(model.graph, side)
    value.type.tensor_type.elem_type = number
    onnx.save(model, tiny / "model.onnx")
    says = f"model.onnx: {value.name}: unknown element type {number}"
    refused_everywhere(tiny, tiny / "model.onnx", says)


def test_a_model_without_inputs_is_refused(tiny):
    model = saved(
        tiny,
        '<ir_version: 10, opset_import: ["" : 17]>\n'
        "g () => (float[2] y) { y = Constant<value = float[2] {1.0, 2.0}>() }",
    )
    refused_everywhere(tiny, model, "model.onnx: the model has no inputs")


def test_text_inputs_are_refused(tiny):
    model = saved(
        tiny,
        '<ir_version: 10, opset_import: ["" : 17]>\n'
        "g (string[N, 4] x) => (string[N, 4] y) { y = Identity(x) }",
    )
    with assert_untouched(tiny):
        assert_refused("build", "-C", tiny, model, says="x")
        assert edgekit("inspect", model).code in (0, 2)


# ---------------------------------------------------------------- external data


def external(project, location, *, data=b"", name="w", **entries):
    """Return a model whose matrix is stored in another file."""
    weight = TensorProto(
        name=name, data_type=TensorProto.FLOAT, dims=[4, 3], data_location=TensorProto.EXTERNAL
    )
    for key, value in {"location": location, **entries}.items():
        weight.external_data.add(key=key, value=str(value))
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    path = project / "model.onnx"
    path.write_bytes(model.SerializeToString())
    if data:
        (project / location).write_bytes(data)
    return path


WHOLE = np.ones((4, 3), np.float32).tobytes()


def test_external_data_inside_the_folder_is_read(tiny):
    external(tiny, "weights.bin", data=WHOLE, offset=0, length=48)
    assert edgekit("inspect", tiny / "model.onnx").code == 0


def test_missing_external_data_is_named(tiny):
    model = external(tiny, "weights.bin", length=48)
    refused_everywhere(tiny, model, "external data 'weights.bin' of tensor 'w' is missing")


@pytest.mark.parametrize(
    ("offset", "length", "says"),
    [
        (0, 48, "external data 'weights.bin' is truncated, 48 bytes needed"),
        (16, 48, "external data 'weights.bin' is truncated, 64 bytes needed"),
        (100, None, "external data 'weights.bin' is truncated, 148 bytes needed"),
        (0, None, "external data 'weights.bin' is truncated, 48 bytes needed"),
        (-8, 48, "external data 'weights.bin': a negative offset or length"),
        ("x", 48, "external data 'weights.bin': invalid literal"),
        (0, "y", "external data 'weights.bin': invalid literal"),
    ],
)
def test_truncated_external_data_is_named(tiny, offset, length, says):
    entries = {"offset": offset} | ({} if length is None else {"length": length})
    model = external(tiny, "weights.bin", data=WHOLE[:40], **entries)
    refused_everywhere(tiny, model, says)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", ""])
def test_external_data_outside_the_folder_is_refused(tiny, location):
    (tiny.parent / "secret.bin").write_bytes(WHOLE)
    (tiny / "sub").mkdir()
    model = external(tiny, location, offset=0, length=48)
    refused_everywhere(tiny, model, "outside the model's folder")


def test_external_data_behind_a_link_to_the_outside_is_refused(tiny):
    (tiny.parent / "secret.bin").write_bytes(WHOLE)
    (tiny / "weights.bin").symlink_to("../secret.bin")
    model = external(tiny, "weights.bin", offset=0, length=48)
    refused_everywhere(tiny, model, "outside the model's folder")


# ---------------------------------------------------------------- damage anywhere


def iter_damaged(whole, count):
    """Yield files truncated anywhere, and files with wrong bytes, mostly in the structure."""
    draw = random.Random(7)
    for _ in range(count):
        yield whole[: draw.randrange(len(whole))]
        spoilt = bytearray(whole)
        for _ in range(draw.choice((1, 1, 2, 8))):
            edge = draw.randrange(min(600, len(whole)))
            spoilt[draw.choice((edge, -1 - edge, draw.randrange(len(whole))))] = draw.randrange(256)
        yield bytes(spoilt)


def test_damage_anywhere_is_refused_or_harmless_and_never_a_crash(tiny):
    paths = []
    for source in (tiny / "model.onnx", DIGITS / "model.onnx"):
        for content in iter_damaged(source.read_bytes(), 60):
            paths.append(tiny / f"{len(paths)}.onnx")
            paths[-1].write_bytes(content)
    # In a process of its own, where a crash of the runtime is seen and harms nobody.
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool, assert_untouched(tiny):
        ended = pool.submit(inspect_all, paths).result(timeout=120)
    assert len(ended) == len(paths)
    codes = {done.code for done in ended}
    assert codes == {0, 2}, "some damage is harmless, most of it is not"
    for path, done in zip(paths, ended, strict=True):
        assert "Traceback" not in done.err
        if done.code == 2:
            assert done.err.startswith(f"edgekit: {path}: ")
            assert done.err.count("\n") <= 2, done.err


# ---------------------------------------------------------------- models and devices


def test_operators_and_opsets_that_the_device_forbids_are_all_named(tiny):
    profile = (tiny / "own.toml").resolve()
    text = edgekit("devices", "show", PROFILE).out
    text = text.replace("[runtimes.onnxruntime]", "[runtimes.onnxruntime]\nforbidden=['MatMul']")
    profile.write_text(
        "\n".join("opset_max = 11" if "opset_max" in s else s for s in text.split("\n"))
    )
    with assert_untouched(tiny):
        done = assert_refused(
            "build", "-C", tiny, "--device", profile, says="operator MatMul (1 nodes)"
        )
    assert "opset 17 is above 11" in done.err


def test_a_runtime_that_the_device_does_not_have_is_refused(tiny):
    with assert_untouched(tiny):
        asked = ("build", "-C", tiny, "--device", "beaglebone-black", "--runtime", "onnxruntime")
        assert_refused(*asked, says="beaglebone-black has no onnxruntime (litert only)")


def test_the_undamaged_model_is_accepted(tiny):
    done = edgekit("inspect", DIGITS / "model.onnx", "--device", PROFILE)
    stages = ["reading the model", "counting MACs", "checking operators"]
    assert (done.code, done.err.splitlines()) == (0, stages)
