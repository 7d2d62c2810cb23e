"""The systemd unit of an app: its text, a real systemd, and devices without one."""

import dataclasses
import fcntl
import os
import re
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from edgekit_agent.apps.installed import find_app
from edgekit_agent.apps.package_file import open_package
from edgekit_agent.apps.user_service import control_service, make_unit

pytestmark = pytest.mark.slow

SYSTEMD = shutil.which("systemd")
# A systemd of the user in a mount namespace of its own, which hides that of the machine.
BEGIN = """
mount -t tmpfs tmpfs /run || exit 77
mkdir -p /run/systemd/system "$XDG_RUNTIME_DIR" && chmod 700 "$XDG_RUNTIME_DIR"
systemd --user --log-target=null >/dev/null 2>&1 &
manager=$!
trap 'kill $manager' EXIT
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do
  systemctl --user is-system-running 2>/dev/null | grep -q running && break
  sleep 0.3
done
systemctl --user is-system-running >/dev/null 2>&1 || exit 77
show() { systemctl --user show -p "$1" --value edgekit-leaf; }
set -e
"""


def test_the_unit_has_watchdog_restart_and_memory_limit(package, tmp_path):
    reader = open_package(str(package))
    stated = dataclasses.replace(reader.package, memory_mib=300, title="50 % done")
    unit = make_unit(find_app(str(tmp_path / "a b"), "leaf"), stated, 8123)
    reader.close()
    assert f'\nExecStart="{tmp_path}/a b/bin/leaf" serve --port 8123\n' in unit
    for line in (
        "Description=50 %% done",
        "Type=notify",
        "Restart=on-failure",
        "WatchdogSec=60",
        "MemoryMax=300M",
        "WantedBy=default.target",
    ):
        assert line in unit.splitlines()


def test_a_device_without_systemd_is_told_so_in_one_line(installed, package):
    if Path("/run/systemd/system").is_dir():
        pytest.skip("this machine has systemd")
    told = installed.install(package, "--systemd")
    assert told.returncode == 4
    assert "not as a systemd service: the device has no systemd" in told.stderr
    assert "start it by hand" in told.stderr
    assert installed.run("check").returncode == 0


def test_a_model_that_loads_slowly_does_not_fail_the_start(tmp_path, monkeypatch):
    """systemctl waits until the server tells that it is ready."""
    program = tmp_path / "programs" / "systemctl"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nsleep 21\necho "$3" >> {tmp_path}/called\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    control_service(find_app(str(tmp_path), "leaf"), "stop")
    assert (tmp_path / "called").read_text() == "stop\n"


@pytest.mark.skipif(
    SYSTEMD is None or os.geteuid() != 0, reason="needs systemd, and root to run it"
)
def test_systemd_starts_the_app_again_and_uninstall_removes_the_unit(device, package):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    device.environment["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    script = f"""{BEGIN}
sh '{package}' --prefix '{device.prefix}' --port {port} --systemd
first=$(show MainPID)
kill -9 "$first"
for n in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24 25 26 27 28 29 30; do
  [ "$(show ActiveState)" = active ] && [ "$(show MainPID)" != "$first" ] && break
  sleep 1
done
echo "restarts $(show NRestarts)"
'{device.prefix}/bin/leaf' status
'{device.prefix}/bin/leaf' stop
echo "state $(show ActiveState)"
'{device.prefix}/bin/leaf' uninstall
"""
    # Two managers would end each other's services: they see the same control groups.
    with Path(SYSTEMD).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = device.call("unshare", "--mount", "--propagation", "private", "sh", "-c", script)
    if done.returncode == 77:
        pytest.skip("a systemd of the user does not run here")
    assert done.returncode == 0, done.stderr
    assert f"it answers at http://127.0.0.1:{port}/" in done.stdout
    assert "restarts 1" in done.stdout
    assert re.search(rf"running at http://127\.0\.0\.1:{port}/, ready", done.stdout)
    assert "state inactive" in done.stdout
    assert not list(device.home.rglob("*.service"))


def test_the_unit_is_one_that_systemd_understands(package, tmp_path):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("needs systemd-analyze")
    launcher = tmp_path / "a b" / "bin" / "leaf"
    launcher.parent.mkdir(parents=True)
    launcher.write_text("#!/bin/sh\n")
    launcher.chmod(0o755)
    reader = open_package(str(package))
    path = tmp_path / "edgekit-leaf.service"
    path.write_text(make_unit(find_app(str(tmp_path / "a b"), "leaf"), reader.package, 1))
    reader.close()
    checked = subprocess.run(
        ["systemd-analyze", "--user", "verify", path],
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "edgekit-leaf.service" not in checked.stderr, checked.stderr
