"""The statement of a package: what is taken, what is refused, and its bytes."""

import dataclasses
import json

import pytest

from edgekit_agent.apps.package_format import (
    Package,
    PackagedModel,
    PackageFile,
    decode_package,
    encode_package,
)

DIGEST = "0" * 64
PACKAGE = Package(
    name="leaf-check",
    version="1.0",
    title="Leaf check",
    arch="aarch64",
    python=(3, 11),
    glibc=(2, 28),
    input="image",
    files=(
        PackageFile("__main__.py", DIGEST, 1),
        PackageFile("app/répertoire/with blank.txt", DIGEST, 1),
        PackageFile("edgekit_agent/__init__.py", DIGEST, 1),
        PackageFile("models/leaf/manifest.json", DIGEST, 1),
        PackageFile("models/leaf/model.onnx.packed", DIGEST, 1, DIGEST, 4),
        PackageFile("wheels/numpy-2.0-py3-none-any.whl", DIGEST, 1),
    ),
    models=(PackagedModel("leaf", "models/leaf", "onnxruntime", 2),),
    wheels=("wheels/numpy-2.0-py3-none-any.whl",),
)


def test_a_statement_is_read_as_it_was_written():
    assert decode_package(encode_package(PACKAGE)) == PACKAGE
    assert encode_package(PACKAGE) == encode_package(decode_package(encode_package(PACKAGE)))


def test_an_installed_model_has_its_own_name_digest_and_size():
    packed = PACKAGE.find_file("models/leaf/model.onnx.packed")
    assert packed.installed_path == "models/leaf/model.onnx"
    assert packed.installed_bytes == 4
    assert not any(f.path.startswith(("wheels/", "__main__")) for f in PACKAGE.list_installed())


@pytest.mark.parametrize(
    "path",
    [
        "../outside",
        "app/../../outside",
        "/etc/passwd",
        "app//twice",
        "app/.hidden",
        "app/back\\slash",
        "app/line\nfeed",
        "app/" + "x" * 201,
        "app/\udcff",
        "package.json",
        "releases/x",
        "app",
        "edgekit_agent/__INIT__.py",
        "__main__.py",
        "edgekit_agent/__init__.py/below",
        "models/leaf/model.onnx",
    ],
)
def test_a_path_that_leaves_the_package_or_collides_is_refused(path):
    with pytest.raises(ValueError, match=r"path|twice|below|longer"):
        encode_package(add_file(PackageFile(path, DIGEST, 1)))


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Leaf"},
        {"name": "leaf\n"},
        {"name": ""},
        {"version": "1 0"},
        {"title": "two\nlines"},
        {"arch": "vax"},
        {"python": (3,)},
        {"glibc": (2, -1)},
        {"input": "smell"},
        {"entry": "os.system"},
        {"memory_mib": -1},
        {"models": ()},
        {"models": (PackagedModel("leaf", "models/other", "onnxruntime"),)},
        {"models": (PackagedModel("leaf", "models/leaf", "torch"),)},
        {"models": (PackagedModel("leaf", "models/leaf", "onnxruntime", 0),)},
        {"models": (PackagedModel("lost", "models/lost", "onnxruntime"),)},
        {"wheels": ()},
        {"schema_version": 2},
    ],
    ids=str,
)
def test_a_field_out_of_its_limits_is_refused_by_its_name(changes):
    (field,) = changes
    with pytest.raises(ValueError, match=rf"{field}|files"):
        encode_package(dataclasses.replace(PACKAGE, **changes))


@pytest.mark.parametrize("size", [-1, 1 << 40])
def test_a_size_out_of_its_limits_is_refused(size):
    with pytest.raises(ValueError, match="bytes"):
        encode_package(add_file(PackageFile("app/large", DIGEST, size)))


@pytest.mark.parametrize(
    "data",
    [b"", b"[]", b"{}", b'{"schema_version": 1}', b'{"schema_version": 2}', b"\xff", b"[" * 9999],
)
def test_bytes_that_are_no_statement_are_refused(data):
    with pytest.raises(ValueError, match=r"\w"):
        decode_package(data)


def test_an_unknown_field_is_refused():
    values = json.loads(encode_package(PACKAGE))
    with pytest.raises(ValueError, match="scripts"):
        decode_package(json.dumps({**values, "scripts": []}).encode())


def add_file(file: PackageFile) -> Package:
    return dataclasses.replace(PACKAGE, files=(*PACKAGE.files, file))
