"""Cut the power of an emulated device while an app is installed, and check what is left.

    python -m benchmarks.apps.power_cuts BUNDLE [--random N] [--seed N]

BUNDLE is a build for arm64 whose only input is a row or an image, such as
``edgekit build -C examples/digits --device tablet --runtime litert`` writes. ``EDGEKIT_DEVICES``
names the folder of scripts that boot the device. The power is cut at file operations of a first
installation and of upgrades, which change one page, and then at random times. After each boot the
app must be not there (in the first installation), the old version or the new one; its ``check``
must succeed and its answer be that of the host. The exit code is 1 if there is a fault.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import select
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.deliveries.device import Device
from edgekit_agent import Session

NAME = "power-eye"
OLD, NEW = "1.0.0", "1.0.1"
HERE = Path(__file__).resolve().parent
# The hook stops at files below a folder of this name only.
PREFIX = "/home/device/edgekit"
_RELEASE = r".*/releases/[0-9a-f]{16}"
_MOST_S = 1500.0
_NEAR = 0.01


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Moment of a power cut: a file operation of the installer, or a time after its start."""

    version: str
    operation: str = ""
    place: str = ""
    before: bool = False
    seconds: float = 0.0

    def __str__(self) -> str:
        if not self.operation:
            return f"{self.seconds:.0f} s after the start"
        return f"{'before' if self.before else 'after'} {self.operation} of {self.place}"


def _list_cuts(version: str) -> list[Cut]:
    """Return the moments in the order of the steps: release, link, command."""
    return [
        Cut(version=version, operation="rename", place=_RELEASE, before=True),
        Cut(version=version, operation="rename", place=_RELEASE),
        Cut(version=version, operation="replace", place=r".*/current", before=True),
        Cut(version=version, operation="replace", place=r".*/current"),
    ]


FIRST_CUTS = (
    Cut(version=OLD, operation="rename", place=r".*/runtimes/[^/.][^/]*"),
    *_list_cuts(OLD),
    Cut(version=OLD, operation="replace", place=rf"{PREFIX}/bin/{NAME}"),
)
UPGRADE_CUTS = tuple(_list_cuts(NEW))


class Trial:
    """An app on a device, and what it has to answer."""

    def __init__(self, device: Device, body: str, expected: dict[str, Any]) -> None:
        self.device, self.body, self.expected = device, body, expected
        self.faults = 0

    def install(self, version: str) -> float:
        """Install a version to the end; return the seconds."""
        begin = time.monotonic()
        self.device.run(_make_command(version), most_s=_MOST_S)
        self._show("installed", {version}, time.monotonic() - begin)
        return time.monotonic() - begin

    def cut(self, cut: Cut, allowed: set[str]) -> None:
        """Start an installation, cut the power, boot, and check the app."""
        begin = time.monotonic()
        was_cut = self._cut_at_operation(cut) if cut.operation else self._cut_after(cut)
        self.device.boot()
        text = f"{cut.version} cut {cut}" if was_cut else f"{cut.version} cut after its end"
        self._show(text, allowed if was_cut else {cut.version}, time.monotonic() - begin)

    def _cut_at_operation(self, cut: Cut) -> bool:
        self.device.aim(
            {
                "operation": cut.operation,
                "place": cut.place,
                "nth": 1,
                "before": cut.before,
                "by_watcher": False,
                "goes_on": False,
            }
        )
        listener = self.device.listen()
        with self.device.start(_make_command(cut.version)) as process:
            until = time.monotonic() + _MOST_S
            was_there = False
            while not was_there and process.poll() is None and time.monotonic() < until:
                assert listener.stdout is not None
                was_there = bool(select.select([listener.stdout], [], [], 0.05)[0])
            self.device.cut_power()
        listener.kill()
        listener.wait()
        return was_there

    def _cut_after(self, cut: Cut) -> bool:
        with self.device.start(_make_command(cut.version)) as process:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(cut.seconds)
            is_running = process.poll() is None
            self.device.cut_power()
        return is_running

    def _show(self, what: str, allowed: set[str], seconds: float) -> None:
        state = self._ask()
        faults = find_faults(state, allowed, self.expected)
        self.faults += bool(faults)
        left = state["version"] or "nothing"
        print(f"{what}: {left} ({seconds:.0f} s)", flush=True)
        for fault in faults:
            print(f"  FAULT {fault}", flush=True)

    def _ask(self) -> dict[str, Any]:
        script = (HERE / "ask_app.py").read_text(encoding="utf-8")
        self.device.run("cat >/tmp/ask_app.py", given=script)
        command = f"python3 -I /tmp/ask_app.py {PREFIX}/bin/{NAME}"
        state: dict[str, Any] = json.loads(
            self.device.run(command, given=self.body, most_s=_MOST_S)
        )
        return state


