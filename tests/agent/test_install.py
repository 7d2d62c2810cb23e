"""Installation, rollback and removal of releases and runtimes."""

import os
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgekit_agent.jobs import InstallJob, NamedBlob, ReceiveJob, RollbackJob, StatusJob
from edgekit_agent.results import ReceiveResult, Status
from edgekit_agent.worker_jobs import Blob, HealthJob, ModelRef
from edgekit_agent.worker_results import Health


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def home(tmp_path):
    return tmp_path / "home"


@pytest.fixture
def put(agent, deliver, bundle, install_job, home):
    """Deliver and install a release whose text is its name."""

    def install(release, **settings):
        files = deliver(home, bundle(release))
        return agent.ask(install_job(home, release, files, **settings), Status)

    return install


def never_sent(name):
    return NamedBlob(name, "0" * 64)


def get_served(home):
    return (home / "current" / "word.txt").read_text()


def test_a_first_release_is_served(put, home):
    status = put("one")
    assert (status.current.name, status.previous) == ("one", None)
    assert status.health.healthy
    assert get_served(home) == "one"
    assert (home / "current").readlink() == Path("releases/one")


def test_a_second_release_keeps_the_first_for_a_rollback(agent, put, home):
    put("one")
    status = put("two")
    assert (status.current.name, status.previous.name) == ("two", "one")
    assert agent.ask(StatusJob(str(home)), Status) == replace(status, health=None)
    status = agent.ask(RollbackJob(str(home)), Status)
    assert (status.current.name, status.previous.name) == ("one", "two")
    assert get_served(home) == "one"
    assert agent.ask(RollbackJob(str(home)), Status).current.name == "two"


def test_unreferenced_objects_are_removed(put, home):
    for release in ("one", "two", "three"):
        put(release)
    assert names(home / "releases") == ["three", "two"]
    # The model and its golden samples are the same in all; the words differ.
    assert len(names(home / "objects")) == 4
    assert names(home / "parts") == []


def test_installing_the_current_release_again_changes_nothing(put, home):
    put("one")
    put("two")
    before = sorted((p.name, p.lstat().st_ino) for p in home.iterdir())
    status = put("two")
    assert (status.current.name, status.previous.name) == ("two", "one")
    assert sorted((p.name, p.lstat().st_ino) for p in home.iterdir()) == before


def test_changed_settings_of_the_current_release_are_stored(put):
    put("one")
    assert put("one", threads=2).current.threads == 2


def test_installing_the_previous_release_again_is_a_switch(put, home):
    put("one")
    put("two")
    status = put("one")
    assert (status.current.name, status.previous.name) == ("one", "two")
    assert get_served(home) == "one"


@pytest.mark.parametrize("file", ["word.txt", "release.json"])
def test_a_damaged_release_is_repaired_by_installing_it_again(agent, put, home, file):
    put("one")
    path = home / "current" / file
    path.unlink()
    path.write_text("rot")
    put("one")
    assert get_served(home) == "one"
    assert agent.ask(StatusJob(str(home)), Status).current.name == "one"


def test_a_damaged_record_still_gives_the_name(agent, put, home):
    put("one")
    put("two")
    for text in ("{}", "not JSON"):
        (home / "current" / "release.json").write_text(text)
        status = agent.ask(StatusJob(str(home)), Status)
        assert (status.current.name, status.current.model) == ("two", "")
        assert status.previous.name == "one"
    failure = agent.ask(StatusJob(str(home), check="two"), Status)
    assert failure.kind == "corrupt"
    assert "release.json" in failure.message
    # What the switch leaves behind has the damaged record, and the switch is told all the same.
    status = put("three")
    assert (status.current.name, status.previous.name) == ("three", "two")
    assert len(names(home / "objects")) == 5, "nobody knows what the damaged release needs"


def test_only_the_release_that_is_served_is_checked(agent, put, home):
    put("one")
    put("two")
    assert agent.ask(StatusJob(str(home), check="one"), Status).health is None
    assert agent.ask(StatusJob(str(home), check="two"), Status).health.healthy


