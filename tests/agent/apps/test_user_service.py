"""The systemd unit of an app: its text, a real systemd, and devices without one."""

import dataclasses
import fcntl
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit_agent.apps.installed import find_app
from edgekit_agent.apps.package_file import open_package
from edgekit_agent.apps.user_service import control_service, make_unit
from tests.builders.apps.device import ROW
from tests.builders.servers import free_port

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


needs_systemd = pytest.mark.skipif(
    SYSTEMD is None or os.geteuid() != 0, reason="needs systemd, and root to run it"
)


def run_with_systemd(device, script):
    """Run a script in which a systemd of the user runs; return what it wrote."""
    device.environment["XDG_RUNTIME_DIR"] = f"/run/user/{os.getuid()}"
    # Two managers would end each other's services: they see the same control groups.
    with Path(SYSTEMD).open("rb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = device.call(
            "unshare", "--mount", "--propagation", "private", "sh", "-c", BEGIN + script
        )
    if done.returncode == 77:
        pytest.skip("a systemd of the user, with the control groups that it needs, runs not here")
    assert done.returncode == 0, done.stderr
    return done.stdout


@needs_systemd
def test_systemd_starts_the_app_again_and_uninstall_removes_the_unit(device, package):
    port = free_port()
    script = f"""
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
    stdout = run_with_systemd(device, script)
    assert f"it answers at http://127.0.0.1:{port}/" in stdout
    assert "restarts 1" in stdout
    assert re.search(rf"running at http://127\.0\.0\.1:{port}/, ready", stdout)
    assert "state inactive" in stdout
    assert not list(device.home.rglob("*.service"))


EATER = """
def answer(models, sample):
    if "eat" in sample:
        return {"result": len(bytes(1) * (sample["eat"] << 20))}
    return models["main"].predict(sample)
"""
ASK = """
import json, sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1] + "predict", sys.argv[2].encode())
try:
    print(200, urllib.request.urlopen(request).read()[:40])
except urllib.error.HTTPError as error:
    print(error.code, json.load(error)["error"]["code"])
"""


@needs_systemd
def test_an_app_over_its_memory_limit_is_ended_and_started_again(device, draft):
    """The limit of systemd ends the process of the models; the server goes on, and starts it."""
    changed = draft.replace({"app/main.py": EATER.encode()}, entry="main:answer", memory_mib=300)
    package = changed.write(device.folder / "eater.run")
    (device.folder / "ask.py").write_text(ASK)
    port, row = free_port(), json.dumps(ROW)
    ask = f"python3 '{device.folder}/ask.py' http://127.0.0.1:{port}/"
    stdout = run_with_systemd(
        device,
        f"""
sh '{package}' --prefix '{device.prefix}' --port {port} --systemd
trap '"{device.prefix}/bin/leaf" uninstall; kill $manager' EXIT
first=$(show MainPID)
group=$(sed -n 's/^[0-9]*:memory://p; s/^0:://p' /proc/$first/cgroup | head -n 1)
cat /sys/fs/cgroup"$group"/memory.max /sys/fs/cgroup/memory"$group"/memory.limit_in_bytes \
  2>/dev/null | grep -q '^314572800$' || exit 77
{ask} '{row}'
{ask} '{{"eat": 100}}'
{ask} '{{"eat": 500}}'
sleep 2
for n in 1 2 3 4 5 6 7 8 9 10; do
  again=$({ask} '{row}')
  echo "$again" | grep -q '^200' && break
  sleep 1
done
echo "again $again"
[ "$(show MainPID)" = "$first" ] && echo "the server is the same"
echo "restarts $(show NRestarts)"
""",
    )
    lines = stdout.splitlines()
    begin = next(n for n, line in enumerate(lines) if line.startswith(("200", "503")))
    assert [line.split(" b")[0] for line in lines[begin : begin + 6]] == [
        "200",
        "200",
        "503 killed",
        "again 200",
        "the server is the same",
        "restarts 0",
    ]


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
