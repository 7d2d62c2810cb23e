"""Numbers of a bundle that are out of range are refused before the device is changed."""

import hashlib
import json
import re
from dataclasses import replace

import pytest

from edgekit.bundle.bundle_file import open_bundle
from edgekit.errors import UserError
from edgekit_agent.codec import encode
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import InstallJob, NamedBlob, RollbackJob, StatusJob
from edgekit_agent.releases.install import install, rollback, status
from edgekit_agent.wire import read_job
from edgekit_agent.worker_results import Health
from tests.builders.servers import make_bundle

NUMBERS = ("1e999", "-1e999", "NaN", "Infinity", "1e308", "0.51", "-0.1", "1" + "0" * 400)


def healthy(question):
    return Health(True, 0.0)


def silent(stage, done, total):
    return None


def job_for(home, release, manifest="{}", **settings):
    """An install of two files and a manifest, which are put among the objects already."""
    objects = home / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in (
        ("model", release),
        ("golden_samples", "same"),
        ("manifest.json", manifest),
    ):
        digest = hashlib.sha256(content.encode()).hexdigest()
        (objects / digest).write_text(content)
        files.append(NamedBlob(name, digest))
    chosen = {"runtime": "onnxruntime", "threads": 1, "site": None, **settings}
    return InstallJob(
        str(home), release, tuple(files), "model", golden_samples="golden_samples", **chosen
    )


def put(home, release, manifest="{}", **settings):
    return install(job_for(home, release, manifest, **settings), healthy, silent)


def names(answer):
    """The current and the previous release, from an answer that must be valid JSON."""
    json.dumps(vars(answer), allow_nan=False, default=vars)
    return (answer.current and answer.current.name, answer.previous and answer.previous.name)


def state(home):
    return sorted(
        (str(p.relative_to(home)), str(p.readlink()) if p.is_symlink() else p.lstat().st_ino)
        for p in home.rglob("*")
    )


@pytest.mark.parametrize("number", NUMBERS)
@pytest.mark.parametrize("field", ["max_relative_error", "threads"])
def test_a_bundle_whose_manifest_has_an_impossible_number_is_refused(tmp_path, field, number):
    bundle = make_bundle(tmp_path / "b", width=8)
    path = bundle.path / "manifest.json"
    text, count = re.subn(rf'"{field}":[^,}}]*', f'"{field}":{number}', path.read_text())
    assert count >= 1
    path.write_text(text)
    with pytest.raises(UserError, match=r"manifest\.json") as caught:
        open_bundle(bundle.path)
    assert len(caught.value.message.splitlines()) == 1


@pytest.mark.parametrize("number", NUMBERS)
def test_the_agent_refuses_a_job_with_such_a_number_itself(tmp_path, number):
    home = tmp_path / "home"
    put(home, "one")
    settings = {**encode(job_for(home, "two")), "max_relative_error": "HERE"}
    before = state(home)
    line = json.dumps({"job": "install", "settings": settings}).replace('"HERE"', number)
    with pytest.raises(AgentError) as caught:
        install(read_job(line.encode())[1], healthy, silent)
    assert caught.value.failure.kind == "bad_job"
    assert state(home) == before


@pytest.mark.parametrize("settings", [{"threads": 0}, {"threads": 2**40}, {"runtime": "../x"}])
def test_the_agent_refuses_settings_out_of_bounds(tmp_path, settings):
    home = tmp_path / "home"
    put(home, "one")
    with pytest.raises(AgentError) as caught:
        put(home, "two", **settings)
    assert caught.value.failure.kind == "bad_job"
    assert names(status(StatusJob(str(home)), healthy)) == ("one", None)


