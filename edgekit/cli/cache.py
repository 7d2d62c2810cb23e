"""edgekit cache: size of the cache, and removal of entries."""

from __future__ import annotations

from typing import Annotated

import typer

from edgekit.cli.options import Json
from edgekit.cli.render.output import emit
from edgekit.errors import UserError


def show_cache(
    size: Annotated[bool, typer.Option("--size", help="Print only the total size.")] = False,
    clear: Annotated[bool, typer.Option("--clear", help="Remove everything.")] = False,
    prune: Annotated[
        str | None,
        typer.Option("--prune", metavar="AGE", help="Remove entries not used for AGE: 12h, 30d."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Show the size of the build cache, or remove entries."""
    from edgekit.api import cache
    from edgekit.cli.render import cache as render_cache

    if size + clear + (prune is not None) > 1:
        raise UserError("--size, --clear and --prune cannot be combined")
    if clear or prune is not None:
        removal = cache.clear() if prune is None else cache.prune(prune)
        emit(
            removal, render_cache.format_removal, as_json=as_json, facts=render_cache.encode_removal
        )
        return
    text = render_cache.format_total if size else render_cache.format_usage
    emit(cache.measure_usage(), text, as_json=as_json, facts=render_cache.encode_usage)
