"""What ``ssh`` would know of a host: its configuration files, with every Include followed."""

from __future__ import annotations

import getpass
import glob
import os
import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.errors import DeviceError, UserError

CONFIG_VARIABLE = "EDGEKIT_SSH_CONFIG"
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
GLOBAL_KNOWN_HOSTS = "/etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2"
USER_KNOWN_HOSTS = "~/.ssh/known_hosts ~/.ssh/known_hosts2"
IDENTITIES = ("~/.ssh/id_ed25519", "~/.ssh/id_ecdsa", "~/.ssh/id_rsa")
CONNECT_TIMEOUT_S = 20.0
DEEPEST_INCLUDE = 16
CRITERIA_ALONE = ("all", "canonical", "final")
CRITERIA = (*CRITERIA_ALONE, "host", "originalhost", "user", "localuser")
_MARK = "edgekitblockapplies"

# Looks a host up in configuration text; the one thing this file leaves to the SSH library.
Lookup = Callable[[str, str], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host as the user wrote it: an alias or address, and what was said beside it."""

    name: str
    user: str | None
    port: int | None


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Everything needed to reach a host. ``identity_agent`` is the agent's socket."""

    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None
    host_key_alias: str
    known_hosts: tuple[Path, ...]
    proxy_jump: tuple[str, ...]
    proxy_command: str | None
    connect_timeout_s: float


def parse_host(text: str) -> HostSpec:
    """Read ``alias``, ``user@host``, ``user@host:port``, ``[v6]:port`` or ``ssh://...``.

    Raises:
        UserError: none of these.
    """
    user, _, place = text.removeprefix("ssh://").rstrip("/").rpartition("@")
    bracketed = re.fullmatch(r"\[([^\]]+)\](?::(\d+))?", place)
    # More than one colon without brackets is an IPv6 address, not a port.
    plain = re.fullmatch(
        r"([^:\s\[\]]+)(?::(\d+))?|([0-9A-Fa-f:.%\w]*:[^\s\[\]]*:[^\s\[\]]*)", place
    )
    match = bracketed or plain
    name = next((g for i, g in enumerate(match.groups()) if g and i != 1), "") if match else ""
    port = int(match.group(2)) if match and match.group(2) else None
    if not name or name.startswith("-") or (port is not None and not 0 < port < 65536):
        raise UserError(
            f"{text!r} does not name a host",
            hint="give 'local', a Host alias of ~/.ssh/config, or user@host:port",
        )
    return HostSpec(name=name, user=user or None, port=port)


def read_settings(spec: HostSpec, lookup: Lookup) -> HostSettings:
    """What the user's configuration says of a host.

    Raises:
        DeviceError: a configuration file cannot be read or understood.
    """
    given = [f"User {spec.user}"] if spec.user else []
    given += [f"Port {spec.port}"] if spec.port else []
    text = "\n".join([*given, "Host *", ""])
    for file, base in _config_files():
        text = expand_includes(file, base=base, text=text, applies=_applies(lookup, spec.name))
        text += "Host *\n"
    found = {k: v for k, v in lookup(text, spec.name).items() if v is not None}
    try:
        return _settings(spec, found)
    except ValueError as error:
        raise DeviceError(f"{spec.name}: the SSH configuration is wrong: {error}") from error


def _config_files() -> list[tuple[Path, Path]]:
    chosen = os.environ.get(CONFIG_VARIABLE)
    user = Path("~/.ssh").expanduser()
    if chosen:
        if not Path(chosen).is_file():
            raise UserError(f"{CONFIG_VARIABLE}: no file {chosen}")
        return [(Path(chosen), user)]
    files = [(user / "config", user), (SYSTEM_CONFIG, SYSTEM_CONFIG.parent)]
    return [(file, base) for file, base in files if file.is_file()]


def _applies(lookup: Lookup, name: str) -> Callable[[str], bool]:
    def applies(text: str) -> bool:
        return _MARK in lookup(f"{text}{_MARK} yes\n", name)

    return applies


def expand_includes(
    file: Path,
    *,
    base: Path,
    text: str,
    applies: Callable[[str], bool],
    header: str = "Host *",
    depth: int = 0,
) -> str:
    """``text`` with the lines of ``file`` added, and those of the files it includes.

    Args:
        base: the folder that relative Include patterns start from.
        text: the configuration so far.
        applies: whether the last block of a text is in force for the host that is looked up.
        header: the ``Host`` or ``Match`` line in force where the file begins.
    """
    if depth > DEEPEST_INCLUDE:
        raise DeviceError(f"{file}: Include goes deeper than {DEEPEST_INCLUDE} files")
    for line in _lines(file):
        key, value = _split(line)
        if key == "match":
            _check_match(file, value)
        if key in ("host", "match"):
            header = line
        if key != "include":
            text += line + "\n"
            continue
        # A block that is not in force takes its includes with it: their own Host lines must not
        # bring them back.
        if header == "Host *" or applies(text):
            for included in _included(value, base):
                text = expand_includes(
                    included, base=base, text=text, applies=applies, header=header, depth=depth + 1
                )
                text += header + "\n"
    return text


def _check_match(file: Path, value: str) -> None:
    # The library takes a criterion it does not know for one that is met.
    words = iter(value.lower().split())
    for word in words:
        criterion, given, _ = word.lstrip("!").partition("=")
        if criterion not in CRITERIA:
            raise DeviceError(
                f"{file}: cannot follow the configuration: Match {criterion} is not supported here",
                hint=f"name a file without it in {CONFIG_VARIABLE}",
            )
        if criterion not in CRITERIA_ALONE and not given:
            next(words, None)


def _lines(file: Path) -> list[str]:
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError as error:
        raise DeviceError(f"{file}: cannot read: {error.strerror}") from error
    return [s for line in lines if (s := line.strip()) and not s.startswith("#")]


def _split(line: str) -> tuple[str, str]:
    match = re.match(r"(\w+)(?:\s*=\s*|\s+)(.+)", line)
    return (match.group(1).lower(), match.group(2)) if match else (line.lower(), "")


def _included(value: str, base: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in shlex.split(value):
        full = base / Path(os.path.expandvars(pattern)).expanduser()
        found += [Path(p) for p in sorted(glob.glob(str(full))) if Path(p).is_file()]  # noqa: PTH207
    return found


def _settings(spec: HostSpec, found: Mapping[str, Any]) -> HostSettings:
    user = found.get("user") or getpass.getuser()
    hostname = found.get("hostname") or spec.name
    port = _number(found, "port", 22)
    tokens = {
        "%": "%", "d": str(Path.home()), "h": hostname, "k": found.get("hostkeyalias", hostname),
        "n": spec.name, "p": str(port), "r": user, "u": getpass.getuser(),
    }  # fmt: skip
    names = shlex.split(found.get("userknownhostsfile", USER_KNOWN_HOSTS))
    names += shlex.split(found.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS))
    jump = found.get("proxyjump", "none")
    command = found.get("proxycommand", "none")
    identities = found.get("identityfile", IDENTITIES)
    return HostSettings(
        hostname=hostname,
        port=port,
        user=user,
        identity_files=tuple(_path(p, tokens) for p in identities if p.lower() != "none"),
        identities_only=found.get("identitiesonly", "no").lower() in ("yes", "true"),
        identity_agent=_agent(found.get("identityagent", "SSH_AUTH_SOCK"), tokens),
        host_key_alias=found.get("hostkeyalias", ""),
        known_hosts=tuple(_path(n, tokens) for n in names if n.lower() != "none"),
        proxy_jump=() if jump.lower() == "none" else tuple(j.strip() for j in jump.split(",")),
        proxy_command=None if command.lower() == "none" else _expand(command, tokens),
        connect_timeout_s=float(_number(found, "connecttimeout", 0)) or CONNECT_TIMEOUT_S,
    )


def _number(found: Mapping[str, Any], key: str, default: int) -> int:
    text = str(found.get(key, default)).split()[0]
    if text.lower() == "none":
        return default
    if not text.isdecimal():
        raise ValueError(f"{key} is not a number: {text!r}")
    return int(text)


def _agent(value: str, tokens: Mapping[str, str]) -> str | None:
    if value.lower() == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}")) or None
    return str(_path(value, tokens))


def _path(text: str, tokens: Mapping[str, str]) -> Path:
    return Path(os.path.expandvars(_expand(text, tokens))).expanduser()


def _expand(text: str, tokens: Mapping[str, str]) -> str:
    return re.sub(r"%(.)", lambda m: tokens.get(m.group(1), m.group(0)), text)
