"""Shell commands that start the agent on a device."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

from edgekit.remote.agent_file import pack_agent, read_script, shorten_script
from edgekit.remote.home import Home

OLDEST_PYTHON = (3, 9)

_FAST_START = "{own}{python} -Ic {fast_start} {home} {digest};exit $?"
_LAUNCH = """\
for p in {pythons}; do
  if "$p" -I -S -c 'import sys; sys.exit(sys.version_info < {oldest})' 2>/dev/null; then
    {own}"$p" -I -c {bootstrap} {home} {rule} {digest} {size}
    exit $?
  fi
done
echo '{{"edgekit": {{"python": false}}}}'
"""


def make_fast_start(python: str, home: Home) -> str:
    """Return the command that starts an agent that the device holds already."""
    return _FAST_START.format(
        python=shlex.quote(python),
        fast_start=shlex.quote(shorten_script(read_script("fast_start.py"))),
        home=shlex.quote(home.path),
        own=_make_home_prefix(home),
        digest=pack_agent().digest,
    )


def make_launch(pythons: Sequence[str], home: Home) -> str:
    """Return the command that finds Python on the device, receives the agent and starts it."""
    agent = pack_agent()
    return _LAUNCH.format(
        pythons=" ".join(map(shlex.quote, pythons)),
        oldest=OLDEST_PYTHON,
        bootstrap=shlex.quote(read_script("bootstrap.py")),
        home=shlex.quote(home.path),
        rule=home.rule,
        own=_make_home_prefix(home),
        digest=agent.digest,
        size=len(agent.data),
    )


def _make_home_prefix(home: Home) -> str:
    """Return the shell prefix that makes ``--home`` override ``EDGEKIT_HOME`` on the device."""
    return f"env EDGEKIT_HOME={shlex.quote(home.path)} " if home.rule == "said" else ""
