"""edgekit rollback and edgekit status: the releases on devices."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from edgekit.cli.options import DeviceName, HomeFolder, Hosts, Json, find_home
from edgekit.cli.render.output import run_on_hosts
from edgekit.progress import Ticker

if TYPE_CHECKING:
    from edgekit.remote.home import Home
    from edgekit_agent.results import Status

_LOG_LINES = 50


def roll_back(
    hosts: Hosts, home: HomeFolder = None, device: DeviceName = None, as_json: Json = False
) -> int:
    """Return to the previous release, if it passes the health check."""
    from edgekit.cli.render import text as render_text
    from edgekit.remote.deploy import rollback

    return _ask_hosts(
        hosts, rollback, render_text.format_rollbacks, find_home(home, device), as_json=as_json
    )


def show_status(
    hosts: Hosts,
    home: HomeFolder = None,
    device: DeviceName = None,
    log: Annotated[
        bool, typer.Option("--log", help="Also show the audit log (last 50 lines).")
    ] = False,
    as_json: Json = False,
) -> int:
    """Show the current and the previous release of a device."""
    from edgekit.cli.render import text as render_text
    from edgekit.remote.deploy import status

    lines, where = _LOG_LINES if log else 0, find_home(home, device)
    return _ask_hosts(
        hosts,
        lambda session: status(session, log=lines),
        render_text.format_states,
        where,
        as_json=as_json,
    )


def _ask_hosts(
    hosts: list[str],
    ask: Callable[[Any], Status],
    text: Callable[[Any], str],
    home: Home,
    *,
    as_json: bool,
) -> int:
    from edgekit.cli.render.text import encode_states
    from edgekit.remote.session import open_session

    def one(host: str, tick: Ticker) -> tuple[str, Status]:
        tick(f"{host}: asking", 0, 0)
        with open_session(host, home=home) as session:
            return host, ask(session)

    return run_on_hosts(hosts, one, text, as_json=as_json, facts=encode_states)
