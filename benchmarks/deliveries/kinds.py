"""Ways to interrupt a push, by name."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from benchmarks.deliveries.cuts import (
    LATER_S,
    comes_back,
    cut_again,
    cut_at_stage,
    cut_downwards,
    cut_upwards,
    fall_silent,
    lose_answer,
    lose_confirmation,
    moment,
)
from benchmarks.deliveries.links import (
    STAGES,
    act_at_stage,
    find_agents_at_work,
    find_watchers,
    find_workers,
    kill_all,
)
from benchmarks.deliveries.push import Breaker, Case
from benchmarks.deliveries.site import BARE_PATH

# System calls of an agent that change names or sync them.
# How many of each there are in a push; some of them may have another name on this machine.
_CALLS = {
    "rename,renameat,renameat2": 9,
    "symlink,symlinkat": 3,
    "link,linkat": 3,
    "unlink": 6,
    "unlinkat": 4,
    "mkdir,mkdirat": 10,
    "fsync": 22,
    "ftruncate": 3,
    "fchmodat": 10,
}
_FILL_S = 0.3


@contextlib.contextmanager
def kill_agent(case: Case) -> Iterator[None]:
    """Kill the agent at a stage; sometimes also the process that waits for the confirmation."""
    stage, later_s = moment(case, STAGES)
    path, with_watcher = case.home.path, case.rng.random() < 0.3

    def kill() -> None:
        watchers = find_watchers(path) if with_watcher else []
        if watchers:
            case.can_go_back = False
        kill_all([*find_agents_at_work(path), *watchers])

    with act_at_stage(lambda: case.home.reached(stage), kill, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"at {stage} + {later_s} s")


@contextlib.contextmanager
def kill_at_call(case: Case) -> Iterator[None]:
    """Kill the agent at one of its system calls, by ``strace``."""
    calls = case.rng.choice([name for name, count in _CALLS.items() for _ in range(count)])
    number = case.rng.randint(1, _CALLS[calls])
    log, shell = case.site.folder / "calls", case.site.folder / "traced"
    log.unlink(missing_ok=True)
    shell.write_text(
        f"#!/bin/sh\nexec strace -f -qq -A -o {log} -e trace={calls} "
        f'-e inject={calls}:signal=SIGKILL:when={number} /bin/sh "$@"\n'
    )
    shell.chmod(0o755)
    device = case.site.devices["dev"]
    device.environment(f"LOGIN_SHELL={shell}\n")
    yield
    device.environment("")
    lines = log.read_text(errors="replace").splitlines() if log.exists() else []
    killed = [line for line in lines if "killed by SIGKILL" in line]
    if killed:
        pid = killed[0].split()[0]
        last = [line for line in lines if line.split()[0] == pid and "(" in line]
        case.happens(f"call {number}: {last[-1][:150] if last else ''}")
        # The watcher is traced and killed as well.
        case.can_go_back = False


@contextlib.contextmanager
def kill_worker(case: Case) -> Iterator[None]:
    """Kill the process in which the agent checks the health of the release."""
    path, later_s = case.home.path, case.rng.choice(LATER_S)
    with act_at_stage(
        lambda: case.home.reached("laid") and bool(find_workers(path)),
        lambda: kill_all(find_workers(path)),
        later_s=later_s,
    ) as acted:
        yield
    if acted.is_set():
        case.happens(f"the health check + {later_s} s")


@contextlib.contextmanager
def kill_host(case: Case) -> Iterator[None]:
    """Kill the command itself."""
    stage, later_s = moment(case, STAGES)

    def kill() -> None:
        if case.process is not None:
            case.process.kill()

    with act_at_stage(lambda: case.home.reached(stage), kill, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"at {stage} + {later_s} s")


@contextlib.contextmanager
def fill_disk(case: Case) -> Iterator[None]:
    """Leave little or no space on the device's disk, from the start or from a stage on."""
    with _mount_small_disk(case.home.path) as filler:
        stage = case.rng.choice(("start", "start", *STAGES[1:]))
        files = sum(file.bytes for file in case.bundle.manifest.files)
        left = int(case.rng.uniform(0, 1.2) * files) if stage == "start" else 0
        if stage == "start":
            _fill(filler, left)
            case.happens(f"{left} bytes left")
            yield
        else:
            reached = lambda: case.home.reached(stage)  # noqa: E731
            with act_at_stage(reached, lambda: _fill(filler, 0)) as acted:
                yield
            if acted.is_set():
                case.happens(f"full at {stage}")
        filler.unlink(missing_ok=True)


@contextlib.contextmanager
def fill_disk_unconfirmed(case: Case) -> Iterator[None]:
    """Fill the disk and cut the link for good when the release is live; it has to go back."""
    case.watch_s, case.can_be_unknown = 3.0, True
    link = case.link(comes_back=False)
    with _mount_small_disk(case.home.path) as filler:

        def fill_and_cut() -> None:
            _fill(filler, 0)
            link.break_now()

        with act_at_stage(lambda: case.home.reached("switched"), fill_and_cut) as acted:
            yield
        if acted.is_set():
            case.happens("full when switched, and no link")
            time.sleep(2 * case.watch_s)
        filler.unlink(missing_ok=True)
    link.stop()


