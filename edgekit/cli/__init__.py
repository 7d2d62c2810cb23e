"""Command line of edgekit: parsing of arguments, one call per command, and output."""

from __future__ import annotations

import contextlib
import errno
import math
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from edgekit.cli.cache import show_cache
from edgekit.cli.completion import complete_pass, prepare_completion, print_completion
from edgekit.cli.devices import devices_app
from edgekit.cli.folders import start_example, start_project, write_page
from edgekit.cli.keys import keys_app
from edgekit.cli.options import (
    Data,
    DeviceName,
    Dims,
    Evaluation,
    Folder,
    HomeFolder,
    Hosts,
    Json,
    Metric,
    TrustPickle,
    check_choice,
    find_home,
    parse_dims,
)
from edgekit.cli.passes import apply_pass, list_passes
from edgekit.cli.plugin_warnings import show_plugin_warnings
from edgekit.cli.render.output import emit, note_old_names, run_on_hosts, say, show_progress
from edgekit.cli.states import roll_back, show_status
from edgekit.cli.streams import check_arguments, drop_output, prepare_streams, use_utf8
from edgekit.errors import EdgekitError, ExitCode, UserError
from edgekit.progress import Ticker
from edgekit.version import __version__

if TYPE_CHECKING:
    from edgekit.recipe import Recipe

app = typer.Typer(
    name="edgekit",
    help="Compress a trained model for a small device and verify the result.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(devices_app, name="devices")
app.add_typer(keys_app, name="keys")


_MODEL = (
    "An .onnx, .tflite, .keras, .h5, .pt2, .pt, .pkl or .joblib file, a SavedModel folder, or "
    "module:function."
)
_METRICS = ("top1", "top5", "binary")
_RUNTIMES = ("onnxruntime", "litert", "auto")

# Errors of the folders that the user named for output, not of edgekit.
_NO_ROOM = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EIO,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.EPERM,
    errno.EROFS,
}


