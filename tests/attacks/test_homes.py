"""Folders of other programs, named as edgekit's folder by a bundle, a profile or a user."""

import json
import os
import stat
from dataclasses import replace

import pytest

from edgekit.errors import DeviceError
from edgekit.remote.home import Home
from edgekit.remote.session import open_session
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import ForgetJob, RollbackJob, StatusJob
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.install import install, rollback, status
from edgekit_agent.releases.receive import forget
from edgekit_agent.releases.store import lock_home
from tests.attacks.test_bundle_numbers import healthy, job_for, names, put, silent
from tests.builders.projects import edgekit, listing
from tests.builders.servers import make_bundle

FOREIGN = {
    "like a release tool": ["releases/1.0/app.bin", "runtimes/jdk/bin/java", ".state.12ab34cd.tmp"],
    "an empty release": ["releases/1.0/", "lock"],
    "one runtime": ["runtimes/jdk/bin/java"],
    "a note beside": ["objects/", "parts/", "runtimes/", "releases/", "notes.txt"],
    "objects of git": ["objects/ab/cdef"],
    "staging of others": ["releases/.staging-1/x", "objects/.x.tmp"],
    "a link": ["current"],
}


@pytest.fixture
def foreign(tmp_path):
    """Create a folder that another program uses."""

    def make(kind):
        folder = tmp_path / "home" / "foreign"
        for name in FOREIGN[kind]:
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if name.endswith("/"):
                path.mkdir(exist_ok=True)
            elif name == "current":
                path.symlink_to("/etc")
            else:
                path.write_text("of another program")
        return folder

    return make


@pytest.fixture
def device(workplace, monkeypatch):
    """This machine as a device that does not set its home."""
    monkeypatch.delenv("EDGEKIT_HOME")
    return workplace.parent


@pytest.mark.parametrize("kind", FOREIGN)
def test_the_agent_neither_writes_into_nor_sweeps_a_foreign_folder(foreign, kind):
    folder = foreign(kind)
    other, before = folder.parent / "other", listing(folder)

    def lock():
        with lock_home(open_home(str(folder))):
            pass

    for attempt in (
        lock,
        lambda: install(replace(job_for(other, "one"), home=str(folder)), healthy, silent),
        lambda: forget(ForgetJob(str(folder), ("0" * 64,))),
    ):
        with pytest.raises(AgentError) as caught:
            attempt()
        assert caught.value.failure.kind == "foreign_home"
        assert str(folder) in caught.value.failure.message
    assert listing(folder) == before


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_bundle_does_not_choose_the_folder(device, foreign, kind):
    folder = foreign(kind)
    before = listing(folder)
    bundle = make_bundle(device / "bundle", width=8).path
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["profile"]["connection"]["home"] = str(folder)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    done = edgekit("push", bundle, "local", "--json")
    assert done.code == 0, done.err
    assert f"--home {folder}" in done.err
    assert listing(folder) == before
    assert (device / "data" / "edgekit" / "current" / "model.onnx").exists()


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_folder_is_refused_also_where_the_user_names_it(device, foreign, kind):
    folder = foreign(kind)
    before = listing(folder)
    bundle = make_bundle(device / "bundle", width=8).path
    assert edgekit("rollback", "local", "--home", folder).code == 4
    done = edgekit("push", bundle, "local", "--home", folder)
    assert done.code == 4
    assert f"{folder} contains " in done.err
    assert "which edgekit did not write" in done.err
    assert listing(folder) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_an_empty_folder_of_another_user_is_refused(tmp_path):
    folder = tmp_path / "theirs"
    folder.mkdir()
    os.chown(folder, 65534, 65534)
    with pytest.raises(AgentError) as caught, lock_home(open_home(str(folder))):
        pass
    assert caught.value.failure.kind == "foreign_home"
    assert "another user" in caught.value.failure.message
    assert listing(folder) == {}


def test_a_profile_may_only_name_a_home_inside_the_users_home(device, monkeypatch):
    monkeypatch.setenv("HOME", str(device / "home"))
    inside, outside = device / "home" / "kit", device / "elsewhere"
    for text, path in (("~/kit", inside), ("kit", inside), (str(inside), inside)):
        with open_session("local", home=Home(path=text, rule="inside")) as session:
            assert session.home == str(path)
    for text in (str(outside), "../elsewhere", "~/kit/../../elsewhere"):
        with pytest.raises(DeviceError, match="outside the user's home"):
            open_session("local", home=Home(path=text, rule="inside")).__enter__()
    (device / "home" / "link").symlink_to(device)
    with pytest.raises(DeviceError, match="outside the user's home"):
        open_session("local", home=Home(path="link/elsewhere", rule="inside")).__enter__()
    assert not outside.exists()
    with open_session("local", home=Home(path=str(outside), rule="said")) as session:
        assert session.home == str(outside)