@contextlib.contextmanager
def damage_received(case: Case) -> Iterator[None]:
    """Cut the link, damage the received data on the device, and push again."""
    at = int(case.total() * case.rng.uniform(0.3, 1.0))
    link = case.link(cut_after=at)
    case.site.start(case.bundle, "dev", watch_s=0.0).wait()
    link.stop()
    case.site.connect({})
    case.site.settle("dev", 0.0)
    case.before = case.site.seen("dev")
    parts = [*(case.home.path / "parts").iterdir(), *_fresh_objects(case)]
    for path in parts:
        data = bytearray(path.read_bytes())
        if not data:
            continue
        match case.rng.randrange(3):
            case 0:
                data[case.rng.randrange(len(data))] ^= 0x55
            case 1:
                data[len(data) // 2 :] = bytes(len(data) - len(data) // 2)
            case _:
                data += b"more"
        path.write_bytes(data)
        case.happens(f"damaged {path.parent.name}/{path.name[:12]}")
    yield


def _fresh_objects(case: Case) -> list[Path]:
    """Return received files that no release links to."""
    return [path for path in (case.home.path / "objects").iterdir() if path.stat().st_nlink == 1]


@contextlib.contextmanager
def push_unhealthy(case: Case) -> Iterator[None]:
    """Push a bundle whose model computes wrong outputs."""
    case.happens("unhealthy")
    yield


@contextlib.contextmanager
def resume_often(case: Case) -> Iterator[None]:
    """Cut the same push several times, each time a little later."""
    parts = case.rng.randint(2, 4)
    for number in range(parts):
        link = case.link(cut_after=int(case.total() * (number + case.rng.random()) / parts))
        ended = case.site.start(case.bundle, "dev", watch_s=0.0).wait()
        link.stop()
        if link.broken:
            case.happens(f"cut up to {parts} times before")
        case.site.settle("dev", 0.0)
        if ended.code == 0:
            break
    case.before = case.site.seen("dev")
    link = case.link(cut_after=int(case.total() * case.rng.random()))
    yield
    link.stop()


@contextlib.contextmanager
def push_to_two_devices(case: Case) -> Iterator[None]:
    """Push to two devices with one command, and break the link to one of them."""
    case.hosts = case.rng.choice((("dev", "dev2"), ("dev2", "dev")))
    template = "signed" if case.bundle.signature else case.rng.choice(("empty", "one", "two"))
    case.site.reset("dev2", template)
    with case.rng.choice((cut_upwards, cut_downwards, cut_at_stage, kill_agent))(case):
        yield


@contextlib.contextmanager
def push_two_at_once(case: Case) -> Iterator[None]:
    """Push two bundles to one device at the same time, sometimes over a link that is cut."""
    case.others.append(case.site.bundle(case.rng, signed=case.bundle.signature is not None))
    case.happens("two at once")
    if case.rng.random() < 0.5:
        with cut_at_stage(case):
            yield
    else:
        yield


@contextlib.contextmanager
def break_runtime_push(case: Case) -> Iterator[None]:
    """Break a push that sends a runtime, or uses one that was sent earlier."""
    device = case.site.devices["dev"]
    device.environment(BARE_PATH)
    breakers = (cut_at_stage, kill_agent, kill_host)
    if any((case.home.path / "runtimes").glob("*")) or case.rng.random() < 0.3:
        with case.rng.choice(breakers)(case):
            yield
        return
    later_s = case.rng.uniform(0.0, 6.0)
    act: Callable[[], None]
    how = case.rng.choice(("link", "agent", "host"))
    link = case.link(comes_back=comes_back(case)) if how == "link" else None
    match how:
        case "agent":
            act = lambda: kill_all(find_agents_at_work(case.home.path))  # noqa: E731
        case "host":
            act = lambda: case.process.kill() if case.process else None  # noqa: E731
        case _:
            assert link is not None
            act = link.break_now
    with act_at_stage(lambda: case.home.reached("receiving"), act, later_s=later_s) as acted:
        yield
    if acted.is_set():
        case.happens(f"{how}, {later_s:.1f} s after the first bytes of the runtime")
    if link is not None:
        link.stop()


KINDS: dict[str, Breaker] = {
    "cut upwards": cut_upwards,
    "cut downwards": cut_downwards,
    "cut at a stage": cut_at_stage,
    "answer lost": lose_answer,
    "confirmation lost": lose_confirmation,
    "cut twice": cut_again,
    "silent link": fall_silent,
    "agent killed": kill_agent,
    "killed at a call": kill_at_call,
    "health check killed": kill_worker,
    "host killed": kill_host,
    "full disk": fill_disk,
    "full disk, unconfirmed": fill_disk_unconfirmed,
    "damaged": damage_received,
    "unhealthy": push_unhealthy,
    "resumed": resume_often,
    "two devices": push_to_two_devices,
    "two commands": push_two_at_once,
    "runtime": break_runtime_push,
}


@contextlib.contextmanager
def _mount_small_disk(home: Path) -> Iterator[Path]:
    """Put a home on a separate disk; yield the path of a file that fills it."""
    if os.getuid() != 0:
        raise PermissionError("only root can mount a small disk: leave out the kind 'full disk'")
    place, kept = home.parent, home.parent.with_name("kept")
    place.mkdir(parents=True, exist_ok=True)
    shutil.copytree(place, kept, symlinks=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(place)], check=True)
    try:
        shutil.copytree(kept, place, symlinks=True, dirs_exist_ok=True)
        yield place / "filler"
        # The home moves back as it is then.
        shutil.rmtree(kept)
        time.sleep(_FILL_S)
        shutil.copytree(place, kept, symlinks=True)
    finally:
        while subprocess.run(
            ["umount", str(place)], capture_output=True, check=False
        ).returncode and find_watchers(home):
            time.sleep(0.2)
        shutil.rmtree(place)
        kept.rename(place)


def _fill(filler: Path, left: int) -> None:
    free = os.statvfs(filler.parent)
    size = max(0, free.f_bavail * free.f_frsize - left)
    with contextlib.suppress(OSError), filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, size)