def main() -> None:
    """Run the command line; every expected failure ends in one message and its exit code."""
    use_utf8()
    prepare_streams()
    prepare_completion()
    try:
        check_arguments(sys.argv[1:])
        with contextlib.chdir("."), show_plugin_warnings():  # -C applies only to this run
            result = app(prog_name="edgekit", standalone_mode=False)
        sys.stdout.flush()
    except EdgekitError as error:
        _fail(str(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "edgekit"
        _fail(f"{error.format_message()}\n  see '{command} --help'", ExitCode.BAD_REQUEST)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        drop_output()
        place = error.filename or "the output"
        _fail(f"{place}: cannot be written: {error.strerror}", ExitCode.BAD_REQUEST)
    except MemoryError:
        _fail(
            "out of memory\n  use fewer samples (max_samples of a pass), a smaller model, or a "
            "machine with more memory",
            ExitCode.BAD_REQUEST,
        )
    except (KeyboardInterrupt, typer.Abort):
        result = ExitCode.INTERRUPTED
    if result == ExitCode.INTERRUPTED:
        _fail("interrupted; run the same command again to resume", ExitCode.INTERRUPTED)
    sys.exit(result if isinstance(result, int) else ExitCode.DONE)


def _fail(message: str, code: ExitCode) -> NoReturn:
    say(f"edgekit: {message}", file=sys.stderr)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgekit {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def _show_help(
    context: typer.Context,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    del version
    if context.invoked_subcommand is None:
        print(context.get_help(), file=sys.stderr)
        raise typer.Exit(ExitCode.BAD_REQUEST)


app.command("init")(start_project)
app.command("example")(start_example)


@app.command()
def inspect(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help=_MODEL)],
    device: DeviceName = None,
    prunable: Annotated[
        bool,
        typer.Option("--prunable", help="Show which parts can be pruned, and why others cannot."),
    ] = False,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> None:
    """Show inputs, operators, size, MACs and peak memory.

    With --device, also show why the model cannot run there, and how to fix it.
    """
    from edgekit.cli.render import model as render_model
    from edgekit.inspection.summary import inspect as look

    sizes = parse_dims(dims)
    with show_progress() as tick:
        seen = look(
            model,
            device=device,
            folder=folder,
            trusted=trust_pickle,
            structure=prunable,
            dims=sizes,
            tick=tick,
        )
    emit(seen, render_model.format_inspection, as_json=as_json)


@app.command()
def build(
    model: Annotated[
        Path | None, typer.Argument(metavar="MODEL", help="Default: [model] path of edgekit.toml.")
    ] = None,
    device: DeviceName = None,
    folder: Folder = Path(),
    data: Data = None,
    evaluation: Evaluation = None,
    metric: Metric = None,
    runtime: Annotated[
        str | None,
        typer.Option("--runtime", metavar="NAME", help="onnxruntime, litert or auto (both)."),
    ] = None,
    max_drop: Annotated[
        float | None,
        typer.Option("--max-drop", metavar="POINTS", min=0, help="Largest accuracy drop allowed."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option("--recipe", metavar="FILE", help="Run this recipe (TOML) only; no search."),
    ] = None,
    step: Annotated[
        list[str] | None,
        typer.Option(
            "--step",
            metavar="NAME[:KEY=VALUE,...]",
            help="Run these passes in this order; no search. 'edgekit passes' lists them.",
            autocompletion=complete_pass,
        ),
    ] = None,
    on: Annotated[
        str | None, typer.Option("--on", metavar="HOST", help="Measure candidates on this device.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Output folder; default: build/NAME."),
    ] = None,
    seed: Annotated[
        int | None, typer.Option("--seed", metavar="N", help="Seed of every random choice.")
    ] = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    allow_failing: Annotated[
        bool, typer.Option("--allow-failing", help="Pack the nearest candidate if none passes.")
    ] = False,
    strict: Annotated[
        bool, typer.Option("--strict", help="Treat unmeasured and unproven checks as failed.")
    ] = False,
    as_json: Json = False,
) -> int:
    """Compress a model for a device and verify its accuracy.

    Writes the bundle and the report to build/NAME/.
    """
    from edgekit.cli.render import build as render_build
    from edgekit.pipeline.build import build as run
    from edgekit.pipeline.request import Request
    from edgekit.reporting.html import write_report

    if max_drop is not None and not math.isfinite(max_drop):
        raise UserError(f"--max-drop: {max_drop} is not a number of percentage points")
    request = Request(
        folder=folder,
        model=model,
        device=device,
        data=data,
        evaluation=evaluation,
        metric=check_choice("--metric", metric, _METRICS),
        max_drop_points=max_drop,
        runtime=check_choice("--runtime", runtime, _RUNTIMES),  # type: ignore[arg-type]
        on=on,
        out=out,
        seed=seed,
        recipe=_read_recipe(recipe, step or []),
        trust_pickle=trust_pickle,
        strict=strict,
        dims=parse_dims(dims),
    )
    with show_progress() as tick:
        outcome = run(request, tick, allow_failing=allow_failing)
    emit(outcome, render_build.format_build, as_json=as_json, facts=render_build.encode_build)
    page = write_report(outcome.intake.out)
    if not as_json:
        say(f"report: {page.resolve()}")
    return ExitCode.DONE if outcome.found.chosen else ExitCode.NOTHING_HOLDS


def _read_recipe(file: Path | None, steps: list[str]) -> Recipe | None:
    """Read the recipe of --recipe or --step, which replaces the search."""
    if not file and not steps:
        return None
    if file and steps:
        raise UserError("--recipe and --step cannot be combined", hint="use one of them")
    from edgekit.compression.recipe_parser import make_recipe, parse_step, read_recipe

    with note_old_names() as old_names:
        if file:
            return read_recipe(file, old_names=old_names)
        return make_recipe([parse_step(text, old_names=old_names) for text in steps])


app.command("apply")(apply_pass)
app.command("passes")(list_passes)


@app.command()
def push(
    bundle: Annotated[Path, typer.Argument(metavar="BUNDLE", help="Build folder or bundle file.")],
    hosts: Hosts,
    home: HomeFolder = None,
    device: DeviceName = None,
    allow_downgrade: Annotated[
        bool,
        typer.Option("--allow-downgrade", help="Allow a lower version; needs a trusted key."),
    ] = False,
    watch: Annotated[
        float | None,
        typer.Option(
            "--watch",
            metavar="SECONDS",
            min=0,
            max=86400,
            help="Roll back if not confirmed within this time (default: 30; 'local': 0).",
        ),
    ] = None,
    app_confirms: Annotated[
        bool,
        typer.Option("--app-confirms", help="Wait for the app on the device to confirm."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Install a bundle on a device, check it there, and switch to it."""
    from io import BytesIO

    from edgekit.bundle.golden_samples import check_golden_samples
    from edgekit.bundle.manifest import open_bundle
    from edgekit.cache.store import get_default_root
    from edgekit.cli.render import text as render_text
    from edgekit.remote.confirmation import choose_watch_terms
    from edgekit.remote.deploy import push as install
    from edgekit.remote.session import open_session

    with show_progress() as tick:
        tick("checking the bundle", 0, 0)
        opened = open_bundle(bundle)
        opened.check()
        name = opened.manifest.canaries
        check_golden_samples(BytesIO(opened.read(name)), f"{bundle}: {name}")
    where = find_home(home, device)

    def one(host: str, tick: Ticker) -> Any:  # noqa: ANN401
        with open_session(host, home=where) as session:
            done = install(
                opened,
                session,
                cache=get_default_root() / "wheels",
                progress=tick.said,
                allow_downgrade=allow_downgrade,
                watch=choose_watch_terms(host, watch, by_app=app_confirms),
            )
            meant = opened.manifest.profile.connection.home
            if meant and not where.path:
                tick.clear()
                text = f"{host}: installed in {session.home}; the bundle's folder was not used"
                say(f"edgekit: note: {text} (to use it: --home {meant})", file=sys.stderr)
            return done

    return run_on_hosts(hosts, one, render_text.format_push_reports, as_json=as_json)


@app.command()
def bench(
    target: Annotated[
        Path, typer.Argument(metavar="BUNDLE|MODEL", help="Bundle or model to measure.")
    ],
    hosts: Hosts,
    evaluation: Evaluation = None,
    metric: Metric = None,
    device: DeviceName = None,
    home: HomeFolder = None,
    dims: Dims = None,
    trust_pickle: TrustPickle = False,
    folder: Folder = Path(),
    as_json: Json = False,
) -> int:
    """Measure latency, memory and accuracy on a device."""
    from edgekit.cli.render import text as render_text
    from edgekit.pipeline.benchmark import bench as measure
    from edgekit.pipeline.benchmark import open_subject

    chosen, sizes = check_choice("--metric", metric, _METRICS), parse_dims(dims)
    where = find_home(home, device)
    with ExitStack() as stack:
        with show_progress() as tick:
            opened = stack.enter_context(
                open_subject(
                    target,
                    folder=folder,
                    evaluation=evaluation,
                    metric=chosen,
                    device=device,
                    trusted=trust_pickle,
                    dims=sizes,
                    tick=tick,
                )
            )
        return run_on_hosts(
            hosts,
            lambda host, tick: measure(opened, host, tick, where),
            render_text.format_bench_results,
            as_json=as_json,
        )


app.command("rollback")(roll_back)
app.command("status")(show_status)
app.command("report")(write_page)
app.command("cache")(show_cache)
app.command("completion")(print_completion)
