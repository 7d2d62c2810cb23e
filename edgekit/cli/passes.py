"""edgekit apply and edgekit passes: run a single pass, and list the passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Data, Dims, Folder, Json, TrustPickle, parse_dims
from edgekit.output import emit, show_progress


def apply_pass(
    name: Annotated[str, typer.Argument(metavar="PASS", help="One of 'edgekit passes'.")],
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="The model to process.")],
    out: Annotated[
        Path, typer.Option("-o", "--out", metavar="OUT", help="The file to write; never MODEL.")
    ],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting of the pass; repeatable."),
    ] = None,
    data: Data = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Run one pass on a model, check the result, and write it."""
    from edgekit import show
    from edgekit.apply import apply
    from edgekit.steps import parse_settings

    sizes = parse_dims(dims)
    step = parse_settings(name, settings or [], where=f"{name}: ")
    with show_progress() as tick:
        applied = apply(
            step,
            model,
            out,
            data=data,
            folder=folder,
            tick=tick,
            trusted=trust_pickle,
            dims=sizes,
        )
    emit(applied, show.format_apply_result, as_json=as_json, facts=show.encode_apply_result)


def list_passes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Describe this pass in full.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the passes, their needs, and their settings."""
    from edgekit import show
    from edgekit.passes import PASSES
    from edgekit.steps import describe_pass

    if name is not None:
        emit(describe_pass(name), show.format_pass_details, as_json=as_json)
    else:
        emit([describe_pass(each) for each in PASSES], show.format_passes, as_json=as_json)
