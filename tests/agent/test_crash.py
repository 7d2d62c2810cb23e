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
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import InstallJob, RollbackJob, StatusJob, UninstallJob
from edgekit_agent.releases.uninstall import uninstall
from edgekit_agent.worker_results import Health

template, work, job = sys.argv[1], sys.argv[2], decode(InstallJob, json.loads(sys.argv[3]))
app = job.app
own = os.path.join(work, "apps", app) if app else work
names = ["replace", "rename", "symlink", "link", "unlink", "mkdir", "rmdir", "fsync"]

def run():
    if sys.argv[4] == "rollback":
        rollback(RollbackJob(work, app), lambda question: Health(True, 0.0))
    elif sys.argv[4] == "uninstall":
        uninstall(UninstallJob(work, app))
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

def served(home):
    folder = os.path.join(home, "current")
    if not os.path.lexists(folder):
        return None
    with open(os.path.join(folder, "release.json")) as file:
        record = json.load(file)
    for f in record["files"]:
        with open(os.path.join(folder, f["name"]), "rb") as file:
            assert hashlib.sha256(file.read()).hexdigest() == f["digest"], f
    return record["name"]

def before():
    folder = os.path.realpath(os.path.join(own, "previous"))
    said = status(StatusJob(work, app=app), None).previous
    # Who follows the link sees what the agent says.
    assert (os.path.basename(folder) if os.path.isdir(folder) else None) == (said and said.name)
    return said and said.name

main_job = None
if app:
    main_job = decode(InstallJob, json.loads(sys.argv[5]))
# The runtime "both-1" is used by the main release and under the name, "own-1" under the name alone.
runtimes = {"install": ["both-1", "own-1"], "uninstall": ["both-1"]}
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
    watched = os.path.exists(os.path.join(own, "watch.json"))
    crashed = [served(own), before(), watched]
    if sys.argv[4] == "install":
        run()
    if sys.argv[4] == "uninstall" and code:
        try:
            run()
        except AgentError as error:
            assert (error.failure.kind, crashed[0]) == ("no_such_name", None), error
            # The next change of any release removes what is left.
            install(main_job, lambda question: Health(True, 0.0), lambda stage, done, total: None)
        assert os.listdir(os.path.join(work, "apps")) == [], crashed
    seen.append([crashed, [served(own), before()]])
    if app:
        assert served(work) == "main"
        assert sorted(os.listdir(os.path.join(work, "runtimes"))) == runtimes[sys.argv[4]]
    if code == 0:
        break
print(json.dumps(seen))
"""


def job_for(home, release, *, app="", site=None):
    """Return an install of three files, which are stored among the objects first."""
    objects = (home / "apps" / app if app else home) / "objects"
    objects.mkdir(parents=True, exist_ok=True)
    files = []
    for name, content in (("model", "same"), ("golden_samples", "same too"), ("word", release)):
        digest = hashlib.sha256(content.encode()).hexdigest()
        (objects / digest).write_text(content)
        files.append(NamedBlob(name, digest))
    files = tuple(files)
    return InstallJob(
        str(home), release, files, "model", "onnxruntime", 1, site, "golden_samples", app=app
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


def crashes_beside_main(tmp_path, verb, releases):
    """Crash as ``crashes`` does, under the name ``door``, beside a main release."""
    template, work = tmp_path / "template", tmp_path / "work"
    both, own = (str(work / "runtimes" / name) for name in ("both-1", "own-1"))

    def put(job):
        done = install(job, lambda question: Health(True, 0.0), lambda stage, done, total: None)
        for name in ("both-1", "own-1"):
            (template / "runtimes" / name).mkdir(parents=True, exist_ok=True)
        return done

    # The records name the runtimes where the copies of the template have them.
    put(job_for(template, "main", site=both))
    for release, site in zip(releases, (own, both), strict=False):
        put(job_for(template, release, app="door", site=site))
    jobs = [
        {**encode(job_for(template, "new", app="door", site=own)), "home": str(work)},
        {**encode(job_for(template, "main", site=both)), "home": str(work)},
    ]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(template), str(work), json.dumps(jobs[0]), verb,
         json.dumps(jobs[1])],
        env={**os.environ, "PYTHONPATH": str(TARGETS)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [(tuple(crashed[:2]), tuple(after)) for crashed, after in json.loads(done.stdout)]


def test_an_install_under_a_name_interrupted_anywhere_changes_nothing_else(tmp_path):
    seen = crashes_beside_main(tmp_path, "install", ["one", "two"])
    assert {crashed for crashed, _ in seen} == {("two", "one"), ("new", "two")}
    assert {after for _, after in seen} == {("new", "two")}


def test_a_first_install_under_a_name_interrupted_anywhere_leaves_nothing_or_all(tmp_path):
    seen = crashes_beside_main(tmp_path, "install", [])
    assert {crashed for crashed, _ in seen} == {(None, None), ("new", None)}
    assert {after for _, after in seen} == {("new", None)}


def test_a_removal_of_a_name_interrupted_anywhere_leaves_it_whole_or_removes_it(tmp_path):
    seen = crashes_beside_main(tmp_path, "uninstall", ["one", "two"])
    assert {crashed for crashed, _ in seen} == {("two", "one"), (None, None)}
    assert {after for _, after in seen} == {(None, None)}
