"""Invalid or manipulated bundles are detected before the device switches to them."""

import hashlib
import json
import platform
import re
import shutil
import zipfile

import onnx
import pytest
from onnx import numpy_helper

from edgekit.bundle.bundle_file import open_bundle
from edgekit.errors import UserError
from tests.builders.projects import PROFILE, assert_refused, assert_untouched, edgekit
from tests.builders.servers import make_bundle

pytestmark = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the example's bundle is for x86_64"
)


@pytest.fixture
def bundle(built, workplace):
    """Copy a build folder, to be damaged."""
    return shutil.copytree(built[0] / "build" / PROFILE, workplace / PROFILE)


def zip_files(bundle):
    return bundle / f"{PROFILE}.edgekit"


def rewrite(path, **members):
    """Write the bundle file with other contents; ``None`` omits a member."""
    with zipfile.ZipFile(path) as archive:
        held = {name: archive.read(name) for name in archive.namelist()} | members
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in held.items():
            if data is not None:
                archive.writestr(name, data)


def refused_by_all(target, says):
    """Check that every command that reads a bundle refuses it before a device is reached."""
    home = target.parent
    with assert_untouched(home):
        assert_refused("push", target, "local", says=says)
        assert_refused("bench", target, "local", says=says)
    assert not (home.parent / "device" / "current").exists()


def test_files_that_are_not_bundles_are_refused(workplace, tiny):
    (workplace / "empty").mkdir()
    (workplace / "text.edgekit").write_text("no bundle")
    (workplace / "none.edgekit").write_bytes(b"")
    with zipfile.ZipFile(workplace / "zip.edgekit", "w") as archive:
        archive.writestr("readme.txt", "no manifest")
    for name in ("empty", "text.edgekit", "none.edgekit", "zip.edgekit", "missing.edgekit"):
        refused_by_all(workplace / name, f"{name}: not a bundle")
    with assert_untouched(workplace):
        assert_refused("push", tiny / "model.onnx", "local", says="model.onnx: not a bundle")
        assert_refused(
            "bench", workplace / "missing.onnx", "local", says="missing.onnx: cannot be read"
        )


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_changed_or_missing_file_of_a_build_folder_is_refused(bundle, name):
    data = bytearray((bundle / name).read_bytes())
    data[len(data) // 2] ^= 1
    (bundle / name).write_bytes(data)
    refused_by_all(bundle, f"{name} does not match the manifest")
    (bundle / name).write_bytes(data[:-10])
    refused_by_all(bundle, f"{name} does not match the manifest")
    (bundle / name).unlink()
    refused_by_all(bundle, f"{name}: cannot be read")


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz"])
def test_a_changed_or_missing_file_of_a_bundle_is_refused(bundle, name):
    with zipfile.ZipFile(zip_files(bundle)) as archive:
        stored = next(n for n in archive.namelist() if n.removesuffix(".packed") == name)
        data = archive.read(stored)
    rewrite(zip_files(bundle), **{stored: data[:-1] + bytes([data[-1] ^ 1])})
    refused_by_all(zip_files(bundle), f"{name}")
    rewrite(zip_files(bundle), **{stored: None} | {name: b"other bytes"})
    refused_by_all(zip_files(bundle), f"{name} does not match the manifest")
    rewrite(zip_files(bundle), **{stored: None, name: None})
    refused_by_all(zip_files(bundle), f"{name}: cannot be read")


def test_a_truncated_or_damaged_bundle_is_never_installed(bundle, tmp_path):
    path = zip_files(bundle)
    whole = path.read_bytes()
    release = open_bundle(path).manifest_bytes
    for cut in range(0, len(whole), len(whole) // 12):
        path.write_bytes(whole[:cut])
        assert_refused("push", path, "local", says="not a bundle")
    for at in range(0, len(whole), len(whole) // 40):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        done = edgekit("push", path, "toaster.invalid")
        assert done.code in (2, 4), done
        assert "Traceback" not in done.err
        if done.code == 4:  # whole all the same: the byte says nothing of the contents
            assert open_bundle(path).manifest_bytes == release
    assert not (tmp_path / "device" / "current").exists()


def edit(bundle, **changes):
    manifest = json.loads((bundle / "manifest.json").read_text()) | changes
    (bundle / "manifest.json").write_text(json.dumps(manifest))


@pytest.mark.parametrize("name", ["../../model.onnx", "/tmp/model.onnx", "..", "sub/model.onnx"])
def test_a_manifest_that_names_files_outside_the_bundle_is_refused(bundle, name):
    text = (bundle / "manifest.json").read_text()
    files = json.loads(text)["files"]
    edit(bundle, files=[{**files[0], "name": name}, *files[1:]])
    refused_by_all(bundle, f"manifest.json: not a valid file name: {name!r}")
    (bundle / "manifest.json").write_text(text)
    edit(bundle, model=name)
    refused_by_all(bundle, "manifest.json: the digest of")
    (bundle / "manifest.json").write_text(text)
    edit(bundle, golden_samples=name)
    refused_by_all(bundle, "manifest.json: the digest of")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"schema_version": 3}, "built by a later edgekit (manifest schema version 3"),
        ({"runtime": None}, "manifest.json: runtime: "),
        ({"format": "pickle"}, "manifest.json: format: "),
        ({"runtime": {"name": "onnxruntime", "version": "1" * 5000, "threads": 1}}, "version: "),
        ({"color": "red"}, "manifest.json: color: "),
        ({"files": []}, "manifest.json: the digest of golden.npz, model.onnx is missing"),
    ],
)
def test_a_manifest_with_missing_or_wrong_fields_is_refused(bundle, changes, says):
    edit(bundle, **changes)
    refused_by_all(bundle, says)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        (".hidden", "not a valid file name"),
        ("-rf", "not a valid file name"),
        ("a\nb", "not a valid file name: 'a\\nb'"),
        ("m\u043edel.onnx", "not a valid file name"),  # a Cyrillic letter
        ("model.onnx", "two files named 'model.onnx'"),
        ("MODEL.onnx", "two files named 'MODEL.onnx'"),
        ("Release.json", "two files named 'Release.json'"),
        ("manifest.json", "two files named 'manifest.json'"),
        (None, "1003 files, more than the limit of 1000"),
    ],
)
def test_files_that_no_device_accepts_are_refused_on_the_host(workplace, name, says):
    """The device refused them once all was sent, and the exit code was 4."""
    path = make_bundle(workplace / "b", width=8).path
    files = json.loads((path / "manifest.json").read_text())["files"]
    names = [f"f{n}" for n in range(1000)] if name is None else [name]
    edit(path, files=[*files, *({**files[0], "name": each} for each in names)])
    with pytest.raises(UserError, match=re.escape(says)):
        open_bundle(path)


