"""Commands of an installed app: ``NAME serve``, ``check``, ``status``, ``stop`` and others."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from typing import Callable, Dict, List, Optional

from edgekit_agent.apps.exit_codes import DONE, FAILS, run_and_report
from edgekit_agent.apps.installed import App, find_app_of_home, read_statement
from edgekit_agent.apps.removal import remove_app
from edgekit_agent.apps.self_check import check_files, check_models, check_start
from edgekit_agent.apps.serving.app_worker import run_app_worker
from edgekit_agent.apps.serving.background import run_background
from edgekit_agent.apps.serving.processes import find_running
from edgekit_agent.apps.serving.running import ask_health, restart_if_running, stop
from edgekit_agent.apps.serving.serve_app import describe_release, serve
from edgekit_agent.apps.serving.server import DEFAULT_PORT, HOST, parse_port
from edgekit_agent.apps.switching import roll_back
from edgekit_agent.apps.user_service import remove_service
from edgekit_agent.apps.waiting import Ticker
from edgekit_agent.failures import AgentError
from edgekit_agent.releases.current import previous_release


def run_command(home: str, release: str, arguments: List[str]) -> int:
    """Run a command of an app, and return the exit status.

    Args:
        home: path of the app's home.
        release: the release whose code this is.
        arguments: the command and its options.
    """
    # onnxruntime's Linux wheels send telemetry unless this is set before they are imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    os.umask(0o077)
    name = os.path.basename(home)
    return run_and_report(name, lambda: _run(find_app_of_home(home), release, arguments))


def _run(app: App, release: str, arguments: List[str]) -> int:
    # Commands for processes that the app starts itself.
    if arguments == ["self-check"]:
        status = _check(app, release, as_json=True)
        check_start(app, release)
        return status
    if arguments == ["app-worker"]:
        return run_app_worker(app, release)
    if arguments[:1] == ["app-background"] and len(arguments) == 2:
        return run_background(app, release, int(arguments[1]))
    options = _build_parser(app, release).parse_args(arguments)
    commands: Dict[str, Callable[[], int]] = {
        "serve": lambda: serve(app, release, options.port),
        "check": lambda: _check(app, release, as_json=options.json),
        "status": lambda: _show_status(app, release, as_json=options.json),
        "stop": lambda: _stop(app),
        "rollback": lambda: _roll_back(app),
        "uninstall": lambda: _uninstall(app),
    }
    return commands[options.command]()


def _build_parser(app: App, release: str) -> argparse.ArgumentParser:
    try:
        package = read_statement(app.home, release)
        title, version = package.title, package.version
    except AgentError:
        title, version = app.name, "damaged"
    parser = argparse.ArgumentParser(prog=app.name, description=title, allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"{app.name} {version}")
    adding = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    serving = adding.add_parser("serve", help="answer on this device until Ctrl-C")
    serving.add_argument(
        "--port", type=parse_port, default=DEFAULT_PORT, help="default: %(default)s"
    )
    serving.add_argument("--host", choices=[HOST, "localhost"], help="no other device is answered")
    checking = adding.add_parser("check", help="verify all files and test the models")
    status = adding.add_parser("status", help="show version, address and state")
    for each in (checking, status):
        each.add_argument("--json", action="store_true", help="write one JSON document")
    adding.add_parser("stop", help="end the running app")
    adding.add_parser("rollback", help="return to the release before this one")
    adding.add_parser("uninstall", help="remove the app and its files")
    return parser


def _check(app: App, release: str, *, as_json: bool) -> int:
    with Ticker(app.name) as ticker:
        ticker.begin("verifying the files")
        package = check_files(app, release)
        models = check_models(app, release, package, ticker.begin)
    if as_json:
        _write_json({"models": [dataclasses.asdict(model) for model in models]})
    else:
        for model in models:
            state = "works" if model.healthy else f"FAILS: {model.detail}"
            sys.stdout.write(
                f"{model.name}: {state} (error {model.relative_error:.2g}, limit {model.limit:g})\n"
            )
    failed = [model for model in models if not model.healthy]
    for model in failed:
        sys.stderr.write(f"{app.name}: {model.name} differs from the original: {model.detail}\n")
    return FAILS if failed else DONE


def _show_status(app: App, release: str, *, as_json: bool) -> int:
    package = read_statement(app.home, release)
    running = find_running(app)
    health = ask_health(running.port) if running is not None else None
    before = previous_release(app.home)
    facts = {
        **describe_release(app, release, package),
        "running": running is not None,
        "url": running.url if running is not None else None,
        "ready": bool(health and health.get("ready")),
        "serving": running.release if running is not None else None,
        "previous": before,
        "previous_version": _find_version(app, before),
    }
    if as_json:
        _write_json(facts)
        return DONE
    sys.stdout.write(f"{package.title} {package.version} (release {release})\n")
    if running is None:
        sys.stdout.write(f"not running; start it: {app.launcher} serve\n")
    else:
        state = "ready" if facts["ready"] else f"not ready: {(health or {}).get('problem', '')}"
        other = "" if running.release == release else f" (release {running.release})"
        sys.stdout.write(f"running at {running.url}{other}, {state}\n")
    if before is not None:
        sys.stdout.write(f"previous: {facts['previous_version']} (release {before})\n")
    return DONE


def _find_version(app: App, release: Optional[str]) -> Optional[str]:
    if release is None:
        return None
    try:
        return read_statement(app.home, release).version
    except AgentError:
        return "damaged"


def _stop(app: App) -> int:
    was_running = stop(app)
    sys.stdout.write(f"{app.name} {'has stopped' if was_running else 'was not running'}\n")
    return DONE


def _roll_back(app: App) -> int:
    with Ticker(app.name) as ticker:
        release = roll_back(app, ticker)
        restarted = restart_if_running(app, ticker.begin)
    where = f", running at {restarted.url}" if restarted else ""
    sys.stdout.write(f"{app.name} {read_statement(app.home, release).version} again{where}\n")
    return DONE


def _uninstall(app: App) -> int:
    with Ticker(app.name) as ticker:
        ticker.begin("stopping the app")
        remove_service(app)
        stop(app)
        ticker.begin("removing the files")
        remove_app(app)
    sys.stdout.write(f"{app.name} is removed\n")
    return DONE


def _write_json(values: Dict[str, object]) -> None:
    sys.stdout.write(json.dumps(values, indent=1) + "\n")