def test_home_overrides_the_devices_setting_which_overrides_the_profile(device, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(device / "own"))
    said = device / "home" / "it's mine"
    with open_session("local", home=Home(path=str(said), rule="said")) as session:
        assert session.home == str(said)
        session.close()
        session.facts()
        assert session.home == str(said)
    with open_session("local", home=Home(path="kit", rule="inside")) as session:
        assert session.home == str(device / "own")


def test_push_status_and_rollback_agree_on_the_home(device):
    bundle = make_bundle(device / "bundle", width=8).path
    second = make_bundle(device / "second", width=8, seed=1).path
    where = ("--home", device / "elsewhere")
    assert edgekit("push", bundle, "local", *where).code == 0
    assert edgekit("push", second, "local", *where).code == 0
    (state,) = json.loads(edgekit("status", "local", *where, "--json").out)
    assert state["previous"] is not None
    assert edgekit("rollback", "local", *where).code == 0
    (empty,) = json.loads(edgekit("status", "local", "--json").out)
    assert empty["current"] is None
    # The profile of edgekit.toml says it for all of them.
    shipped = edgekit("devices", "show", "tablet-x86").out
    (device / "work" / "mine.toml").write_text(f'{shipped}\n[connection]\nhome = "kit"\n')
    (device / "work" / "edgekit.toml").write_text('[build]\ndevice = "mine.toml"\n')
    assert edgekit("push", bundle, "local").code == 0
    (state,) = json.loads(edgekit("status", "local", "--json").out)
    assert state["current"] is not None
    assert (device / "home" / "kit" / "current").is_symlink()
    for wrong in ("", " ", "a\nb", "\x1b[2J"):
        assert edgekit("status", "local", "--home", wrong).code == 2


def test_a_home_without_the_marker_of_later_versions_is_recognized(tmp_path):
    home = tmp_path / "home"
    put(home, "one")
    put(home, "two")
    (home / ".edgekit-home").unlink()
    (home / "agent").mkdir()
    (home / "agent" / f"edgekit_agent-{'0' * 16}.pyz").write_text("an agent")
    (home / "runtimes" / "kit" / "numpy-1.dist-info").mkdir(parents=True)
    (home / "previous").unlink()
    (home / "previous").symlink_to("releases/one")
    home.chmod(0o755)
    assert names(status(StatusJob(str(home)), healthy)) == ("two", "one")
    assert names(put(home, "three")) == ("three", "two")
    assert (home / ".edgekit-home").is_file()
    assert names(rollback(RollbackJob(str(home)), healthy)) == ("two", "three")
    # Whoever could read what is served can read it still.
    assert mode(home) == 0o755
    assert mode(home / "releases") == mode(home / "releases" / "three") == 0o755
    assert mode(home / "releases" / "three" / "model") == 0o644


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o007])
def test_files_are_readable_only_by_their_user_whatever_the_umask(device, umask):
    bundle = make_bundle(device / "bundle", width=8).path
    before = os.umask(umask)
    try:
        done = edgekit("push", bundle, "local")
    finally:
        os.umask(before)
    assert done.code == 0, done.err
    home = device / "data" / "edgekit"
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            assert mode(path) == (0o700 if path.is_dir() else 0o600), path


def test_received_files_are_private_even_in_a_shared_home(tmp_path):
    home = tmp_path / "home"
    put(home, "one")
    home.chmod(0o750)
    put(home, "two")
    assert mode(home / "releases" / "two" / "model") == 0o640
    assert mode(home / "objects") == mode(home / "parts") == 0o700


def test_the_agent_runs_from_the_file_that_was_checked(device):
    with open_session("local") as session:
        (agent,) = (device / "data" / "edgekit" / "agent").iterdir()
        evil = agent.with_name("evil")
        evil.write_text("import os; os._exit(99)")
        evil.replace(agent)
        facts = session.facts()
    assert any(runtime.works for runtime in facts.runtimes)
