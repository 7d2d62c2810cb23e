"""SSH settings of a host, resolved by OpenSSH if it is installed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgekit.errors import DeviceError, UserError
from edgekit.remote.ssh.config_parser import parse_config
from edgekit.remote.ssh.openssh_resolver import resolve_by_openssh
from edgekit.remote.ssh.tokens import Tokens, home_folder, login_name

CONFIG_VARIABLE = "EDGEKIT_SSH_CONFIG"
SYSTEM_CONFIG = Path("/etc/ssh/ssh_config")
GLOBAL_KNOWN_HOSTS = ("/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2")
USER_KNOWN_HOSTS = ("~/.ssh/known_hosts", "~/.ssh/known_hosts2")
IDENTITIES = ("~/.ssh/id_rsa", "~/.ssh/id_ecdsa", "~/.ssh/id_ed25519")
CONNECT_TIMEOUT_S = 20.0
LONGEST_TIMEOUT_S = 3600.0
UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}

Found = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True, kw_only=True)
class HostSpec:
    """A host as the user wrote it: alias or address, and login name and port if given."""

    name: str
    user: str | None
    port: int | None


@dataclass(frozen=True, kw_only=True)
class HostSettings:
    """Settings to reach a host; ``identity_agent`` is the path of the SSH agent's socket."""

    hostname: str
    port: int
    user: str
    identity_files: tuple[Path, ...]
    certificate_files: tuple[Path, ...]
    identities_only: bool
    identity_agent: str | None
    host_key_alias: str
    known_hosts: tuple[Path, ...]
    proxy_jump: tuple[str, ...]
    proxy_command: str | None
    connect_timeout_s: float


def parse_host(text: str) -> HostSpec:
    """Parse ``alias``, ``user@host``, ``user@host:port``, ``[v6]:port`` or ``ssh://...``.

    Raises:
        UserError: the text has none of these forms.
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


def read_settings(spec: HostSpec) -> HostSettings:
    """Read the SSH settings of a host from the user's configuration.

    Raises:
        UserError: the file that ``EDGEKIT_SSH_CONFIG`` names does not exist.
        DeviceError: a configuration file cannot be read or understood.
    """
    chosen = os.environ.get(CONFIG_VARIABLE)
    if chosen and not Path(chosen).is_file():
        raise UserError(f"{CONFIG_VARIABLE}: no file {chosen}")
    found = resolve_by_openssh(spec.name, user=spec.user, port=spec.port, config=chosen)
    if found is None:
        files = _list_config_files(chosen)
        found = parse_config(spec.name, user=spec.user, port=spec.port, files=files)
    try:
        return _build_settings(spec, found)
    except ValueError as error:
        raise DeviceError(f"{spec.name}: the SSH configuration is wrong: {error}") from error


def _list_config_files(chosen: str | None) -> list[tuple[Path, Path]]:
    user = home_folder() / ".ssh"
    if chosen:
        return [(Path(chosen), user)]
    files = [(user / "config", user), (SYSTEM_CONFIG, SYSTEM_CONFIG.parent)]
    return [(file, base) for file, base in files if file.is_file()]


def _build_settings(spec: HostSpec, found: Found) -> HostSettings:
    hostname = _get_first(found, "hostname", spec.name)
    alias = _get_first(found, "hostkeyalias", "")
    jump = _get_first(found, "proxyjump", "none")
    command = _get_first(found, "proxycommand", "none")
    tokens = Tokens(
        hostname=hostname,
        name=spec.name,
        port=str(_parse_port(_get_first(found, "port", "22"))),
        user=_get_first(found, "user", login_name()),
        host_key_alias=alias,
        proxy_jump="" if jump.lower() == "none" else jump,
    )
    known = (
        *found.get("userknownhostsfile", USER_KNOWN_HOSTS),
        *found.get("globalknownhostsfile", GLOBAL_KNOWN_HOSTS),
    )
    return HostSettings(
        hostname=hostname,
        port=int(tokens.port),
        user=tokens.user,
        identity_files=_expand_paths(found.get("identityfile", IDENTITIES), tokens),
        certificate_files=_expand_paths(found.get("certificatefile", ()), tokens),
        identities_only=_get_first(found, "identitiesonly", "no").lower() in ("yes", "true"),
        identity_agent=_find_agent_socket(
            _get_first(found, "identityagent", "SSH_AUTH_SOCK"), tokens
        ),
        host_key_alias=alias,
        known_hosts=_expand_paths(known, tokens),
        proxy_jump=tuple(j.strip() for j in tokens.proxy_jump.split(",") if j.strip()),
        proxy_command=None if command.lower() == "none" else tokens.expand(command),
        connect_timeout_s=_parse_timeout_s(_get_first(found, "connecttimeout", "none")),
    )


def _get_first(found: Found, key: str, default: str) -> str:
    return found.get(key, (default,))[0]


def _expand_paths(names: tuple[str, ...], tokens: Tokens) -> tuple[Path, ...]:
    return tuple(tokens.path(name) for name in names if name.lower() != "none")


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text[:9]) < 65536):
        raise ValueError(f"port is not a number from 1 to 65535: {text!r}")
    return int(text)


def _parse_timeout_s(text: str) -> float:
    """Parse a time in OpenSSH's notation (90, 10s, 1m30s, none) into seconds, at most an hour."""
    if text.lower() == "none":
        return CONNECT_TIMEOUT_S
    parts = re.findall(r"(\d{1,9})([smhdw]?)", text.lower())
    if not parts or "".join(map("".join, parts)) != text.lower():
        raise ValueError(f"connecttimeout is not a time: {text!r}")
    seconds = sum(int(number) * UNITS_S[unit] for number, unit in parts)
    return min(float(seconds), LONGEST_TIMEOUT_S) or CONNECT_TIMEOUT_S


def _find_agent_socket(value: str, tokens: Tokens) -> str | None:
    if value.lower() == "none":
        return None
    if value == "SSH_AUTH_SOCK":
        return os.environ.get("SSH_AUTH_SOCK") or None
    if value.startswith("$"):
        return os.environ.get(value[1:].strip("{}")) or None
    return str(tokens.path(value))
