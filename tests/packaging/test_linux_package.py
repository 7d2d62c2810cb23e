"""Package files for Linux: reproducible, complete, small, and free of other files of the user."""

import hashlib
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from edgekit_agent.apps.package_format import decode_package
from edgekit_agent.codec import decode
from edgekit_agent.trust.signatures import has_valid_signature, read_statement
from edgekit_agent.trust.statements import Signature, Statement
from tests.builders.projects import edgekit, spawn

pytestmark = pytest.mark.slow

MOST_BYTES = {"litert": 45e6, "onnxruntime": 60e6}


def package(*words, **environment):
    done = spawn("package", *words, "--target", "linux", "--json", **environment)
    assert done.code == 0, done.err
    return json.loads(done.out)


@pytest.fixture(scope="module")
def bundle(built):
    """The folder of a build."""
    return built[0] / "build" / "tablet-x86"


@pytest.fixture(scope="module")
def packaged(bundle, shared_cache, tmp_path_factory):
    """A package of one bundle, and the report on it; read-only."""
    path = tmp_path_factory.mktemp("packaged") / "digits.run"
    words = (bundle, "-o", path, "--name", "digits")
    return path, package(*words, EDGEKIT_CACHE=shared_cache)


def test_a_package_is_a_shell_script_with_all_that_its_statement_names(packaged):
    path, report = packaged
    assert path.read_bytes().startswith(b"#!/bin/sh\n")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        data = archive.read("package.json")
        statement = decode_package(data)
        listed = {file.path: (file.digest, file.bytes) for file in statement.files}
        held = {
            name: (hashlib.sha256(archive.read(name)).hexdigest(), archive.getinfo(name).file_size)
            for name in archive.namelist()
        }
    assert held.pop("package.json")[1] == len(data)
    assert held == listed
    assert list(held) == sorted(held)
    assert (statement.name, statement.input, statement.arch) == ("digits", "form", "x86_64")
    assert statement.python == (3, 11)
    assert report["release"] == hashlib.sha256(data).hexdigest()[:16]


def test_a_package_is_small(packaged, bundle):
    path, report = packaged
    runtime = json.loads((bundle / "manifest.json").read_text())["runtime"]["name"]
    assert path.stat().st_size == report["bytes"] <= MOST_BYTES[runtime]
    assert report["parts"]["runtime"] > report["parts"]["agent"] > 0


def test_a_package_has_the_same_bytes_whenever_and_wherever_it_is_made(
    packaged, bundle, shared_cache, tmp_path
):
    path, _ = packaged
    again = tmp_path / "other-name.run"
    moved = tmp_path / "elsewhere" / "tablet-x86"
    moved.parent.mkdir()
    subprocess.run(["cp", "-r", str(bundle), str(moved)], check=True)
    before = os.umask(0o077)
    try:
        package(
            *(moved, "-o", again, "--name", "digits"),
            EDGEKIT_CACHE=shared_cache,
            PYTHONHASHSEED="7",
            TZ="Asia/Tokyo",
            LC_ALL="C",
        )
    finally:
        os.umask(before)
    assert again.read_bytes() == path.read_bytes()


def test_the_files_of_the_user_are_listed(packaged, bundle):
    path, report = packaged
    manifest = json.loads((bundle / "manifest.json").read_text())
    names = {f"models/main/{f['name']}" for f in manifest["files"]} | {"models/main/manifest.json"}
    assert {file["path"].removesuffix(".packed") for file in report["files"]} == names
    assert {file["source"].partition(": ")[0] for file in report["files"]} == {str(bundle)}
    with zipfile.ZipFile(path) as archive:
        members = set(archive.namelist())
    assert not {name for name in members if name.endswith((".html", ".jsonl")) and "models" in name}


def test_copies_of_real_samples_in_a_package_are_told(packaged, bundle, shared_cache, tmp_path):
    assert not any("calibration samples" in note for note in packaged[1]["notes"])
    copied = tmp_path / "bundle"
    copied.mkdir()
    manifest = json.loads((bundle / "manifest.json").read_text())
    for name in (manifest["model"], manifest["golden_samples"]):
        (copied / name).write_bytes((bundle / name).read_bytes())
    changed = {**manifest, "golden_kind": "calibration"}
    (copied / "manifest.json").write_text(json.dumps(changed))
    report = package(copied, "-o", tmp_path / "x.run", EDGEKIT_CACHE=shared_cache)
    assert any("models/main/golden.npz holds coarse copies" in note for note in report["notes"])


