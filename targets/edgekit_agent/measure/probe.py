"""Facts of a device: processor, memory, disk, C library and the runtimes that work on it."""

from __future__ import annotations

import glob
import importlib.machinery
import json
import os
import platform
import re
import shutil
import signal
import struct
import subprocess
import sys
from dataclasses import replace
from typing import Iterator, List, Optional, Tuple

from edgekit_agent.jobs import ProbeJob
from edgekit_agent.measure import cpu, memory
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.store import free_bytes, is_noexec
from edgekit_agent.results import DeviceFacts, RuntimeFacts
from edgekit_agent.runtimes import PACKAGES
from edgekit_agent.supervise import agent_command, agent_files

_TRIAL_TIMEOUT_S = 120.0


def probe(job: ProbeJob) -> DeviceFacts:
    """Collect the facts of this device; nothing on it is changed."""
    return replace(read_machine(job.home), runtimes=tuple(_iter_runtimes(job.sites)))


def read_machine(home: str) -> DeviceFacts:
    """Collect the facts of this device but those of its runtimes."""
    name, isa = cpu.read_name_and_isa()
    return DeviceFacts(
        machine=platform.machine(),
        system=platform.system(),
        kernel=platform.release(),
        libc=find_libc(),
        python=platform.python_version(),
        pointer_bits=struct.calcsize("P") * 8,
        cpu=name,
        cores=cpu.count_cores(),
        isa=isa,
        memory_bytes=memory.total_bytes(),
        free_memory_bytes=memory.available_bytes(),
        free_disk_bytes=free_bytes(open_home(home)),
        governor=cpu.read_governor(),
        temperature_c=cpu.read_temperature_c(),
        load_1min=os.getloadavg()[0],
        runtimes=(),
        home_is_noexec=is_noexec(open_home(home)),
    )


def find_libc() -> str:
    """Return the C library that this Python runs on, such as ``glibc 2.36``; empty if unknown."""
    try:
        text = os.confstr("CS_GNU_LIBC_VERSION") or ""
    except (ValueError, OSError):  # errors under musl
        text = ""
    if text.startswith("glibc "):
        return text
    loaders = [[path] for path in sorted(glob.glob("/lib/ld-musl-*.so.1"))]
    ldd = shutil.which("ldd")
    for command in ([[ldd, "--version"]] if ldd else []) + loaders:
        version = _parse_libc_version(_run_command(command))
        if version:
            return version
    return "musl" if loaders else ""


def _parse_libc_version(text: str) -> str:
    if "musl" in text:
        version = re.search(r"Version (\d+(?:\.\d+)+)", text)
        return f"musl {version.group(1)}" if version else "musl"
    version = re.search(r"(?:GLIBC|GNU libc|glibc)\D*?(\d+\.\d+)", text, re.IGNORECASE)
    return f"glibc {version.group(1)}" if version else ""


def _run_command(command: List[str]) -> str:
    """Return stdout and stderr of a command; musl's loader answers on stderr, with status 1."""
    try:
        completed = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=10,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return completed.stdout.decode(errors="replace")


def _iter_runtimes(sites: Tuple[str, ...]) -> Iterator[RuntimeFacts]:
    # A site may have been unpacked since this process last searched it.
    importlib.invalidate_caches()
    for site in (None, *sites):
        folders = sys.path if site is None else [os.path.expanduser(site)]
        for package in PACKAGES:
            if importlib.machinery.PathFinder.find_spec(package.module, folders) is not None:
                facts = _try_runtime(package.module, site)
                if facts is not None:
                    yield facts


def _try_runtime(module: str, site: Optional[str]) -> Optional[RuntimeFacts]:
    """Try one runtime package in a process of its own; ``None`` if it isn't installed.

    A runtime built for another cpu dies of an illegal instruction while it is imported, and
    tflite-runtime 2.14 imports beside numpy 2 but fails when an interpreter is constructed.
    """
    package = next(p for p in PACKAGES if p.module == module)
    arguments = ["trial", module] if site is None else ["trial", module, os.path.expanduser(site)]
    absent = RuntimeFacts(package.runtime, "", package.distribution, site, works=False)
    try:
        completed = subprocess.run(
            agent_command(arguments),
            stdin=subprocess.DEVNULL,
            pass_fds=agent_files(),
            capture_output=True,
            timeout=_TRIAL_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return _set_detail(absent, f"no answer within {_TRIAL_TIMEOUT_S:.0f} s")
    if completed.returncode < 0:
        name = signal.Signals(-completed.returncode).name
        return _set_detail(absent, f"crashed with {name} when it was tested")
    if completed.returncode != 0:
        words = completed.stderr.decode(errors="replace").strip().splitlines()
        return _set_detail(absent, words[-1] if words else f"status {completed.returncode}")
    answer = json.loads(completed.stdout)
    if not answer["found"]:
        return None
    return RuntimeFacts(
        name=package.runtime,
        version=answer["version"],
        package=package.distribution,
        site=site,
        works=answer["detail"] == "",
        detail=answer["detail"],
    )


def _set_detail(facts: RuntimeFacts, detail: str) -> RuntimeFacts:
    return RuntimeFacts(facts.name, facts.version, facts.package, facts.site, False, detail)