def test_files_that_edgekit_did_not_write_are_ignored(put, home):
    put("one")
    strays = ["releases/.nfs0001", "releases/notes.txt", "runtimes/notes.txt", "objects/notes.txt"]
    # Others hide their files as well, and name them alike.
    strays += [".x.tmp", "objects/.x.tmp", "releases/.staging-1", "runtimes/.staging-old"]
    for stray in strays:
        (home / stray).write_text("a note")
    (home / "parts/odd.part").mkdir()
    os.utime(home / "parts/odd.part", (0, 0))
    left_behind = [
        "releases/.staging-0123abcd",
        "runtimes/.staging-0123abcd",
        f"objects/.{'0' * 64}.0123abcd.tmp",
        ".current.0123abcd.tmp",
    ]
    for name in left_behind:
        (home / name).write_text("not even a folder")
    part = home / "parts" / f"{'0' * 64}.{'1' * 64}.part"
    part.mkdir()
    os.utime(part, (0, 0))
    (home / "agent").mkdir(exist_ok=True)
    agents = [home / "agent" / f".edgekit_agent-{'0' * 16}.pyz.{number}.tmp" for number in (1, 2)]
    for each in agents:
        each.write_text("half an agent")
    os.utime(agents[0], (0, 0))
    put("two")
    left_behind.append("releases/two/..previous.0123abcd.tmp")
    (home / left_behind[-1]).symlink_to("../one")
    status = put("three")
    assert (status.current.name, status.previous.name) == ("three", "two")
    kept = [".nfs0001", ".staging-1", "notes.txt", "three", "two"]
    assert names(home / "releases") == kept
    assert all((home / stray).read_text() == "a note" for stray in strays)
    assert (home / "parts/odd.part").is_dir()
    assert not any(os.path.lexists(home / name) for name in left_behind)
    assert not part.exists()
    assert [each.exists() for each in agents] == [False, True], "one may still be written"


def test_runtimes_that_no_kept_release_names_are_removed(put, home):
    kits = [home / "runtimes" / f"kit-{i}" for i in range(4)]
    for kit in kits:
        kit.mkdir(parents=True)
    put("one", site=str(kits[1]))
    assert names(home / "runtimes") == ["kit-1"]
    kits[2].mkdir()
    put("two", site=f"{home}/releases/../runtimes/kit-2")
    assert names(home / "runtimes") == ["kit-1", "kit-2"]
    put("three")
    assert names(home / "runtimes") == ["kit-2"]
    (home / "previous" / "release.json").write_text("rot")
    put("three")
    assert names(home / "runtimes") == ["kit-2"], "the damaged release may need it"


def test_the_newest_runtime_of_a_kind_that_no_kept_release_uses_stays(put, home):
    for age, name in ((1, "litert-2.1-new"), (2, "litert-2.0-old"), (3, "onnxruntime-1-old")):
        (home / "runtimes" / name).mkdir(parents=True)
        os.utime(home / "runtimes" / name, (1e9 - age, 1e9 - age))
    put("one", site=f"{home}/runtimes/litert-2.1-new")
    put("two")
    put("three")

    assert names(home / "releases") == ["three", "two"]
    assert names(home / "runtimes") == ["litert-2.1-new"]


def test_unused_runtimes_are_removed_if_their_space_is_needed(agent, put, home):
    for name in ("litert-2.1", "other-1.0"):
        (home / "runtimes" / name).mkdir(parents=True)
    put("one", site=f"{home}/runtimes/litert-2.1")
    put("two")
    put("three")
    assert names(home / "runtimes") == ["litert-2.1", "other-1.0"]

    huge = Blob("0" * 64, 1 << 60, "1" * 64, 1 << 60, "raw")
    site = f"{home}/runtimes/litert-2.1"
    assert agent.ask(ReceiveJob(str(home), (huge,), (0,), site), ReceiveResult).kind == "no_space"

    assert names(home / "runtimes") == ["litert-2.1"]