def test_the_wheels_of_a_package_load_and_run_its_model(packaged, bundle, tmp_path):
    path, _ = packaged
    manifest = json.loads((bundle / "manifest.json").read_text())
    site = tmp_path / "site"
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            if name.startswith("wheels/"):
                archive.extract(name, tmp_path)
                with zipfile.ZipFile(tmp_path / name) as wheel:
                    wheel.extractall(site)
            elif name.startswith("edgekit_agent/"):
                archive.extract(name, site)
    code = (
        "import sys\n"
        "from edgekit_agent.runtimes import import_runtime\n"
        "runtime, model = sys.argv[1:]\n"
        "loaded = import_runtime(runtime)(model, 1)\n"
        "print(loaded.inputs[0].name)\n"
    )
    done = subprocess.run(
        [sys.executable, "-S", "-c", code, manifest["runtime"]["name"], bundle / manifest["model"]],
        env={"PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == manifest["inputs"][0]["name"]


def test_the_bill_of_materials_names_every_wheel_with_its_digest_and_license(packaged):
    path, report = packaged
    with zipfile.ZipFile(path) as archive:
        bill = json.loads(archive.read("sbom.cdx.json"))
        lock = json.loads(archive.read("edgekit.lock"))
        licenses = {n.split("/")[1] for n in archive.namelist() if n.startswith("licenses/")}
    assert (bill["bomFormat"], bill["specVersion"], bill["version"]) == ("CycloneDX", "1.6", 1)
    parts = {part["name"]: part for part in bill["components"]}
    refs = [part["bom-ref"] for part in bill["components"]]
    assert len(set(refs)) == len(refs)
    assert set(bill["dependencies"][0]["dependsOn"]) == set(refs)
    assert lock["platforms"] == {"cp311-x86_64-glibc2.36": report["wheels"]}
    for wheel in report["wheels"]:
        part = parts[wheel["name"]]
        assert part["purl"] == f"pkg:pypi/{wheel['name']}@{wheel['version']}"
        assert part["hashes"] == [{"alg": "SHA-256", "content": wheel["sha256"]}]
        has_text = f"{wheel['name']}-{wheel['version']}" in licenses
        assert has_text != (wheel["name"] in report["without_license"])
    assert any(part["type"] == "machine-learning-model" for part in bill["components"])
    assert parts["numpy"]["licenses"]
    assert "edgekit" in licenses


def test_an_app_folder_is_packaged_with_its_code_and_its_lock(workplace, bundle):
    assert edgekit("app", "new", "eye", bundle, "--template", "form").code == 0
    (workplace / "eye/.secret").write_text("x")
    (workplace / "eye/__pycache__").mkdir()
    (workplace / "eye/__pycache__/app.pyc").write_text("x")
    (workplace / "eye/help").mkdir()
    (workplace / "eye/help/words.txt").write_text("x")
    first = package("--app", "eye", "-o", "eye.run")
    with zipfile.ZipFile("eye.run") as archive:
        statement = decode_package(archive.read("package.json"))
        app = [name for name in archive.namelist() if name.startswith("app/")]
        config = json.loads(archive.read("pages/config.json"))
    assert app == ["app/app.py", "app/app.toml", "app/help/words.txt"]
    assert (statement.name, statement.entry) == ("eye", "app:answer")
    assert (config["title"], config["camera"], config["input"]) == ("Eye", False, "form")
    assert re.fullmatch(r"top1: 9\d\.\d % on 797 samples", config["accuracy"])
    assert len(config["fields"]) == 64
    assert config["fields"][9] == {"name": "image[0][1][1]", "path": ["image", 0, 1, 1]}
    assert any("edgekit.lock" in note for note in first["notes"])
    before = Path("eye.run").read_bytes()
    again = package("--app", "eye", "-o", "eye.run", "--locked")
    assert Path("eye.run").read_bytes() == before
    assert not any("edgekit.lock" in note for note in again["notes"])


@pytest.mark.parametrize("target", ["/etc/passwd", "/etc", "."])
def test_links_of_an_app_folder_bring_no_files_from_elsewhere(workplace, bundle, target):
    assert edgekit("app", "new", "eye", bundle, "--template", "form").code == 0
    Path("eye/link").symlink_to(target)
    done = edgekit("package", "--app", "eye", "-o", "eye.run")
    assert done.code == 2
    assert "eye/link: is a link, which packages do not follow" in done.err
    assert not Path("eye.run").exists()


def test_a_link_to_a_bundle_is_no_file_of_the_app(workplace, bundle):
    assert edgekit("app", "new", "eye", bundle, "--template", "form").code == 0
    Path("eye/model").symlink_to(bundle)
    made = package("--app", "eye", "-o", "eye.run")
    assert not any("link" in file["path"] for file in made["files"])


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ("[[ui.fields]]\nname = 'age'\n", "the model has no field 'age'"),
        ("[[ui.fields]]\nname = 'image[0][0][0]'\n", "'image[0][0][1]' of the model is missing"),
        (
            "[[ui.fields]]\nname = 'image[0][0][0]'\nchoices = ['old']\n",
            "the model does not take the text 'old'",
        ),
        (
            "[[ui.fields]]\nname = 'image[0][0][0]'\noptional = true\n",
            "the model does not take a row without it",
        ),
    ],
)
def test_a_form_of_other_fields_than_the_model_needs_an_entry(workplace, bundle, fields, said):
    assert edgekit("app", "new", "eye", bundle, "--template", "form").code == 0
    file = Path("eye/app.toml")
    text = re.sub(r"(?m)^entry.*\n|\[\[ui\.fields\]\]\nname = .*\n", "", file.read_text())
    file.write_text(f"{text}\n{fields}")
    done = edgekit("package", "--app", "eye", "-o", "eye.run")
    assert done.code == 2
    assert f"app.toml: ui.fields: {said}" in done.err.replace("image[0][0][0]: ", "")
    assert not Path("eye.run").exists()


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("missing/x.run", "no folder"),
        ("folder", "is not a regular file"),
        ("pipe", "is not a regular file"),
        ("link", "is not a regular file"),
        ("eye/app.py", "is a file of the app"),
        ("eye/app.toml", "is a file of the app"),
    ],
)
@pytest.mark.parametrize("form", ["run", "deb"])
def test_a_package_replaces_nothing_but_regular_files(workplace, bundle, path, said, form):
    """A user with all rights would else replace devices such as /dev/null."""
    assert edgekit("app", "new", "eye", bundle, "--template", "form").code == 0
    Path("folder").mkdir()
    os.mkfifo("pipe")
    Path("link").symlink_to("eye/app.py")
    before = sorted(Path().rglob("*"))
    done = edgekit("package", "--app", "eye", "-o", path, "--format", form)
    assert done.code == 2
    assert said in done.err
    assert sorted(Path().rglob("*")) == before


