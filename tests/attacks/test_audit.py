"""The audit log of a device: one line for each action, including refused ones."""

import json
import os
import subprocess
import threading

import pytest

from edgekit.errors import DeviceError
from edgekit.signing.keys import make_key
from edgekit_agent.boot.watch import PENDING
from edgekit_agent.releases.audit import LOG, OLDER_LOG, add_line, read_last_lines
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.records import RECORD
from edgekit_agent.trust.keys import TRUST
from tests.builders.projects import command, edgekit
from tests.builders.servers import make_bundle
from tests.builders.signed import Device, make_signed


@pytest.fixture
def device(tmp_path, monkeypatch):
    for name in ("config", "home", "cache"):
        monkeypatch.setenv(f"EDGEKIT_{name.upper()}", str(tmp_path / name))
    return Device(home=tmp_path / "home", cache=tmp_path / "cache")


def test_every_action_has_a_line_that_says_who_what_when_and_how_it_ended(
    device, tmp_path, monkeypatch
):
    monkeypatch.setenv("SSH_CONNECTION", "192.0.2.7 5000 192.0.2.1 22")
    key, mallory = make_key("owner"), make_key("mallory")
    device.trust(key)
    first = device.push(make_signed(tmp_path / "b1", key, version=3)).release
    second = device.push(make_signed(tmp_path / "b2", key, seed=1, version=4)).release
    for evil in (
        make_bundle(tmp_path / "u", seed=2, width=8),
        make_signed(tmp_path / "m", mallory, seed=3, version=9),
        make_signed(tmp_path / "wrong", key, seed=4, version=9, wrong=True),
    ):
        with pytest.raises(DeviceError):
            device.push(evil)
    device.rollback()
    device.trust(mallory)
    device.revoke(mallory)
    device.status()

    done = edgekit("status", "local", "--log", "--json")
    (one,) = json.loads(done.out)
    lines = [(x["action"], x["key"], x["version"], x["result"].split(":")[0]) for x in one["log"]]
    assert lines == [
        ("trust", key.id, 0, "done"),
        ("install", key.id, 3, "done"),
        ("install", key.id, 4, "done"),
        ("install", "", 0, "unsigned"),
        ("install", mallory.id, 0, "untrusted_key"),
        ("install", key.id, 0, "unhealthy"),
        ("rollback", key.id, 3, "done"),
        ("trust", mallory.id, 0, "done"),
        ("revoke", mallory.id, 0, "done"),
    ]
    assert [x["release"] for x in one["log"][1:3]] == [first, second]
    assert {x["client"] for x in one["log"]} == {"192.0.2.7"}
    assert all(x["user"] and x["at"].endswith("+00:00") for x in one["log"])
    text = edgekit("status", "local", "--log").out
    assert f"install {second}, key {key.id}, version 4, by " in text
    assert " from 192.0.2.7: done" in text
    assert " from 192" not in edgekit("status", "local").out
    assert (device.home / LOG).stat().st_mode & 0o777 == 0o600


def test_a_device_that_trusts_no_key_has_the_log_as_well(device, tmp_path):
    bundle = make_bundle(tmp_path / "b", width=8)
    device.push(bundle)
    with pytest.raises(DeviceError):
        device.rollback()
    lines = read_last_lines(open_home(str(device.home)), 10)
    assert [(x.action, x.result.split(":")[0]) for x in lines] == [
        ("install", "done"),
        ("rollback", "no_previous"),
    ]


def test_the_log_is_bounded_and_damaged_lines_are_left_out(tmp_path):
    home = open_home(str(tmp_path))
    (tmp_path / LOG).write_bytes(b"x" * (1 << 20) + b"\n" + b"[" * 100_000 + b"\n")
    add_line(home, "install", "y" * 5000, release="r" * 5000)
    assert (tmp_path / OLDER_LOG).stat().st_size > 1 << 20
    (line,) = read_last_lines(home, 10)
    assert (len(line.result), len(line.release)) == (300, 300)
    for number in range(5):
        add_line(home, "install", "done", version=number)
    assert [x.version for x in read_last_lines(home, 3)] == [2, 3, 4]
    assert read_last_lines(home, 0) == read_last_lines(home, -1) == ()


def test_lines_of_two_agents_do_not_mix(tmp_path):
    home = open_home(str(tmp_path))
    writers = [
        threading.Thread(
            target=lambda: [add_line(home, "install", "z" * 250) for _ in range(50)], daemon=True
        )
        for _ in range(4)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(read_last_lines(home, 1000)) == 200


def test_a_log_that_cannot_be_written_does_not_stop_the_action(device, tmp_path):
    device.push(make_bundle(tmp_path / "b1", width=8))
    (device.home / LOG).unlink()
    (device.home / LOG).mkdir()
    assert device.push(make_bundle(tmp_path / "b2", seed=1, width=8)).health.healthy


def test_a_link_in_place_of_the_log_is_not_followed(device, tmp_path):
    device.push(make_bundle(tmp_path / "b1", width=8))
    other = tmp_path / "other"
    other.write_text("mine")
    (device.home / LOG).unlink()
    (device.home / LOG).symlink_to(other)
    device.push(make_bundle(tmp_path / "b2", seed=1, width=8))
    assert other.read_text() == "mine"


@pytest.mark.parametrize("name", [LOG, TRUST, PENDING, f"current/{RECORD}"])
def test_a_pipe_in_place_of_a_file_does_not_block_status(device, tmp_path, name):
    """``status`` waited for a writer until its limit of time."""
    device.push(make_bundle(tmp_path / "b", width=8))
    place = device.home / name
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    done = subprocess.run(
        command("status", "local", "--log"), capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, "Traceback" in done.stderr) == (0, False)


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_a_pipe_or_folder_in_place_of_the_trusted_keys_accepts_no_release(device, tmp_path, make):
    device.push(make_bundle(tmp_path / "b1", width=8))
    make(device.home / TRUST)
    bundle = make_bundle(tmp_path / "b2", seed=1, width=8)
    done = subprocess.run(
        command("push", bundle.path, "local"), capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, "damaged: not a regular file" in done.stderr) == (4, True)
    assert "file of trusted keys is damaged" in edgekit("status", "local").out
    if make is os.mkfifo:
        device.trust(make_key("owner"), replace=True)


def test_a_log_that_is_a_pipe_does_not_stop_the_action(device, tmp_path):
    device.push(make_bundle(tmp_path / "b1", width=8))
    (device.home / LOG).unlink()
    os.mkfifo(device.home / LOG)
    bundle = make_bundle(tmp_path / "b2", seed=1, width=8)
    done = subprocess.run(
        command("push", bundle.path, "local"), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0


def test_a_line_torn_by_a_power_cut_does_not_affect_others(device, tmp_path):
    home = open_home(str(device.home))
    device.home.mkdir()
    for number, torn in enumerate((b'{"action": "inst', b'{"action": "inst\n', b"\0\0\0")):
        with (device.home / LOG).open("ab") as log:
            log.write(torn)
        add_line(home, "confirm", f"done {number}")
    assert [line.result for line in read_last_lines(home, 9)] == ["done 0", "done 1", "done 2"]
