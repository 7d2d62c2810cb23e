"""Packages for browsers: their files, sizes, and what they refuse."""

import base64
import gzip
import hashlib
import json
import re
import threading
import time
import zipfile

import numpy as np
import pytest

import edgekit
from edgekit.config.shipped_files import get_shipped_folder
from edgekit.errors import UserError
from edgekit.packaging.app_settings import AppSettings
from edgekit.packaging.web.web_package import package_for_web
from edgekit.progress import ignore_progress
from edgekit_agent.runtimes.ort import load
from tests.builders.projects import edgekit as run_edgekit


def read_folder(folder):
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}


def test_the_same_app_has_the_same_bytes_as_folder_and_as_zip(package_colors, tmp_path):
    first, second = (package_colors(tmp_path / name) for name in ("one", "two"))
    assert read_folder(tmp_path / "one") == read_folder(tmp_path / "two")
    assert first.release == second.release
    for name in ("one.zip", "two.zip"):
        package_colors(tmp_path / name)
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == read_folder(tmp_path / "one")


def test_the_service_worker_lists_every_other_file_with_its_digest(package_colors, tmp_path):
    report = package_colors(tmp_path / "app")
    files = read_folder(tmp_path / "app")
    worker = files.pop("sw.js").decode()
    package = json.loads(re.search(r"const PACKAGE = (\{.*?\n\});", worker, re.DOTALL)[1])
    assert (package["name"], package["release"]) == ("colors", report.release)
    listed = {each["path"]: (each["digest"], each["bytes"]) for each in package["files"]}
    assert listed == {
        name: (hashlib.sha256(data).hexdigest(), len(data)) for name, data in files.items()
    }


def test_sizes_are_told_raw_and_compressed(package_colors, tmp_path):
    report = package_colors(tmp_path / "app", build="int8")
    files = read_folder(tmp_path / "app")
    assert report.bytes == sum(map(len, files.values()))
    zipped = sum(len(gzip.compress(data, 6, mtime=0)) for data in files.values())
    assert report.gzip_bytes == zipped < 12_000_000
    assert set(report.parts) == {"models", "runtime", "page"}
    assert {file.path for file in report.files} == {
        f"models/main/{name}" for name in ("settings.json", "model.onnx", "golden.json")
    }


def test_golden_outputs_have_full_precision(package_colors, colors, tmp_path):
    package_colors(tmp_path / "app")
    golden = json.loads((tmp_path / "app" / "models" / "main" / "golden.json").read_text())
    inputs, outputs = golden["inputs"]["image"], golden["outputs"]["logits"]
    images = decode_array(inputs).astype(np.float32)
    found = load(str(colors / "build" / "float" / "model.onnx"), 1).run({"image": images})
    np.testing.assert_allclose(decode_array(outputs), found["logits"], rtol=1e-6)


def decode_array(stored):
    data = np.frombuffer(base64.b64decode(stored["data"]), stored["dtype"])
    return data.reshape(stored["shape"])


def test_an_earlier_app_is_replaced_and_other_folders_are_left_alone(package_colors, tmp_path):
    package_colors(tmp_path / "app", files={"pages/old.txt": b"old"})
    assert (tmp_path / "app" / "old.txt").read_bytes() == b"old"
    package_colors(tmp_path / "app", files={"pages/page.css": b"body {}"})
    assert not (tmp_path / "app" / "old.txt").exists()
    assert (tmp_path / "app" / "page.css").read_bytes() == b"body {}", "the app's own file"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app"]

    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "precious.txt").write_text("precious")
    with pytest.raises(UserError, match="is not empty, and not a web app"):
        package_colors(tmp_path / "other")
    assert [p.name for p in (tmp_path / "other").iterdir()] == ["precious.txt"]


def test_while_an_app_is_replaced_its_folder_is_whole(package_colors, tmp_path):
    """A server that reads it meanwhile finds the old app or the new one."""
    package_colors(tmp_path / "app")
    missing, ends = [], threading.Event()

    def read():
        while not ends.is_set():
            if not (tmp_path / "app" / "index.html").exists():
                missing.append(time.monotonic())

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for version in ("1.0.1", "1.0.2", "1.0.3"):
            package_colors(tmp_path / "app", version=version)
    finally:
        ends.set()
        thread.join()
    assert not missing
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app"]


