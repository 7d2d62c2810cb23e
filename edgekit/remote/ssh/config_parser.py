"""Parser of OpenSSH's client configuration, used only where the ``ssh`` program is not installed.

Where it is installed, ``openssh_resolver`` asks ``ssh -G`` instead.
"""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from edgekit.errors import DeviceError, reason
from edgekit.remote.ssh.tokens import Tokens, expand_home, login_name

DEEPEST_INCLUDE = 16
EXEC_TIMEOUT_S = 60.0
SINGLE = ("hostname", "port", "user", "identitiesonly", "identityagent", "hostkeyalias",
          "connecttimeout", "tag")  # fmt: skip
# Every line adds a value to these; for all other keywords the first value counts.
REPEATED = ("identityfile", "certificatefile")
FILE_LISTS = ("userknownhostsfile", "globalknownhostsfile")
# Their value is the rest of the line, comments included; only the first of the two counts.
PROXIES = ("proxyjump", "proxycommand")
KEYWORDS = (*SINGLE, *REPEATED, *FILE_LISTS, *PROXIES)
ALONE = ("all", "canonical", "final")
WITH_VALUE = ("host", "originalhost", "user", "localuser", "tagged", "exec", "sessiontype")


@dataclass(kw_only=True)
class _HostState:
    """Settings of one host collected so far, and the state of ``Match final``."""

    name: str
    found: dict[str, tuple[str, ...]] = field(default_factory=dict)
    final: bool = False
    wants_final: bool = False


def parse_config(
    name: str, *, user: str | None, port: int | None, files: Sequence[tuple[Path, Path]]
) -> Mapping[str, tuple[str, ...]]:
    """Return the values of each keyword for a host, by OpenSSH's rules (ssh_config(5)).

    Args:
        name: the host as the user named it.
        user: the login name that the user gave, if any.
        port: the port that the user gave, if any.
        files: configuration files, each with the folder of its relative Include patterns.

    Raises:
        DeviceError: a file cannot be read or understood.
    """
    reader = _HostState(name=name)
    if user:
        reader.found["user"] = (user,)
    if port:
        reader.found["port"] = (str(port),)
    for file, base in files:
        _read_file(reader, file, base, depth=0)
    if reader.wants_final:
        reader.final = True
        for file, base in files:
            _read_file(reader, file, base, depth=0)
    if "hostname" in reader.found:
        reader.found["hostname"] = (_get_hostname(reader),)
    return reader.found


def _read_file(reader: _HostState, file: Path, base: Path, *, depth: int) -> None:
    if depth > DEEPEST_INCLUDE:
        raise DeviceError(f"{file}: Include goes deeper than {DEEPEST_INCLUDE} files")
    try:
        lines = file.read_text(encoding="utf-8", errors="surrogateescape").split("\n")
    except OSError as error:
        raise DeviceError(f"{file}: cannot read: {reason(error)}") from error
    active = True
    for number, line in enumerate(lines, 1):
        text = line.strip()
        if not text or text.startswith("#"):
            continue
        try:
            active = _apply_line(reader, text, base, active=active, depth=depth)
        except ValueError as error:
            raise DeviceError(f"{file}:{number}: invalid SSH configuration: {error}") from error


def _apply_line(reader: _HostState, text: str, base: Path, *, active: bool, depth: int) -> bool:
    """Apply one line; return whether the following lines apply to the host."""
    match = re.fullmatch(r'"?(\w+)"?(?:\s*=\s*|\s+|$)(.*)', text, re.DOTALL)
    if match is None:
        raise ValueError(f"no keyword in {text[:40]!r}")
    key, rest = match.group(1).lower(), match.group(2)
    if key == "host":
        return _host_applies(reader.name, _split_words(rest))
    if key == "match":
        return _match_applies(reader, _split_words(rest, separators=" \t="))
    if key == "include":
        for file in _find_included(_split_words(rest), base) if active else ():
            _read_file(reader, file, base, depth=depth + 1)
    elif key in KEYWORDS:
        values = (rest,) if key in PROXIES else tuple(_split_words(rest))
        if not values or not values[0]:
            raise ValueError(f"{key} without a value")
        if active:
            _store_values(reader.found, key, values)
    return active


def _store_values(found: dict[str, tuple[str, ...]], key: str, values: tuple[str, ...]) -> None:
    if key in REPEATED:
        found[key] = tuple(dict.fromkeys((*found.get(key, ()), values[0])))
    elif key in PROXIES and _has_proxy(found, key):
        return
    elif key not in found:
        found[key] = values if key in FILE_LISTS else values[:1]


