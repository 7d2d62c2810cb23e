"""Bundles are complete, reproducible, and agree with their manifests."""

from __future__ import annotations

import hashlib
import json
import zipfile

import pytest

from edgekit.bundle.bundle_file import open_bundle, write_bundle
from edgekit.bundle.manifest import (
    GOLDEN_SAMPLES,
    MANIFEST,
    BundledFile,
    Manifest,
    RuntimeUse,
    Tensor,
)
from edgekit.bundle.packing import TransferData, pack
from edgekit.config.profile import load_profile
from edgekit.errors import UserError
from edgekit_agent.packing.unpack import unpack

CONTENTS = {"model.onnx": b"model" * 1000, GOLDEN_SAMPLES: b"golden_samples"}


def manifest(**changes):
    files = tuple(
        BundledFile(name=name, digest=hashlib.sha256(data).hexdigest(), bytes=len(data))
        for name, data in CONTENTS.items()
    )
    facts = {
        "name": "tablet",
        "model": "model.onnx",
        "format": "onnx",
        "source_digest": "a" * 64,
        "inputs": (Tensor(name="x", dtype="float32", shape=("N", 3, None)),),
        "outputs": (Tensor(name="y", dtype="float32", shape=("N", 10)),),
        "metric": "top1",
        "output": None,
        "runtime": RuntimeUse(name="onnxruntime", version="1.22", threads=2),
        "profile": load_profile("tablet"),
        "files": files,
        "recipe": {},
        "provenance": {},
        "measurements": [],
        "verdict": {},
        "passes": True,
    }
    return Manifest(**facts | changes)


def text(made):
    return made.model_dump_json(by_alias=True).encode()


@pytest.fixture(params=["folder", "file"])
def lay(tmp_path, request):
    """Write a bundle as a folder or as one file."""

    def write(members):
        if request.param == "file":
            write_bundle(tmp_path / "tablet.edgekit", members)
            return tmp_path / "tablet.edgekit"
        for name, data in members.items():
            (tmp_path / name).write_bytes(data)
        return tmp_path

    return write


def test_a_bundle_reads_back_as_it_was_written(lay):
    bundle = open_bundle(lay(CONTENTS | {MANIFEST: text(manifest())}))

    assert bundle.manifest == manifest()
    assert {name: bundle.read(name) for name in CONTENTS} == CONTENTS
    assert {blob.name for blob in bundle.blobs()} == set(CONTENTS)
    bundle.check()


def test_a_packed_model_is_sent_packed_and_read_back_unchanged(tmp_path):
    whole = CONTENTS | {MANIFEST: text(manifest())}
    sent = pack(CONTENTS["model.onnx"])
    members = {k: v for k, v in whole.items() if k != "model.onnx"} | {"model.onnx.packed": sent}
    write_bundle(tmp_path / f"{manifest().name}.edgekit", members)
    for name, data in whole.items():
        (tmp_path / name).write_bytes(data)

    for path in (tmp_path / f"{manifest().name}.edgekit", tmp_path):
        bundle = open_bundle(path)
        bundle.check()
        assert bundle.read("model.onnx") == CONTENTS["model.onnx"]
        assert bundle.encode_for_transfer("model.onnx") == TransferData(
            encoding="packed", data=sent
        )


def test_a_build_folder_with_a_bundle_file_of_another_build_is_packed_again(tmp_path):
    other = CONTENTS | {"model.onnx": b"other" * 300, MANIFEST: text(manifest(metric="top5"))}
    other["model.onnx.packed"] = pack(other.pop("model.onnx"))
    write_bundle(tmp_path / f"{manifest().name}.edgekit", other)
    for name, data in (CONTENTS | {MANIFEST: text(manifest())}).items():
        (tmp_path / name).write_bytes(data)

    sent = open_bundle(tmp_path).encode_for_transfer("model.onnx")

    assert unpack(sent.data, len(CONTENTS["model.onnx"])) == CONTENTS["model.onnx"]


def test_a_damaged_packed_model_is_named(tmp_path):
    members = {k: v for k, v in CONTENTS.items() if k != "model.onnx"}
    members |= {"model.onnx.packed": pack(b"other" * 300), MANIFEST: text(manifest())}
    write_bundle(tmp_path / "b.edgekit", members)
    with pytest.raises(UserError, match=r"model\.onnx: cannot be read: "):
        open_bundle(tmp_path / "b.edgekit").check()


def test_a_changed_or_missing_file_is_named(lay):
    changed = open_bundle(lay(CONTENTS | {"model.onnx": b"other", MANIFEST: text(manifest())}))
    with pytest.raises(UserError, match=r"model\.onnx does not match the manifest"):
        changed.check()


def test_a_missing_file_is_named(lay):
    missing = open_bundle(lay({MANIFEST: text(manifest())}))
    with pytest.raises(UserError, match=r"model\.onnx: cannot be read"):
        missing.check()


@pytest.mark.parametrize("name", ["../model.onnx", "/etc/passwd", "a/b", "..", ".", ""])
def test_a_file_name_that_leaves_the_bundle_is_refused(lay, name):
    bad = manifest(files=(*manifest().files, BundledFile(name=name, digest="0" * 64, bytes=1)))

    with pytest.raises(UserError, match="not a valid file name"):
        open_bundle(lay({MANIFEST: text(bad)}))


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda m: m.pop("model"), "model: Field required"),
        (lambda m: m.update(extra=1), "extra"),
        (lambda m: m.update(schema_version=3), "built by a later edgekit .*upgrade edgekit"),
        (lambda m: m["profile"].pop("hardware"), r"profile\.hardware"),
        (lambda m: m.update(model="other.onnx"), r"the digest of other\.onnx is missing"),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_field(lay, edit, complaint):
    facts = json.loads(text(manifest()))
    edit(facts)

    with pytest.raises(UserError, match=complaint):
        open_bundle(lay({MANIFEST: json.dumps(facts).encode()}))


@pytest.mark.parametrize("data", [b"", b"{", b"\xff\xfe", b"[]"])
def test_a_manifest_that_is_not_json_is_refused(lay, data):
    with pytest.raises(UserError, match=r"manifest\.json"):
        open_bundle(lay({MANIFEST: data}))


def test_the_same_members_make_the_same_bytes(tmp_path):
    write_bundle(tmp_path / "a", CONTENTS)
    write_bundle(tmp_path / "b", dict(reversed(CONTENTS.items())))

    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert (tmp_path / "a").stat().st_size < len(CONTENTS["model.onnx"])


def test_a_damaged_bundle_is_refused_with_the_file(tmp_path):
    path = tmp_path / "tablet.edgekit"
    write_bundle(path, CONTENTS | {MANIFEST: text(manifest())})
    whole = path.read_bytes()

    for place in range(0, len(whole), 11):
        path.write_bytes(whole[:place])
        with pytest.raises(UserError):
            open_bundle(path)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0xFF]) + whole[place + 1 :])
        try:
            open_bundle(path).check()
        except UserError as error:
            assert "tablet.edgekit" in error.message  # noqa: PT017 - either is right
        else:
            assert open_bundle(path).manifest == manifest()


def test_a_file_that_is_not_a_bundle_is_refused_with_a_hint(tmp_path):
    (tmp_path / "plain.txt").write_text("hello")
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as archive:
        archive.writestr("readme", "hello")

    for path in (tmp_path, tmp_path / "plain.txt", tmp_path / "other.zip", tmp_path / "absent"):
        with pytest.raises(UserError, match="not a bundle") as refused:
            open_bundle(path)
        assert "edgekit build" in refused.value.hint