def find_faults(state: dict[str, Any], allowed: set[str], expected: dict[str, Any]) -> list[str]:
    """Return what is wrong with an app: its version, its own check, or its answer."""
    faults = []
    if state["version"] not in allowed:
        faults.append(f"it is {state['version'] or 'not there'}: {state['said']}")
    if not state["version"]:
        return faults
    if state["check"]:
        faults.append(f"check ends with {state['check']}: {state['said']}")
    answer = state["answer"]
    is_near = answer.get("result") == expected["result"] and np.isclose(
        answer["confidence"] or 0, expected["confidence"] or 0, atol=_NEAR
    )
    if not is_near:
        faults.append(f"it answers {answer}")
    return faults


def main() -> None:
    """Run the cuts, and print what each has left."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--random", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    scripts = Path(os.environ.get("EDGEKIT_DEVICES", ""))
    if not (scripts / "boot.sh").is_file():
        sys.exit("EDGEKIT_DEVICES names no folder with boot.sh")
    with tempfile.TemporaryDirectory(prefix="edgekit-") as name:
        files = write_packages(options.bundle.resolve(), Path(name))
        body, expected = ask_host(options.bundle, options.seed)
        device = Device(scripts, f"edgekit-cut-{os.getpid()}")
        try:
            device.boot()
            device.install_hook()
            for version, file in files.items():
                device.send(file, f"{version}.run")
            device.run("sync", as_root=True)
            faults = run_cuts(Trial(device, body, expected), options.random, options.seed)
        finally:
            device.remove()
    print(f"{faults} faults")
    sys.exit(1 if faults else 0)


def run_cuts(trial: Trial, count: int, seed: int) -> int:
    """Cut the power at the listed operations and then at random times; return how many failed."""
    for number, cut in enumerate(FIRST_CUTS):
        is_last = number == len(FIRST_CUTS) - 1
        trial.cut(cut, {OLD} if is_last else {""})
    trial.install(OLD)
    for cut in UPGRADE_CUTS:
        is_switched = cut.place.endswith("current") and not cut.before
        trial.cut(cut, {NEW} if is_switched else {OLD})
    trial.install(NEW)
    chance, seconds, versions = random.Random(seed), trial.install(OLD), [OLD, NEW]
    for _ in range(count):
        now = chance.uniform(0.0, 1.1) * seconds
        trial.cut(Cut(version=NEW, seconds=now), set(versions))
        trial.install(OLD)
    return trial.faults


def write_packages(bundle: Path, folder: Path) -> dict[str, Path]:
    """Package the model twice; the page of the second one differs in one line."""
    app = folder / NAME
    _run_edgekit("app", "new", str(app), str(bundle), "--template", "form")
    settings = app / "app.toml"
    text = settings.read_text(encoding="utf-8")
    files = {}
    for version in (OLD, NEW):
        changed = re.sub(r"^version = .*$", f'version = "{version}"', text, flags=re.M)
        changed = re.sub(r"^notice = .*$", f'notice = "{version}"', changed, flags=re.M)
        settings.write_text(changed, encoding="utf-8")
        files[version] = folder / f"{version}.run"
        _run_edgekit("package", "--app", str(app), "-o", str(files[version]))
    return files


def ask_host(bundle: Path, seed: int) -> tuple[str, dict[str, Any]]:
    """Return a random row, and what a session on this machine answers."""
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    rng = np.random.default_rng(seed)
    row = {
        each["name"]: rng.uniform(0.0, 1.0, [abs(size or 1) for size in each["shape"]][1:]).tolist()
        for each in manifest["inputs"]
    }
    body = json.dumps(row)
    session = Session(str(bundle))
    try:
        return body, session.predict_bytes(body.encode(), "application/json")
    finally:
        session.close()


def _run_edgekit(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "edgekit", *arguments], check=True, capture_output=True)


def _make_command(version: str) -> str:
    return f"sh {version}.run --prefix {PREFIX} --no-start 2>/dev/null"


if __name__ == "__main__":
    main()
