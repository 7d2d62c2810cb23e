"""Names of releases that would lead elsewhere, and folders of others in their place."""

import json
import os
import threading
import time
from dataclasses import replace

import pytest

from edgekit.signing.keys import make_key
from edgekit_agent.boot import start as boot
from edgekit_agent.boot.watch import run_watch
from edgekit_agent.failures import AgentError
from edgekit_agent.jobs import ConfirmJob, RollbackJob, StatusJob, UninstallJob
from edgekit_agent.releases.homes import Home, open_home
from edgekit_agent.releases.install import install, rollback, status
from edgekit_agent.releases.store import lock_home
from edgekit_agent.releases.uninstall import uninstall
from tests.agent.test_boot import System
from tests.agent.test_crash import job_for
from tests.attacks.test_bundle_numbers import healthy, silent
from tests.builders.projects import edgekit, listing
from tests.builders.servers import make_bundle
from tests.builders.signed import Device

TRICKS = [
    "../x", "..", ".", "/etc", "a/b", "a/../b", "", "-", "-a", "1a", "Door", "a b", "a\n", "a\0",
    "ä", "а", "a" * 33, "a" * 5000, ".staging-00000000", "a_b", "door.", "ｄoor",
]  # fmt: skip


def put(home, release, app="", **settings):
    return install(job_for(home, release, app=app, **settings), healthy, silent)


@pytest.mark.parametrize("name", TRICKS, ids=ascii)
def test_a_name_that_leads_elsewhere_is_refused_by_the_agent(tmp_path, name):
    home = tmp_path / "home"
    put(home, "one")
    before = listing(tmp_path)
    others = (
        lambda: install(replace(job_for(home, "one"), app=name), healthy, silent),
        lambda: rollback(RollbackJob(str(home), name), healthy),
        lambda: status(StatusJob(str(home), app=name), healthy),
    )
    # Without a name, these are about the main home, which cannot be uninstalled.
    for attempt in (lambda: uninstall(UninstallJob(str(home), name)), *(others if name else ())):
        with pytest.raises(AgentError) as caught:
            attempt()
        assert caught.value.failure.kind == "bad_job"
    assert listing(tmp_path) == before


@pytest.mark.parametrize("name", [name for name in TRICKS if "\0" not in name], ids=ascii)
def test_a_name_that_leads_elsewhere_is_refused_by_the_command(workplace, tmp_path, name):
    bundle = make_bundle(tmp_path / "b", width=8).path
    for command in (
        ("push", bundle, "local", f"--name={name}"),
        ("status", "local", f"--name={name}"),
        ("uninstall", "local", "--", name),
    ):
        done = edgekit(*command)
        assert done.code == 2, done
        assert "Traceback" not in done.err


@pytest.mark.parametrize("place", ["apps", "apps/door"])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_a_file_in_the_place_of_a_name_is_refused(tmp_path, place, kind):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    put(home, "main")
    put(elsewhere, "other")
    (home / place).parent.mkdir(exist_ok=True)
    if kind == "link":
        (elsewhere / "door").mkdir()
        (home / place).symlink_to(elsewhere)
    else:
        (home / place).write_text("a file")
    job = replace(job_for(home, "one"), app="door")
    before = listing(tmp_path)
    for attempt in (
        lambda: install(job, healthy, silent),
        lambda: uninstall(UninstallJob(str(home), "door")),
        lambda: rollback(RollbackJob(str(home), "door"), healthy),
    ):
        with pytest.raises(AgentError) as caught:
            attempt()
        assert caught.value.failure.kind == "foreign_home"
    assert status(StatusJob(str(home)), healthy).apps == ()
    assert listing(tmp_path) == before


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
@pytest.mark.parametrize("place", ["apps", "apps/door"])
def test_a_folder_of_another_user_in_the_place_of_a_name_is_refused(tmp_path, place):
    home = tmp_path / "home"
    put(home, "main")
    (home / place).mkdir(parents=True)
    os.chown(home / place, 65534, 65534)
    job = replace(job_for(home, "one"), app="door")
    before = listing(tmp_path)
    with pytest.raises(AgentError, match="belongs to another user") as caught:
        install(job, healthy, silent)
    assert caught.value.failure.kind == "foreign_home"
    assert listing(tmp_path) == before