def test_a_link_to_the_folder_of_an_app_stays_a_link(package_colors, tmp_path):
    package_colors(tmp_path / "real")
    (tmp_path / "app").symlink_to("real")
    package_colors(tmp_path / "app", version="1.0.1")
    assert (tmp_path / "app").is_symlink()
    assert "1.0.1" in (tmp_path / "real" / "config.json").read_text()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["app", "real"]


@pytest.mark.parametrize("name", ["CNAME", ".git/config", "models/own.txt"])
def test_files_of_the_user_beside_an_earlier_app_are_not_removed(package_colors, tmp_path, name):
    package_colors(tmp_path / "app")
    own = tmp_path / "app" / name
    own.parent.mkdir(exist_ok=True)
    own.write_text("precious")
    before = read_folder(tmp_path / "app")
    with pytest.raises(UserError, match=f"holds a file that is not of its web app: {name}"):
        package_colors(tmp_path / "app", version="1.0.1")
    assert own.read_text() == "precious"
    assert read_folder(tmp_path / "app") == before


def test_python_code_that_cannot_run_there_is_refused(package_colors, tmp_path):
    own = {"app.py": b"def answer(models, sample): ..."}
    with pytest.raises(UserError, match="does not run in a browser") as refused:
        package_colors(tmp_path / "app", entry="app:answer", files=own)
    assert "answer.js" in refused.value.hint
    with pytest.raises(UserError, match="a page cannot run"):
        package_colors(tmp_path / "app", background="app:watch", files=own)
    assert not (tmp_path / "app").exists()


def test_the_unchanged_code_of_a_template_is_left_out_with_a_note(package_colors, tmp_path):
    template = get_shipped_folder("targets/templates/image-classifier") / "app.py"
    files = {"app.py": template.read_bytes()}
    report = package_colors(tmp_path / "app", entry="app:answer", files=files)
    assert "left out" in report.notes[0]
    assert not (tmp_path / "app" / "app.py").exists()


def test_a_bundle_of_a_tflite_model_is_refused_with_what_to_do(workplace, web_runtime):
    project = edgekit.example("digits", "digits").folder
    edgekit.build(folder=project, steps=["to-tflite"], device="tablet")
    bundle = edgekit.open_bundle(project / "build" / "tablet")
    assert bundle.manifest.model == "model.tflite"
    values = {"schema": 1, "name": "digits", "version": "1.0", "input": "form"}
    with pytest.raises(UserError, match=r"browsers run ONNX models.* holds model\.tflite") as told:
        package_for_web(
            AppSettings.model_validate(values),
            {},
            {"main": bundle},
            web_runtime,
            workplace / "app",
            tick=ignore_progress,
        )
    assert "--runtime onnxruntime" in told.value.hint


def test_the_command_packages_a_build_and_says_what_is_in_it(colors, web_runtime, workplace):
    bundle = colors / "build" / "int8"
    done = run_edgekit("package", bundle, "--target", "web", "--name", "colors", "-o", "app")
    assert done.code == 0, done.err
    for words in ("colors 1.0.0 for browsers", "first load 3.9 MB (gzip)", f"from {bundle}"):
        assert words in done.out
    assert "next: edgekit app serve app" in done.out
    config = json.loads((workplace / "app" / "config.json").read_text())
    assert (config["backend"], config["worker"]) == ("./backend-web.js", "sw.js")
    assert config["input"] == "image"
    digest = hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()
    assert config["model"] == [{"name": "main", "version": digest[:12]}]

    zipped = run_edgekit(
        "package", bundle, "--target", "web", "--name", "colors", "-o", "app.zip", "--json"
    )
    told = json.loads(zipped.out)
    assert told["gzip_bytes"] < 12_000_000
    assert told["release"]


def test_options_of_the_other_target_are_refused(colors, workplace):
    bundle = colors / "build" / "int8"
    for options, name in (
        (("--target", "web", "--wheels", "wheels"), "--wheels"),
        (("--runtime-archive", "x.tgz"), "--runtime-archive"),
    ):
        done = run_edgekit("package", bundle, "-o", "app", *options)
        assert done.code == 2
        assert name in done.err
    assert not (workplace / "app").exists()