@pytest.mark.parametrize("name", ["n" * 5000, "a/b", "../../x", "a\0b", ""])
def test_a_bundle_whose_file_cannot_bear_its_name_is_refused(workplace, name):
    """The first ended in a traceback."""
    path = make_bundle(workplace / "b", width=8).path
    edit(path, name=name)
    refused_by_all(path, "manifest.json: name: ")


@pytest.mark.parametrize("size", [1, 1 << 40, (1 << 62) + 1])
def test_a_wrong_declared_size_is_refused(workplace, size):
    """The last was "out of memory": so much room was made before a byte was read."""
    path = make_bundle(workplace / "b", width=8).path
    files = json.loads((path / "manifest.json").read_text())["files"]
    edit(path, files=[{**files[0], "bytes": size}, *files[1:]])
    with pytest.raises(UserError, match=r"larger than 1 bytes|its size differs"):
        open_bundle(path).check()


def test_a_manifest_that_is_not_json_is_refused(bundle):
    (bundle / "manifest.json").write_bytes(b"\xff\xfe{")
    refused_by_all(bundle, "manifest.json: ")


def test_a_forged_model_fails_the_health_check_and_is_not_served(built, bundle):
    assert edgekit("push", bundle, "local").code == 0
    before = edgekit("status", "local").out
    # Another model of the same signature with a digest that is right: only its answers tell.
    other = onnx.load(built[0] / "model.onnx")
    for weight in other.graph.initializer:
        weight.CopyFrom(numpy_helper.from_array(-numpy_helper.to_array(weight), weight.name))
    wrong = other.SerializeToString()
    (bundle / "model.onnx").write_bytes(wrong)
    manifest = json.loads((bundle / "manifest.json").read_text())
    for file in manifest["files"]:
        if file["name"] == "model.onnx":
            file |= {"digest": hashlib.sha256(wrong).hexdigest(), "bytes": len(wrong)}
    edit(bundle, files=manifest["files"])
    done = edgekit("push", bundle, "local")
    assert done.code == 4, done
    assert "relative RMS error" in done.err, done.err
    assert edgekit("status", "local").out == before