@pytest.mark.parametrize(
    "manifest",
    [
        '{"recipe": {"name": "r"}, "metric": "top1", "measurements": [],'
        ' "verdict": {"comparison": {"drop_points": 1e999}}}',
        '{"recipe": {"name": "r"}, "metric": "top1", "measurements": ['
        '{"n": 1, "correct": ' + "9" * 3000 + ', "source": "host"}], "verdict": {}}',
        '{"recipe": ' + "[" * 200_000 + "]" * 200_000 + "}",
        '{"recipe": {"name": "' + "r" * 100_000 + '"}, "metric": "top1", "measurements": [],'
        ' "verdict": {}}',
    ],
)
def test_a_manifest_too_large_for_an_answer_never_blocks_the_device(tmp_path, manifest):
    home = tmp_path / "home"
    put(home, "one")
    assert names(put(home, "two", manifest)) == ("two", "one")
    answer = status(StatusJob(str(home)), healthy)
    assert names(answer) == ("two", "one")
    assert answer.current_model is None
    assert names(rollback(RollbackJob(str(home)), healthy)) == ("one", "two")
    assert names(put(home, "three")) == ("three", "one")


@pytest.mark.parametrize("number", ["Infinity", "NaN", "1e308", "1e999"])
@pytest.mark.parametrize("damaged", ["current", "previous"])
def test_a_device_with_such_a_record_still_works(tmp_path, number, damaged):
    home = tmp_path / "home"
    put(home, "one")
    put(home, "two")
    record = home / damaged / "release.json"
    record.write_text(record.read_text().replace("0.1", number))
    assert names(status(StatusJob(str(home)), healthy)) == ("two", "one")
    if damaged == "current":
        assert names(rollback(RollbackJob(str(home)), healthy)) == ("one", "two")
        assert names(put(home, "two")) == ("two", "one")
    assert names(put(home, "three")) == ("three", "two")
    assert names(rollback(RollbackJob(str(home)), healthy)) == ("two", "three")


def release_of(home, word, threads=1):
    """A release whose name is that of its manifest, as ``push`` makes it."""
    job = job_for(home, word, threads=threads)
    manifest = json.dumps(
        {
            "model": job.model,
            "golden_samples": job.golden_samples,
            "runtime": {"name": job.runtime, "threads": threads},
            "files": [vars(file) for file in job.files[:2]],
            "max_relative_error": 0.1,
        }
    )
    name = hashlib.sha256(manifest.encode()).hexdigest()[:16]
    return name, replace(job_for(home, word, manifest, threads=threads), release=name)


@pytest.mark.parametrize("record", ["", "{}", "null", "[" * 100_000, "Infinity", '{"name": 1e999}'])
def test_a_rollback_restores_a_damaged_record_from_the_manifest(tmp_path, record):
    home = tmp_path / "home"
    for site in ("a", "b"):
        (home / "runtimes" / site).mkdir(parents=True)
    one, job = release_of(home, "one", threads=2)
    install(replace(job, site=str(home / "runtimes" / "b")), healthy, silent)
    (home / "runtimes" / "a").mkdir(exist_ok=True)
    put(home, "two")
    (home / "previous" / "release.json").write_text(record)

    def only_with_b(question):
        if question.model.site != str(home / "runtimes" / "b"):
            raise AgentError("missing_runtime", "not here")
        assert (question.model.threads, question.max_relative_error) == (2, 0.1)
        return Health(True, 0.0)

    answer = rollback(RollbackJob(str(home)), only_with_b)
    assert names(answer) == (one, "two")
    assert answer.current.site == str(home / "runtimes" / "b")
    assert names(status(StatusJob(str(home), check=one), only_with_b)) == (one, "two")


def test_a_changed_manifest_restores_no_record(tmp_path):
    home = tmp_path / "home"
    one, job = release_of(home, "one")
    install(job, healthy, silent)
    put(home, "two")
    manifest = home / "previous" / "manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text.replace("0.1", "0.4"))
    (home / "previous" / "release.json").write_text("{}")
    with pytest.raises(AgentError) as caught:
        rollback(RollbackJob(str(home)), healthy)
    assert caught.value.failure.kind == "corrupt"
    assert names(status(StatusJob(str(home)), healthy)) == ("two", one)