def test_a_folder_of_another_program_in_the_place_of_a_name_is_refused(tmp_path):
    home = tmp_path / "home"
    put(home, "main")
    (home / "apps" / "door").mkdir(parents=True)
    (home / "apps" / "door" / "notes.txt").write_text("of another program")
    before = listing(tmp_path)
    with pytest.raises(AgentError, match=r"contains 'notes.txt'"):
        install(replace(job_for(home, "main"), app="door"), healthy, silent)
    assert status(StatusJob(str(home)), healthy).apps == ()
    assert listing(tmp_path) == before


def test_the_folder_of_a_name_given_as_home_keeps_the_keys_of_the_device(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CONFIG", str(tmp_path / "config"))
    monkeypatch.setenv("EDGEKIT_HOME", str(tmp_path / "home"))
    put(tmp_path / "home", "main")
    put(tmp_path / "home", "one", "door")
    device = Device(home=tmp_path / "home", cache=tmp_path / "cache")
    device.trust(make_key("own"))
    unsigned = make_bundle(tmp_path / "b", width=8).path
    (tmp_path / "link").symlink_to(tmp_path / "home" / "apps" / "door")
    for folder in (tmp_path / "home" / "apps" / "door", tmp_path / "link"):
        done = edgekit("push", unsigned, "local", "--home", folder)
        assert done.code == 4, done
        assert "not signed" in done.err
    assert (tmp_path / "home/apps/door/current").resolve().name == "one"


def test_a_name_in_the_folder_of_a_name_is_refused(tmp_path):
    put(tmp_path / "home", "main")
    put(tmp_path / "home", "one", "door")
    with pytest.raises(AgentError, match="the folder of a name itself"):
        open_home(str(tmp_path / "home" / "apps" / "door"), "inner")


def test_more_names_than_a_device_takes_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit_agent.releases.homes.MOST_APPS", 2)
    home = tmp_path / "home"
    put(home, "main")
    for app in ("a", "b"):
        put(home, "one", app)
    with (
        pytest.raises(AgentError, match="holds 2 names already"),
        lock_home(open_home(str(home), "c")),
    ):
        pass
    put(home, "two", "a")
    uninstall(UninstallJob(str(home), "b"))
    put(home, "one", "c")
    assert [each.name for each in status(StatusJob(str(home)), healthy).apps] == ["a", "c"]


def test_runtimes_of_names_are_never_spare_and_go_with_the_last_name(tmp_path):
    home = tmp_path / "home"
    put(home, "zero")

    def put_with(release, runtime, app=""):
        (home / "runtimes" / runtime).mkdir(exist_ok=True)
        put(home, release, app, site=str(home / "runtimes" / runtime))

    put_with("one", "ort-2")
    put_with("one", "ort-1", "door")
    put_with("one", "ort-1", "gate")
    (home / "runtimes" / "other-1").mkdir()
    for release in ("two", "three", "four"):
        put_with(release, "ort-2")

    def there():
        return sorted(path.name for path in (home / "runtimes").iterdir())

    assert there() == ["ort-1", "ort-2", "other-1"]
    assert uninstall(UninstallJob(str(home), "door")).runtimes == ()
    assert uninstall(UninstallJob(str(home), "gate")).runtimes == ("ort-1",)
    assert there() == ["ort-2", "other-1"]


def test_a_damaged_record_of_a_name_keeps_every_runtime(tmp_path):
    home = tmp_path / "home"
    put(home, "zero")
    site = home / "runtimes" / "ort-1"
    site.mkdir()
    put(home, "one", "door", site=str(site))
    (home / "apps/door/releases/one/release.json").write_text("{")
    for release in ("two", "three"):
        put(home, release)
    assert site.is_dir()
    assert status(StatusJob(str(home)), healthy).apps[0].current.model == ""


def test_a_removal_while_an_install_waits_leaves_one_of_both_whole(tmp_path):
    home = tmp_path / "home"
    put(home, "main")
    put(home, "one", "door")
    done = []
    job = job_for(home, "two", app="door")
    with lock_home(open_home(str(home), "door")):
        waiting = threading.Thread(target=lambda: done.append(try_to(install, job)))
        waiting.start()
        time.sleep(0.3)
        (home / "apps" / "door").rename(home / "apps" / ".staging-00000000")
    waiting.join()
    found = status(StatusJob(str(home)), healthy)
    assert done == ["missing_blob"]
    assert found.apps == ()


def try_to(act, job):
    try:
        act(job, healthy, silent)
    except AgentError as error:
        return error.failure.kind
    return "done"


def test_no_confirmation_and_no_watcher_brings_a_removed_name_back(tmp_path):
    from edgekit_agent.boot.watch import confirm

    home = tmp_path / "home"
    put(home, "main")
    put(home, "one", "door")
    uninstall(UninstallJob(str(home), "door"))
    for act in (
        lambda: confirm(ConfirmJob(str(home), "one", "door")),
        lambda: uninstall(UninstallJob(str(home), "door")),
        lambda: rollback(RollbackJob(str(home), "door"), healthy),
    ):
        with pytest.raises(AgentError):
            act()
    assert run_watch(str(home / "apps" / "door")) == 0
    assert list((home / "apps").iterdir()) == []


@pytest.mark.parametrize("mechanism", ["systemd", "cron"])
def test_the_start_at_boot_of_a_name_goes_with_it_and_others_stay(tmp_path, monkeypatch, mechanism):
    system = System(tmp_path / "system")
    monkeypatch.setenv("PATH", f"{system.bin}:/usr/bin:/bin")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    for module in (boot.cron, boot.user_units):
        monkeypatch.setattr(module, "is_in_memory", lambda path: False)
    config = tmp_path / "user/.config"
    if mechanism == "systemd":
        system.start_systemd(config=config)
    else:
        system.start_cron().write_text("@daily backup\n")
    home = tmp_path / "home"
    for app in ("", "door", "gate"):
        put(home, "one", app)
        prepared = boot.prepare_boot(open_home(str(home), app).path, system=str(system.root))
        assert prepared.mechanism == mechanism

    def entries():
        if mechanism == "cron":
            return system.table.read_text().splitlines()
        units = config / "systemd/user"
        return sorted(str(p.relative_to(units)) for p in units.rglob("*.service"))

    before = entries()
    assert uninstall(UninstallJob(str(home), "door")).boot_problem == ""
    gone = boot._get_unit_name(str(home / "apps" / "door"))
    assert entries() == [line for line in before if gone not in line]
    assert len(entries()) < len(before)


def test_the_audit_log_of_a_name_survives_its_removal(workplace, tmp_path):
    bundle = make_bundle(tmp_path / "b", width=8).path
    assert edgekit("push", bundle, "local", "--name", "door").code == 0
    assert edgekit("push", bundle, "local").code == 0
    assert edgekit("uninstall", "local", "door").code == 0
    (state,) = json.loads(edgekit("status", "local", "--log", "--json").out)
    assert [(line["action"], line["app"]) for line in state["log"]] == [
        ("install", "door"), ("install", ""), ("uninstall", "door"),
    ]  # fmt: skip
    (state,) = json.loads(edgekit("status", "local", "--name", "door", "--log", "--json").out)
    assert [line["action"] for line in state["log"]] == ["install", "uninstall"]


def test_homes_are_told_apart_by_path_alone(tmp_path):
    put(tmp_path / "home", "main")
    put(tmp_path / "home", "one", "door")
    assert open_home(str(tmp_path / "home/apps/door")).main == str(tmp_path / "home")
    assert open_home(str(tmp_path / "home/apps")) == Home(str(tmp_path / "home/apps"))
    assert open_home(str(tmp_path / "other/apps/door")).main == ""