def _has_proxy(found: Mapping[str, tuple[str, ...]], key: str) -> bool:
    # "ProxyJump none" does not exclude a ProxyCommand, but any ProxyCommand excludes ProxyJump.
    jump = found.get("proxyjump", ("none",))[0].lower()
    return key in found or jump != "none" or (key == "proxyjump" and "proxycommand" in found)


def _split_words(text: str, *, separators: str = " \t") -> list[str]:
    """Split a line into words, up to a comment; both kinds of quotes group words."""
    words: list[str] = []
    rest = text.strip()
    while rest and not rest.startswith("#"):
        word, rest = _split_word(rest, separators)
        words.append(word)
    return words


def _split_word(text: str, separators: str) -> tuple[str, str]:
    word, quote, at = "", "", 0
    while at < len(text):
        char, after = text[at], text[at + 1 : at + 2]
        if char == "\\" and after and after in ("\"'\\" if quote else "\"'\\ "):
            word += after
            at += 1
        elif char == quote:
            quote = ""
        elif not quote and char in "\"'":
            quote = char
        elif not quote and char in separators:
            break
        else:
            word += char
        at += 1
    if quote:
        raise ValueError("a quote is not closed")
    return word, re.sub(r"^[ \t]*(=[ \t]*)?" if "=" in separators else r"^[ \t]*", "", text[at:])


def _find_included(patterns: Sequence[str], base: Path) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        full = str(base / expand_home(pattern))
        found += [Path(p) for p in sorted(glob.glob(full)) if Path(p).is_file()]  # noqa: PTH207
    return found


def _host_applies(name: str, patterns: Sequence[str]) -> bool:
    if any(p.startswith("!") and _matches(p[1:], name) for p in patterns):
        return False
    return any(_matches(p, name) for p in patterns if not p.startswith("!"))


def _matches(pattern: str, text: str) -> bool:
    wild = {"*": ".*", "?": "."}
    parts = "".join(wild.get(c, re.escape(c)) for c in pattern.lower())
    return re.fullmatch(parts, text.lower(), re.DOTALL) is not None


def _match_applies(reader: _HostState, words: Sequence[str]) -> bool:
    """Return whether every criterion of a Match line is met; stop at the first that is not."""
    if not words:
        raise ValueError("Match without a criterion")
    met, rest = True, list(words)
    while rest:
        word = rest.pop(0).lower()
        negated, criterion = word.startswith("!"), word.removeprefix("!")
        if criterion in ALONE:
            reader.wants_final |= criterion == "final"
            holds = criterion == "all" or (criterion == "final" and reader.final)
        else:
            if not rest:
                raise ValueError(f"Match {criterion} without a value")
            value = rest.pop(0)
            holds = met and _criterion_holds(reader, criterion, value)
        met = met and holds != negated
    return met


def _criterion_holds(reader: _HostState, criterion: str, value: str) -> bool:
    if criterion not in WITH_VALUE:
        raise ValueError(
            f"Match {criterion} is not supported without OpenSSH; install ssh, or name a file "
            "without it in EDGEKIT_SSH_CONFIG"
        )
    if criterion == "exec":
        return _exec_holds(reader, value)
    given = {
        "host": _get_hostname(reader),
        "originalhost": reader.name,
        "user": _get_user(reader),
        "localuser": login_name(),
        "tagged": reader.found.get("tag", ("",))[0],
        "sessiontype": "exec",
    }[criterion]
    return _host_applies(given, value.split(","))


def _exec_holds(reader: _HostState, command: str) -> bool:
    tokens = Tokens(
        hostname=_get_hostname(reader),
        name=reader.name,
        port=reader.found.get("port", ("22",))[0],
        user=_get_user(reader),
        host_key_alias=reader.found.get("hostkeyalias", ("",))[0],
    )
    shell = os.environ.get("SHELL") or "/bin/sh"
    try:
        done = subprocess.run(
            [shell, "-c", tokens.expand(command)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            timeout=EXEC_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise ValueError(f"Match exec did not end within {EXEC_TIMEOUT_S:g} s") from error
    except OSError as error:
        raise ValueError(f"Match exec cannot run {shell}: {reason(error)}") from error
    return done.returncode == 0


def _get_hostname(reader: _HostState) -> str:
    given = reader.found.get("hostname", (reader.name,))[0]
    return re.sub(r"%([%h])", lambda m: "%" if m.group(1) == "%" else reader.name, given)


def _get_user(reader: _HostState) -> str:
    return reader.found.get("user", (login_name(),))[0]
