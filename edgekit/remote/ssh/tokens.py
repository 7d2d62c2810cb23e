"""Tokens (``%h``), variables (``${NAME}``) and ``~`` in values of an SSH configuration."""

from __future__ import annotations

import getpass
import hashlib
import os
import pwd
import re
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Values that replace the tokens of one host."""

    hostname: str
    name: str
    port: str
    user: str
    host_key_alias: str = ""
    proxy_jump: str = ""

    def expand(self, text: str) -> str:
        """Replace all tokens that OpenSSH knows; keep unknown ones."""
        return re.sub(r"%(.)", lambda m: self._value(m.group(1)) or m.group(0), text)

    def path(self, text: str) -> Path:
        """Expand tokens, ``${NAME}`` and ``~`` in a file name."""
        expanded = expand_home(self.expand(text))
        return Path(
            re.sub(r"\$\{(\w+)\}", lambda m: os.environ.get(m.group(1), m.group(0)), expanded)
        )

    def _value(self, letter: str) -> str:
        local = socket.gethostname()
        values = {
            "%": "%", "d": str(home_folder()), "h": self.hostname, "i": str(os.getuid()),
            "j": self.proxy_jump, "k": self.host_key_alias or self.name, "L": local.split(".")[0],
            "l": local, "n": self.name, "p": self.port, "r": self.user, "u": login_name(),
            "C": hashlib.sha1(
                f"{local}{self.hostname}{self.port}{self.user}{self.proxy_jump}".encode()
            ).hexdigest(),
        }  # fmt: skip
        return values.get(letter, "")


def home_folder() -> Path:
    """Return the user's home from the password database, as OpenSSH does, else ``$HOME``."""
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        return Path.home()


def login_name() -> str:
    """Return the local user name from the password database, else from the environment."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return getpass.getuser()


def expand_home(text: str) -> str:
    """Replace ``~`` or ``~user`` at the start of a file name."""
    if text == "~" or text.startswith("~/"):
        return str(home_folder()) + text[1:]
    return os.path.expanduser(text)  # noqa: PTH111 - a Path would drop a slash at the end
