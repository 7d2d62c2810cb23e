"""Installs and rollbacks that are interrupted at every file system operation."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from edgekit_agent.codec import encode
from edgekit_agent.jobs import InstallJob, NamedBlob
from edgekit_agent.releases.install import install
from edgekit_agent.results import Watch
from edgekit_agent.worker_results import Health

TARGETS = Path(__file__).resolve().parents[2] / "targets"

# Runs an install in a fork that ends at its k-th file system operation, for every k; then looks
# at what is served, and whether the same install, run again, comes through.
SCRIPT = """
import hashlib, json, os, shutil, sys
from edgekit_agent.releases.install import install, rollback, status
from edgekit_agent.codec import decode
from edgekit_agent.jobs import InstallJob, RollbackJob, StatusJob
from edgekit_agent.worker_results import Health

template, work, job = sys.argv[1], sys.argv[2], decode(InstallJob, json.loads(sys.argv[3]))
names = ["replace", "rename", "symlink", "link", "unlink", "mkdir", "rmdir", "fsync"]

def run():
    if sys.argv[4] == "rollback":
        rollback(RollbackJob(work), lambda question: Health(True, 0.0))
    else:
        install(job, lambda question: Health(True, 0.0), lambda stage, done, total: None)

def end_at(k):
    count = 0
    def wrap(operation):
        def wrapped(*args, **kwargs):
            nonlocal count
            if count == k:
                os._exit(77)
            count += 1
            return operation(*args, **kwargs)
        return wrapped
    for name in names:
        setattr(os, name, wrap(getattr(os, name)))

def served():
    folder = os.path.join(work, "current")
    if not os.path.lexists(folder):
        return None
    with open(os.path.join(folder, "release.json")) as file:
        record = json.load(file)
    for f in record["files"]:
        with open(os.path.join(folder, f["name"]), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == f["digest"], f
    return record["name"]

def before():
    folder = os.path.realpath(os.path.join(work, "previous"))
    said = status(StatusJob(work), None).previous
    # Who follows the link sees what the agent says.
    assert (os.path.basename(folder) if os.path.isdir(folder) else None) == (said and said.name)
    return said and said.name

seen = []
for k in range(1000):
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(template, work, symlinks=True)
    pid = os.fork()
    if pid == 0:
        end_at(k)
        run()
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code in (0, 77), code
    watched = os.path.exists(os.path.join(work, "watch.json"))
    crashed = [served(), before(), watched]
    if sys.argv[4] == "install":
        run()
    seen.append([crashed, [served(), before()]])
    if code == 0:
        break
print(json.dumps(seen))
"""


def job_for(home, release):
    """Return an install of three files, which are stored among the objects first."""
    objects = home / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in (("model", "same"), ("golden_samples", "same too"), ("word", release)):
        digest = hashlib.sha256(content.encode()).hexdigest()
        (objects / digest).write_text(content)
        files.append(NamedBlob(name, digest))
    return InstallJob(
        str(home), release, tuple(files), "model", "onnxruntime", 1, None, "golden_samples"
    )


def with_direct_link(home):
    """Write ``previous`` as older versions did."""
    target = (home / "previous").resolve()
    for name in ("previous", "current/.previous"):
        (home / name).unlink()
    (home / "previous").symlink_to(f"releases/{target.name}")


def outcomes(tmp_path, verb, current, previous, *, old_form=False):
    """Return the current and previous release after each crash, and after the next action."""
    seen = crashes(tmp_path, verb, current, previous, old_form=old_form)
    return [(tuple(crashed[:2]), tuple(after)) for crashed, after in seen]


def crashes(tmp_path, verb, current, previous, *, old_form=False, watched=False):
    """As ``outcomes``, and whether the release is watched after the crash."""
    template, work = tmp_path / "template", tmp_path / "work"
    template.mkdir(parents=True)
    for release in (previous, current):
        if release is not None:
            job = job_for(template, release)
            install(job, lambda question: Health(True, 0.0), lambda stage, done, total: None)
    if old_form:
        with_direct_link(template)
    if watched:
        watch = Watch(current, previous, 600.0, 1e12, "", "")
        (template / "watch.json").write_text(json.dumps(encode(watch)))
    job = {**encode(job_for(template, "new")), "home": str(work)}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(template), str(work), json.dumps(job), verb],
        env={**os.environ, "PYTHONPATH": str(TARGETS)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(("current", "previous"), [(None, None), ("one", None), ("two", "one")])
def test_an_install_interrupted_anywhere_leaves_the_old_or_the_new_release_intact(
    tmp_path, current, previous
):
    seen = outcomes(tmp_path, "install", current, previous)
    assert len(seen) > 15
    assert {crashed for crashed, _ in seen} == {(current, previous), ("new", current)}
    assert {after for _, after in seen} == {("new", current)}


def test_a_rollback_interrupted_anywhere_leaves_one_of_both_releases_intact(tmp_path):
    seen = outcomes(tmp_path, "rollback", "two", "one")
    assert {crashed for crashed, _ in seen} == {("two", "one"), ("one", "two")}


def test_a_rollback_interrupted_anywhere_leaves_no_unconfirmed_release_unwatched(
    tmp_path,
):
    seen = crashes(tmp_path, "rollback", "two", "one", watched=True)
    states = {(current, watched) for (current, _, watched), _ in seen}
    assert states == {("two", True), ("one", True), ("one", False)}


def test_a_home_with_two_direct_links_keeps_both_answers_at_every_step(tmp_path):
    seen = outcomes(tmp_path / "a", "install", "two", "one", old_form=True)
    assert {crashed for crashed, _ in seen} == {("two", "one"), ("new", "two")}
    seen = outcomes(tmp_path / "b", "rollback", "two", "one", old_form=True)
    assert {crashed for crashed, _ in seen} == {("two", "one"), ("one", "two")}
