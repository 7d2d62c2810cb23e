"""Server of a web app for tablets in the local network."""

from __future__ import annotations

from contextlib import AbstractContextManager

from edgekit.api.arguments import Count, resolve_folder
from edgekit.argument_checks import AnyPath, Text, check_arguments
from edgekit.cache.integrity import get_config_folder
from edgekit.packaging.web.certificates import open_authority
from edgekit.packaging.web.server import AppServer
from edgekit.packaging.web.server import open_app_server as open_server
from edgekit.packaging.web.server_settings import format_apache, format_nginx


@check_arguments
def open_app_server(
    app: AnyPath,
    *,
    port: Count = 0,
    https: bool = False,
    host: Text | None = None,
    folder: AnyPath = ".",
) -> AbstractContextManager[AppServer]:
    """Open a server of a web app, with the headers that browsers need.

    Browsers give camera, microphone and offline use to pages by https, and to ``localhost``.

    Args:
        app: Folder that ``package`` wrote for browsers; a relative one is below ``folder``.
        port: The port; 0 = a free one.
        https: Encrypt with a certificate of your own authority, which is created when it is
            missing, and listen on all addresses.
        host: Address to listen on instead.
        folder: The project folder.

    Returns:
        A context whose value has the attributes ``addresses``, ``port``, ``is_public`` and
        ``authority``, and the methods ``serve`` and ``stop``.

    Raises:
        UserError: There is no web app, or the port cannot be used.
    """
    authority = open_authority(get_config_folder()) if https else None
    path = resolve_folder(folder) / app
    return open_server(path, port=port, host=host, authority=authority)


@check_arguments
def format_server_settings(app: AnyPath, *, folder: AnyPath = ".") -> str:
    """Return settings of nginx and Apache that serve a web app with the headers that it needs."""
    path = resolve_folder(folder) / app
    return f"{format_nginx(path)}\n{format_apache(path)}"
