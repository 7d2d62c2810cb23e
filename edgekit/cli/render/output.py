"""Output of commands: text or one JSON document, also for several hosts."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from edgekit.cli.streams import reserve_stdout
from edgekit.errors import EdgekitError, ExitCode
from edgekit.printable import escape_lines
from edgekit.progress import Ticker
from edgekit.remote.host_names import LOCAL, WEB

if TYPE_CHECKING:
    from edgekit.old_names import OldNames

# Exit codes of a command for several hosts, gravest first.
_GRAVEST_FIRST = (
    ExitCode.UNKNOWN_STATE,
    ExitCode.DEVICE,
    ExitCode.OUR_FAULT,
    ExitCode.BAD_REQUEST,
    ExitCode.NOTHING_HOLDS,
)


def say(text: str, *, file: TextIO | None = None) -> None:
    """Print text; control characters of outside names are escaped for the terminal."""
    print(escape_lines(text), file=file)


def announce_sent(sent: object, hosts: Sequence[str]) -> None:
    """Say on stderr what is about to leave this machine, unless it stays here."""
    away = [host for host in hosts if host not in (LOCAL, WEB)]
    if away:
        say(f"{', '.join(away)}: {sent}", file=sys.stderr)


@contextmanager
def show_progress() -> Iterator[Ticker]:
    """Show progress on stderr, where code of the user prints too; erase an unfinished line."""
    tick = Ticker()
    tick.start()
    try:
        with reserve_stdout():
            yield tick
    finally:
        tick.clear()


@contextmanager
def note_old_names() -> Iterator[OldNames]:
    """Collect names of earlier versions that the user gave, and print one note on them."""
    from edgekit.old_names import OldNames

    old_names = OldNames()
    try:
        yield old_names
    finally:
        if note := old_names.format_note():
            say(f"edgekit: note: {note}", file=sys.stderr)


def emit(
    value: Any,  # noqa: ANN401
    text: Callable[[Any], str],
    *,
    as_json: bool,
    facts: Callable[[Any], object] | None = None,
    failures: Sequence[dict[str, Any]] = (),
) -> None:
    """Print a result.

    Args:
        value: The result.
        text: Function that formats it as text.
        as_json: Print one JSON document instead.
        facts: Function that converts it to plain data for JSON; without it, the fields of the value
            are taken.
        failures: Entries appended to a JSON list of results.
    """
    if not as_json:
        say(text(value))
        return
    from pydantic_core import to_jsonable_python

    plain = _drop_infinite(to_jsonable_python(facts(value) if facts else value, by_alias=True))
    print(json.dumps([*plain, *failures] if failures else plain, indent=1, allow_nan=False))


def _drop_infinite(value: Any) -> Any:  # noqa: ANN401 - any JSON value
    """Replace infinite and undefined numbers, which JSON does not have, by ``None``."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list):
        return [_drop_infinite(each) for each in value]
    if isinstance(value, dict):
        return {key: _drop_infinite(each) for key, each in value.items()}
    return value


def run_on_hosts(
    hosts: list[str],
    one: Callable[[str, Ticker], Any],
    text: Callable[[Any], str],
    *,
    as_json: bool,
    facts: Callable[[Any], object] | None = None,
) -> int:
    """Run an action on every host, even if some fail, and print all results.

    Args:
        hosts: The hosts.
        one: Action on one host.
        text: Function that formats the list of results as text.
        as_json: Print one JSON document instead.
        facts: Function that converts the list of results to plain data for JSON.

    Returns:
        The gravest exit code: an unknown state, then a failed device, then the rest.

    Raises:
        Exception: The first unexpected one, after every host had its turn.
    """
    results: list[Any] = []
    failures: list[dict[str, Any]] = []
    unexpected: list[Exception] = []
    for host in hosts:
        try:
            with show_progress() as tick:
                results.append(one(host, tick))
        except EdgekitError as error:
            failures.append(_encode_failure(host, error))
            say(f"edgekit: {_prefix_host(host, error)}", file=sys.stderr)
        except Exception as error:  # noqa: BLE001 - raised again below
            unexpected.append(error)
            say(f"edgekit: {host}: {type(error).__name__}: {error}", file=sys.stderr)
    if results or as_json:
        emit(results, text, as_json=as_json, facts=facts, failures=failures)
    if unexpected:
        raise unexpected[0]
    codes = {failure["exit_code"] for failure in failures}
    return next((code for code in _GRAVEST_FIRST if code in codes), ExitCode.DONE)


def _encode_failure(host: str, error: EdgekitError) -> dict[str, Any]:
    return {
        "host": host,
        "error": error.message,
        "hint": error.hint,
        "exit_code": int(error.exit_code),
    }


def _prefix_host(host: str, error: EdgekitError) -> str:
    return str(error) if error.message.startswith(f"{host}: ") else f"{host}: {error}"
