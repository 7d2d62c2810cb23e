"""edgekit keys: keys that sign bundles, and keys that devices trust."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Annotated, Any

import typer

from edgekit.cli.options import DeviceName, HomeFolder, Hosts, Json
from edgekit.cli.render.output import emit, run_on_hosts

keys_app = typer.Typer(
    help="Keys that sign bundles, and the keys that devices trust.", rich_markup_mode=None
)
SomeHosts = Annotated[
    list[str] | None,
    typer.Argument(metavar="[HOST]...", help="'local', an ssh alias, or user@host:port."),
]


@keys_app.callback(invoke_without_command=True)
def _list_by_default(context: typer.Context, as_json: Json = False) -> None:
    if context.invoked_subcommand is None:
        list_keys(None, as_json=as_json)


@keys_app.command("new")
def create_key(
    name: Annotated[str, typer.Argument(metavar="[NAME]", help="Name of the key.")] = "default",
    as_json: Json = False,
) -> None:
    """Create a key pair; builds are signed with 'default', or with [release] key."""
    from edgekit.api.keys import make_key
    from edgekit.cli.render import keys as render_keys

    emit(
        make_key(name),
        render_keys.format_new_key,
        as_json=as_json,
        facts=render_keys.encode_own_key,
    )


@keys_app.command("list")
def list_keys(
    hosts: SomeHosts = None,
    home: HomeFolder = None,
    device: DeviceName = None,
    as_json: Json = False,
) -> int:
    """List your keys; with hosts, the keys that they trust."""
    from edgekit.api.keys import read_own_keys, read_trust
    from edgekit.cli.render import keys as render_keys

    if hosts:
        return _ask_hosts(hosts, read_trust, home, device, as_json=as_json)
    emit(
        read_own_keys(),
        render_keys.format_own_keys,
        as_json=as_json,
        facts=render_keys.encode_own_keys,
    )
    return 0


@keys_app.command("trust")
def trust_key_on_hosts(
    hosts: Hosts,
    key: Annotated[
        str | None,
        typer.Option(
            "--key", metavar="KEY", help="Key name, .pub file or hex digits; default: your own."
        ),
    ] = None,
    home: HomeFolder = None,
    device: Annotated[
        str | None,
        typer.Option("--device", metavar="NAME", help="Accept bundles for this profile only."),
    ] = None,
    replace: Annotated[
        bool,
        typer.Option("--replace", help="Replace the device's file of keys if it is damaged."),
    ] = False,
    as_json: Json = False,
) -> int:
    """Trust a key on devices, which then refuse unsigned bundles and other keys."""
    from edgekit.api.keys import find_public_key, trust_key
    from edgekit.api.profiles import load_profile

    trust = partial(
        trust_key,
        key=find_public_key(key),
        profile=load_profile(device).name if device else None,
        replace=replace,
    )
    return _ask_hosts(hosts, trust, home, device, as_json=as_json)


@keys_app.command("untrust")
def untrust(
    hosts: Hosts, home: HomeFolder = None, device: DeviceName = None, as_json: Json = False
) -> int:
    """Let devices accept unsigned bundles again; needs a private key that they trust."""
    from edgekit.api.keys import end_trust

    return _ask_hosts(hosts, end_trust, home, device, as_json=as_json)


@keys_app.command("revoke")
def revoke_key_on_hosts(
    key: Annotated[str, typer.Argument(metavar="KEY", help="Name, id or hex digits.")],
    hosts: SomeHosts = None,
    home: HomeFolder = None,
    device: DeviceName = None,
    as_json: Json = False,
) -> int:
    """Revoke a key on devices for good; without hosts, stop signing with it here."""
    from edgekit.api.keys import revoke_key, revoke_own_key
    from edgekit.cli.render import keys as render_keys

    if hosts:
        return _ask_hosts(hosts, partial(revoke_key, key=key), home, device, as_json=as_json)
    emit(
        revoke_own_key(key),
        render_keys.format_revocation,
        as_json=as_json,
        facts=render_keys.encode_own_key,
    )
    return 0


def _ask_hosts(
    hosts: list[str],
    ask: Callable[..., Any],
    home: str | None,
    device: str | None,
    *,
    as_json: bool,
) -> int:
    from edgekit.api.arguments import choose_home
    from edgekit.cli.render.keys import encode_trust, format_trust

    where = choose_home(home, device)
    return run_on_hosts(
        hosts,
        lambda host, tick: (host, ask(host, home=where, progress=tick)),
        format_trust,
        as_json=as_json,
        facts=encode_trust,
    )