def test_a_package_is_made_from_a_folder_of_wheels_without_a_network(
    packaged, bundle, shared_cache, tmp_path
):
    path, report = packaged
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    for wheel in report["wheels"]:
        data = (shared_cache / "wheels" / wheel["file"]).read_bytes()
        (wheels / wheel["file"]).write_bytes(data)
    words = (bundle, "-o", tmp_path / "x.run", "--name", "digits", "--wheels", wheels)
    package(*words, EDGEKIT_CACHE=tmp_path / "cache", PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert (tmp_path / "x.run").read_bytes() == path.read_bytes()
    (wheels / report["wheels"][0]["file"]).unlink()
    done = spawn("package", *words, EDGEKIT_CACHE=tmp_path / "cache")
    assert (done.code, done.out) == (2, "")
    assert report["wheels"][0]["name"].replace("-", "[-_]")[:5] in done.err


def test_a_package_is_signed_with_the_key_of_the_user(bundle, shared_cache, tmp_path):
    environment = {"EDGEKIT_CONFIG": tmp_path / "config", "EDGEKIT_CACHE": shared_cache}
    assert spawn("keys", "new", **environment).code == 0
    for name in ("a.run", "b.run"):
        words = (bundle, "-o", tmp_path / name, "--name", "digits")
        report = package(*words, **environment, SOURCE_DATE_EPOCH="1700000000")
    assert report["signed_by"] == "default"
    assert (tmp_path / "a.run").read_bytes() == (tmp_path / "b.run").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.run") as archive:
        data = archive.read("package.json")
        signature = decode(Signature, json.loads(archive.read("signature.json")))
    assert has_valid_signature(Statement, signature)
    statement = read_statement(Statement, signature)
    digest = hashlib.sha256(data).hexdigest()
    assert (statement.name, statement.release) == ("digits", digest[:16])
    assert [(f.name, f.digest) for f in statement.files] == [("package.json", digest)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--python", "3.8"), "--python: 3.8 is not supported"),
        (("--glibc", "new"), "--glibc: 'new' is not a version"),
        (("--device", "tablet"), "was built for tablet-x86 (x86_64), and the package is for aarch"),
        (("--template", "detector"), "the template detector takes an image"),
        (("--template", "x", "--app", "y"), "--app and --template exclude each other"),
        (("--locked",), "--locked: needs an app folder"),
        (("--name", "Digits"), "Digits"),
        (("--key", "absent"), "no key named absent"),
    ],
)
def test_a_wrong_request_writes_no_file(bundle, workplace, words, said):
    done = edgekit("package", bundle, "-o", "x.run", *words)
    assert (done.code, done.out) == (2, "")
    assert said in done.err
    assert not list(workplace.iterdir())


def test_several_bundles_need_an_app(bundle, workplace):
    done = edgekit("package", bundle, bundle, "-o", "x.run")
    assert done.code == 2
    assert "several bundles need an app that combines them" in done.err
    done = edgekit("package", "-o", "x.run")
    assert done.code == 2
    assert "BUNDLE is missing" in done.err


def test_an_app_of_several_models_has_each_by_its_name(bundle, workplace):
    assert edgekit("app", "new", "two", bundle, "--template", "form").code == 0
    package(f"first={bundle}", f"second={bundle}", f"main={bundle}", "--app", "two", "-o", "x.run")
    with zipfile.ZipFile("x.run") as archive:
        models = decode_package(archive.read("package.json")).models
    assert [model.name for model in models] == ["first", "main", "second"]
