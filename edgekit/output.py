"""What a command prints: text for a reader, or one JSON document; host by host, if it has hosts."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from edgekit.errors import DeviceError, ExitCode
from edgekit.progress import Ticker


@contextmanager
def ticker() -> Iterator[Ticker]:
    """Progress on stderr, and no half line of it left behind."""
    tick = Ticker()
    tick.start()
    try:
        yield tick
    finally:
        tick.clear()


def emit(
    value: Any,  # noqa: ANN401
    text: Callable[[Any], str],
    *,
    as_json: bool,
    facts: Callable[[Any], object] | None = None,
    failures: Sequence[dict[str, str]] = (),
) -> None:
    """Print a result.

    Args:
        value: the result.
        text: makes text of it.
        as_json: print one JSON document instead.
        facts: makes plain data of it for JSON; without it, the value's own fields are taken.
        failures: what goes into the JSON list beside the results.
    """
    if not as_json:
        print(text(value))
        return
    from pydantic_core import to_jsonable_python

    plain = to_jsonable_python(facts(value) if facts else value, by_alias=True)
    print(json.dumps([*plain, *failures] if failures else plain, indent=1))


def each(
    hosts: list[str],
    one: Callable[[str, Ticker], Any],
    text: Callable[[Any], str],
    *,
    as_json: bool,
    facts: Callable[[Any], object] | None = None,
) -> int:
    """Do it on every host; one that fails does not keep the others from their turn."""
    results: list[Any] = []
    failures: list[dict[str, str]] = []
    for host in hosts:
        try:
            with ticker() as tick:
                results.append(one(host, tick))
        except DeviceError as error:
            failures.append({"host": host, "error": error.message, "hint": error.hint})
            print(f"edgekit: {error}", file=sys.stderr)
    if results or as_json:
        emit(results, text, as_json=as_json, facts=facts, failures=failures)
    return ExitCode.DEVICE if failures else ExitCode.DONE
