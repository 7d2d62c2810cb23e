"""edgekit apply and edgekit passes: run a single pass, and list the passes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from edgekit.cli.options import Data, Dims, Folder, Json, TrustPickle, sizes_of
from edgekit.output import emit, ticker


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
    from edgekit.steps import step_of

    sizes = sizes_of(dims)
    step = step_of(name, settings or [], where=f"{name}: ")
    with ticker() as tick:
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
    emit(applied, show.applied, as_json=as_json, facts=show.applied_facts)


def list_passes(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Describe this pass in full.")
    ] = None,
    as_json: Json = False,
) -> None:
    """List the passes, their needs, and their settings."""
    from edgekit import show
    from edgekit.passes import PASSES
    from edgekit.steps import pass_facts

    if name is not None:
        emit(pass_facts(name), show.pass_in_full, as_json=as_json)
    else:
        emit([pass_facts(each) for each in PASSES], show.passes, as_json=as_json)
