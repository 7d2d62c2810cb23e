"""Emulated device whose power is cut; see ``deliveries.power``."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.deliveries.judge import DeviceState, Digests
from benchmarks.deliveries.site import cache, files_of, release_of
from edgekit.remote.confirmation import WatchTerms
from edgekit.remote.deploy import push
from edgekit.remote.session import open_session
from tests.builders.devices import home, script
from tests.builders.servers import make_bundle

HERE = Path(__file__).resolve().parent
HOME = "/home/device/.local/share/edgekit"
BARE, READY = "edgekit-bare", "edgekit-ready"
_SETTINGS = {"ARCH": "arm64", "CPU": "cortex-a53", "SMP": "1", "MEM": "512", "WAIT": "350"}
_PACKAGES = "/usr/lib/python3/dist-packages"
_BOOT_S = 240.0
# What the maintainer scripts of cron would have done, and a line that starts it.
_PREPARE = """
set -e
grep -q ^crontab: /etc/group || echo crontab:x:101: >>/etc/group
mkdir -p /var/spool/cron/crontabs
chown root:crontab /var/spool/cron/crontabs /usr/bin/crontab
chmod 1730 /var/spool/cron/crontabs
chmod 2755 /usr/bin/crontab
for part in auth account password session session-noninteractive; do
    : >/etc/pam.d/common-$part
done
printf '%s required pam_permit.so\\n' account auth session >/etc/pam.d/cron
[ -L /var/run ] || { rm -rf /var/run; ln -s /run /var/run; }
grep -q cron /etc/inittab || echo '::respawn:/usr/sbin/cron -f' >>/etc/inittab
kill -HUP 1
sync
"""
_INSTALL_HOOK = f"""
set -e
cat >{_PACKAGES}/deliveries_aim.py
echo 'import deliveries_aim' >{_PACKAGES}/deliveries_aim.pth
sync
"""


class Device:
    """Emulated device that is removed at the end."""

    def __init__(self, scripts: Path, name: str) -> None:
        self.scripts, self.name = scripts, name
        self.folder = home() / "run" / name

    def run(
        self, command: str, *, as_root: bool = False, given: str = "", most_s: float = _BOOT_S
    ) -> str:
        """Run a command on the device; return its output.

        Raises:
            CalledProcessError: The command failed.
        """
        done = subprocess.run(
            [*self._ssh(as_root=as_root), command],
            input=given,
            stdout=subprocess.PIPE,
            check=True,
            text=True,
            timeout=most_s,
        )
        return done.stdout

    def start(self, command: str) -> subprocess.Popen[str]:
        """Start a command on the device."""
        return subprocess.Popen(
            [*self._ssh(as_root=False), command], stdout=subprocess.DEVNULL, text=True
        )

    def send(self, file: Path, name: str) -> None:
        """Copy a file to the home folder of the user."""
        configuration = str(self.folder / "ssh_config")
        command = ["scp", "-q", "-F", configuration, str(file), f"{self.name}:{name}"]
        subprocess.run(command, check=True)

    def install_hook(self) -> None:
        """Let Python on the device stop at the operations that ``aim`` names."""
        hook = (HERE / "aim.py").read_text(encoding="utf-8")
        self.run(_INSTALL_HOOK, as_root=True, given=hook)

    def _ssh(self, *, as_root: bool) -> list[str]:
        login = ["-l", "root"] if as_root else []
        return ["ssh", "-F", str(self.folder / "ssh_config"), *login, self.name]

    def listen(self) -> subprocess.Popen[str]:
        """Start a process that waits for the announcement of the selected operation."""
        return subprocess.Popen(
            [*self._ssh(as_root=True), "cat /run/announced"], stdout=subprocess.PIPE, text=True
        )

    def aim(self, settings: Mapping[str, object]) -> None:
        """Make the agent stop at an operation."""
        prepare = "rm -f /run/announced; mkfifo /run/announced; chmod 666 /run/announced; "
        self.run(prepare + "cat >/run/aim", as_root=True, given=json.dumps(settings))

    def seen(self) -> DeviceState:
        """Read the state of edgekit's home."""
        text = (HERE / "look.py").read_text()
        return DeviceState.of(json.loads(self.run(f"python3 -I - {HOME}", given=text)))

    def cut_power(self) -> None:
        """Kill the emulator at once; unsynced data is lost."""
        os.kill(int((self.folder / "pid").read_text()), signal.SIGKILL)
        script(self.scripts, f"stop.sh {self.name} --power-cut", _SETTINGS)

    def boot(self) -> None:
        """Boot from the present disk."""
        script(self.scripts, f"boot.sh {self.name}", _SETTINGS | {"KEEP": "1"})

    def settle(self) -> DeviceState:
        """Wait until no release waits for a confirmation; ``cron`` starts the watcher."""
        until = time.monotonic() + _BOOT_S
        while (seen := self.seen()).watch is not None and time.monotonic() < until:
            time.sleep(2.0)
        return seen

    def remove(self) -> None:
        """Remove the device."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            self.cut_power()
        shutil.rmtree(self.folder, ignore_errors=True)


@contextlib.contextmanager
def connect_device(device: Device) -> Iterator[Device]:
    """Make the device known to edgekit by its name, and remove it at the end."""
    before = os.environ.get("EDGEKIT_SSH_CONFIG")
    os.environ["EDGEKIT_SSH_CONFIG"] = str(device.folder / "ssh_config")
    try:
        yield device
    finally:
        if before is not None:
            os.environ["EDGEKIT_SSH_CONFIG"] = before
        device.remove()


def thaw(scripts: Path, template: str) -> Device:
    """Resume a copy of a frozen device."""
    device = Device(scripts, f"edgekit-cut-{os.getpid()}")
    try:
        script(scripts, f"thaw.sh {template} {device.name}", _SETTINGS)
    except BaseException:
        device.remove()
        raise
    return device


def prepare_templates(scripts: Path, folder: Path) -> dict[str, Digests]:
    """Freeze a bare device, and one with a runtime and two releases; return their files.

    An image with ``cron``, which starts the watcher at boot, is built if there is none.
    """
    if not (home() / "image-arm64/root.ext4").exists():
        script(scripts, "build-image.sh", {"ARCH": "arm64", "SIZE_MB": "900", "EXTRA": "cron"})
    if not (home() / "run" / BARE / "frozen").exists():
        bare = Device(scripts, BARE)
        script(scripts, f"boot.sh {BARE}", _SETTINGS)
        bare.run(_PREPARE, as_root=True)
        bare.install_hook()
        _freeze(bare)
    known = home() / "run" / READY / "known.json"
    if not (home() / "run" / READY / "frozen").exists():
        script(scripts, f"thaw.sh {BARE} {READY}", _SETTINGS)
        ready = Device(scripts, READY)
        os.environ["EDGEKIT_SSH_CONFIG"] = str(ready.folder / "ssh_config")
        found: dict[str, Digests] = {}
        for seed in (1, 2):
            bundle = make_bundle(folder / f"base{seed}", seed=seed, arch="aarch64")
            found[release_of(bundle)] = files_of(bundle)
            print(f"{READY}: first pushes take minutes", file=sys.stderr, flush=True)
            with open_session(READY) as session:
                terms = WatchTerms(seconds=600.0)
                push(bundle, session, cache=cache() / "wheels", watch=terms)
        known.write_text(json.dumps(found))
        _freeze(ready)
    releases: dict[str, Digests] = json.loads(known.read_text())
    return releases


def _freeze(device: Device) -> None:
    script(device.scripts, f"freeze.sh {device.name}", _SETTINGS)
    (device.folder / "frozen").touch()
