"""Command line of edgekit: parsing of arguments, one call per command, and output."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

import edgekit
from edgekit.api.failures import convert_failure
from edgekit.cli.apps import apps_app
from edgekit.cli.builds import build
from edgekit.cli.cache import show_cache
from edgekit.cli.completion import prepare_completion, print_completion
from edgekit.cli.devices import devices_app
from edgekit.cli.folders import start_example, start_project, write_page
from edgekit.cli.keys import keys_app
from edgekit.cli.metrics import list_metrics
from edgekit.cli.option_names import format_error
from edgekit.cli.options import (
    AppName,
    DeviceName,
    Dims,
    Evaluation,
    Folder,
    HomeFolder,
    Hosts,
    Json,
    MeasuredHosts,
    Metric,
    TrustPickle,
    parse_dims,
)
from edgekit.cli.packages import fetch, package
from edgekit.cli.passes import apply_pass, distil, list_passes
from edgekit.cli.plugin_warnings import disable_pydantic_plugins, show_plugin_warnings
from edgekit.cli.releases import roll_back, show_status, uninstall
from edgekit.cli.render.output import announce_sent, emit, run_on_hosts, say, show_progress
from edgekit.cli.streams import check_command_line, drop_output, prepare_streams, use_utf8
from edgekit.errors import EdgekitError, ExitCode
from edgekit.progress import Ticker

app = typer.Typer(
    name="edgekit",
    help="Compress a trained model for a small device and verify the result.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
)
app.add_typer(devices_app, name="devices")
app.add_typer(keys_app, name="keys")
app.add_typer(apps_app, name="app")


_MODEL = (
    "An .onnx, .tflite, .keras, .h5, .pt2, .pt, .pkl or .joblib file, a SavedModel folder, or "
    "module:function."
)


def main() -> None:
    """Run the command line; every expected failure ends in one message and its exit code."""
    disable_pydantic_plugins()
    use_utf8()
    prepare_streams()
    prepare_completion()
    try:
        check_command_line(sys.argv[1:])
        with contextlib.chdir("."), show_plugin_warnings():  # -C applies only to this run
            result = _run_app()
        sys.stdout.flush()
    except EdgekitError as error:
        _fail(format_error(error), error.exit_code)
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "edgekit"
        message = " ".join(error.format_message().replace("Value error, ", "").split())
        _fail(f"{message}\n  see '{command} --help'", ExitCode.BAD_REQUEST)
    except (OSError, MemoryError) as error:
        converted = convert_failure(error)
        if converted is None:
            raise
        drop_output()
        _fail(str(converted), converted.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        result = ExitCode.INTERRUPTED
    if result == ExitCode.INTERRUPTED:
        _fail("interrupted; run the same command again to resume", ExitCode.INTERRUPTED)
    sys.exit(result if isinstance(result, int) else ExitCode.DONE)


def _run_app() -> object:
    """Run the command; errors of the input also name the folder that -C changed to."""
    start = Path.cwd()
    try:
        return app(prog_name="edgekit", standalone_mode=False)
    except EdgekitError as error:
        message, folder = format_error(error), Path.cwd()
        is_input = error.exit_code == ExitCode.BAD_REQUEST
        if is_input and folder != start and str(folder) not in message:
            message += f"\n  in the folder {folder}"
        _fail(message, error.exit_code)


def _fail(message: str, code: ExitCode) -> NoReturn:
    say(f"edgekit: {message}", file=sys.stderr)
    sys.exit(code)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"edgekit {edgekit.__version__}")
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

    sizes = parse_dims(dims)
    with show_progress() as tick:
        seen = edgekit.inspect(
            model,
            device=device,
            prunable=prunable,
            dims=sizes,
            trust_pickle=trust_pickle,
            folder=folder,
            progress=tick,
        )
    emit(seen, render_model.format_inspection, as_json=as_json)


app.command("build")(build)
app.command("apply")(apply_pass)
app.command("distil")(distil)
app.command("passes")(list_passes)
app.command("metrics")(list_metrics)


@app.command()
def push(
    bundle: Annotated[
        Path,
        typer.Argument(metavar="BUNDLE", help="Build folder, bundle file, or file of an app."),
    ],
    hosts: Hosts,
    name: AppName = None,
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
    """Install a bundle or an app on a device, check it there, and switch to it."""
    from edgekit.api.arguments import check_app_name, choose_home
    from edgekit.api.releases import list_sent_files, open_delivery
    from edgekit.cli.render import text as render_text

    check_app_name(name)
    with show_progress() as tick:
        opened = open_delivery(bundle, progress=tick)
    where = choose_home(home, device)
    announce_sent(list_sent_files(opened), hosts)

    def push_to(host: str, tick: Ticker) -> edgekit.PushReport:
        done = edgekit.push(
            opened,
            host,
            name=name,
            home=where,
            allow_downgrade=allow_downgrade,
            watch=watch,
            app_confirms=app_confirms,
            progress=tick,
        )
        tick.clear()
        for note in done.notes:
            say(f"edgekit: note: {host}: {note}", file=sys.stderr)
        return done

    return run_on_hosts(hosts, push_to, render_text.format_push_reports, as_json=as_json)


@app.command()
def bench(
    target: Annotated[
        Path, typer.Argument(metavar="BUNDLE|MODEL", help="Bundle or model to measure.")
    ],
    hosts: MeasuredHosts,
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
    from edgekit.api.benchmark import open_benchmark
    from edgekit.cli.render import text as render_text

    sizes = parse_dims(dims)
    with contextlib.ExitStack() as stack:
        with show_progress() as tick:
            measure = stack.enter_context(
                open_benchmark(
                    target,
                    eval=evaluation,
                    metric=metric,
                    device=device,
                    home=home,
                    dims=sizes,
                    trust_pickle=trust_pickle,
                    folder=folder,
                    progress=tick,
                )
            )
        announce_sent(measure.sent, hosts)
        return run_on_hosts(hosts, measure, render_text.format_bench_results, as_json=as_json)


app.command("package")(package)
app.command("fetch")(fetch)
app.command("rollback")(roll_back)
app.command("status")(show_status)
app.command("uninstall")(uninstall)
app.command("report")(write_page)
app.command("cache")(show_cache)
app.command("completion")(print_completion)
