"""The command line of a package file: ``sh FILE [--prefix DIR] [--no-start] [--port N]``."""

from __future__ import annotations

import argparse
import os
import sys
from typing import List

from edgekit_agent.apps.exit_codes import DONE, WRONG_REQUEST, run_and_report
from edgekit_agent.apps.install import Installed, install_package
from edgekit_agent.apps.installed import App, find_app
from edgekit_agent.apps.package_file import PackageReader, open_package
from edgekit_agent.apps.package_format import Package
from edgekit_agent.apps.serving.processes import find_running
from edgekit_agent.apps.serving.running import restart_if_running, start_server
from edgekit_agent.apps.serving.server import DEFAULT_PORT, parse_port
from edgekit_agent.apps.user_service import install_service
from edgekit_agent.apps.waiting import Ticker

DEFAULT_PREFIX = "~/.local"
# Limits of a prefix: files of packages lie up to 1000 bytes deeper, and Linux takes 4096 in all.
_MOST_PATH, _MOST_NAME = 1000, 255


def run_installer(file: str, arguments: List[str]) -> int:
    """Install a package file for this user, start the app, and return the exit status."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.umask(0o077)
    name = os.path.basename(file)
    return run_and_report(name, lambda: _run(file, arguments), corrupt=WRONG_REQUEST)


def _run(file: str, arguments: List[str]) -> int:
    reader = open_package(file)
    try:
        options = _build_parser(file, reader.package).parse_args(arguments)
        app = find_app(options.prefix, reader.package.name)
        with Ticker(app.name) as ticker:
            installed = install_package(reader, app, ticker)
            _report(app, reader, installed)
            if options.systemd:
                note = install_service(app, reader.package, options.port)
                sys.stdout.write(note and f"{app.name}: {note}\n")
            if not options.no_start:
                _start(app, installed, options.port, ticker)
            elif find_running(app) is not None and installed.before != installed.release:
                sys.stdout.write(
                    f"the version that was installed before still runs; to end it: "
                    f"{app.launcher} stop\n"
                )
    finally:
        reader.close()
    return DONE


def parse_prefix(text: str) -> str:
    """Parse the option ``--prefix``: a folder, or one that can be created.

    Raises:
        ArgumentTypeError: it is neither.
    """
    if not text:
        raise argparse.ArgumentTypeError("the name of the folder is empty")
    folder = os.path.abspath(os.path.expanduser(text))
    if text.startswith("~") and not os.path.expanduser(text).startswith("/"):
        raise argparse.ArgumentTypeError(f"there is no home folder {text.partition('/')[0]}")
    try:
        names = folder.encode().split(b"/")
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError("the name of the folder is not UTF-8") from None
    if len(folder) > _MOST_PATH or max(map(len, names)) > _MOST_NAME:
        most = f"{_MOST_PATH} characters, or {_MOST_NAME} bytes of one name"
        raise argparse.ArgumentTypeError(f"the name of the folder has more than {most}")
    nearest = folder
    while not os.path.lexists(nearest):
        nearest = os.path.dirname(nearest)
    if not os.path.isdir(nearest):
        raise argparse.ArgumentTypeError(f"{nearest} is not a folder")
    return text


def _build_parser(file: str, package: Package) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"sh {os.path.basename(file)}",
        description=f"Install {package.title} {package.version} for this user, and start it.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--prefix",
        type=parse_prefix,
        default=DEFAULT_PREFIX,
        metavar="DIR",
        help="folder of bin/ (%(default)s)",
    )
    parser.add_argument("--no-start", action="store_true", help="install it only")
    parser.add_argument(
        "--port",
        type=parse_port,
        default=DEFAULT_PORT,
        metavar="N",
        help="of the page (%(default)s)",
    )
    parser.add_argument(
        "--systemd", action="store_true", help="start it at login or boot, by a systemd unit"
    )
    version = f"{package.name} {package.version}"
    parser.add_argument("--version", action="version", version=version)
    return parser


def _report(app: App, reader: PackageReader, installed: Installed) -> None:
    package = reader.package
    what = "is installed" if installed.is_changed else "was installed already, and is complete"
    sys.stdout.write(f"{package.title} {package.version} {what}: {app.launcher}\n")
    sys.stdout.flush()


def _start(app: App, installed: Installed, port: int, ticker: Ticker) -> None:
    running = find_running(app)
    if running is None:
        running = start_server(app, port, ticker.begin)
    elif installed.is_changed or running.release != installed.release:
        running = restart_if_running(app, ticker.begin) or running
    sys.stdout.write(f"it answers at {running.url}\n")