def test_an_unhealthy_release_is_removed_and_not_served(
    agent, put, deliver, bundle, install_job, home
):
    put("one")
    files = deliver(home, bundle("two", golden_outputs=np.full((2, 3), 9, np.float32)))
    failure = agent.ask(install_job(home, "two", files), Status)
    assert failure.kind == "unhealthy"
    assert "output y has a relative RMS error of" in failure.message
    assert get_served(home) == "one"
    assert names(home / "releases") == ["one"]


def test_a_release_that_cannot_even_run_is_removed(agent, put, deliver, bundle, install_job, home):
    put("one")
    files = deliver(home, {**bundle("two"), "model.onnx": b"no model"})
    assert agent.ask(install_job(home, "two", files), Status).kind == "model_failed"
    assert names(home / "releases") == ["one"]


def test_a_release_without_its_model_is_refused_before_anything_is_created(
    agent, install_job, home
):
    assert agent.ask(install_job(home, "one", ()), Status).kind == "bad_job"
    assert not home.exists()


def test_a_missing_blob_is_named(agent, install_job, home):
    files = tuple(never_sent(name) for name in ("model.onnx", "golden.npz"))
    failure = agent.ask(install_job(home, "one", files), Status)
    assert (failure.kind, failure.transient) == ("missing_blob", True)
    assert names(home / "releases") == []


def test_an_object_that_was_damaged_on_disk_is_not_installed(
    agent, deliver, bundle, install_job, home
):
    files = deliver(home, bundle("one"))
    (home / "objects" / files[2].digest).write_bytes(b"rot")
    failure = agent.ask(install_job(home, "one", files), Status)
    assert (failure.kind, failure.transient) == ("corrupt", True)
    assert not (home / "objects" / files[2].digest).exists()
    assert names(home / "releases") == []


@pytest.mark.parametrize("name", ["../one", ".hidden", "a/b", ""])
def test_names_that_leave_the_home_are_refused(agent, bundle, deliver, install_job, home, name):
    files = deliver(home, bundle("one"))
    assert agent.ask(install_job(home, name, files), Status).kind == "bad_job"
    renamed = (*files[:2], replace(files[2], name=name))
    assert agent.ask(install_job(home, "one", renamed), Status).kind == "bad_job"
    record = (*files[:2], replace(files[2], name="release.json"))
    assert agent.ask(install_job(home, "one", record), Status).kind == "bad_job"


def test_a_release_of_the_same_name_with_other_files_is_refused(
    agent, put, deliver, bundle, install_job, home
):
    put("one")
    files = deliver(home, bundle("other"))
    assert agent.ask(install_job(home, "one", files), Status).kind == "bad_job"
    assert get_served(home) == "one"


def test_without_a_previous_release_a_rollback_is_refused(agent, put, home):
    assert agent.ask(RollbackJob(str(home)), Status).kind == "nothing_installed"
    assert not home.exists()
    put("one")
    assert agent.ask(RollbackJob(str(home)), Status).kind == "no_previous"


def test_a_rollback_to_a_damaged_release_is_refused(agent, put, home):
    put("one")
    put("two")
    path = home / "previous" / "word.txt"
    path.unlink()
    path.write_text("rot")
    failure = agent.ask(RollbackJob(str(home)), Status)
    assert failure.kind == "corrupt"
    assert "word.txt" in failure.message
    assert get_served(home) == "two"


def test_an_installed_release_can_be_asked_for_its_health(agent, put, home):
    put("one")
    model = ModelRef(str(home / "current" / "model.onnx"), "onnxruntime")
    health = agent.ask(HealthJob(model, str(home / "current" / "golden.npz")), Health)
    assert health == Health(True, 0.0)


def test_a_home_may_start_with_a_tilde(start_agent, bundle, install_job, tmp_path):
    agent = start_agent(["env", f"HOME={tmp_path}", sys.executable, "-m", "edgekit_agent"])
    job = InstallJob("~/kit", "one", (), "m", "onnxruntime", 1, None, "c")
    assert agent.ask(job, Status).kind == "bad_job"
    assert agent.ask(StatusJob("~/kit"), Status) == Status(None, None)
    files = (never_sent("model.onnx"), never_sent("golden.npz"))
    agent.ask(install_job("~/kit", "one", files), Status)
    assert (tmp_path / "kit" / "objects").is_dir()
