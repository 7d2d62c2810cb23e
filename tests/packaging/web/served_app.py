"""A server of a web app for one test."""

from contextlib import contextmanager

from edgekit.packaging.web.server import open_app_server, run_in_thread


@contextmanager
def serve(folder, *, port=0, host=None, authority=None):
    """Serve the folder of a web app in a thread; yield the server."""
    with open_app_server(folder, port=port, host=host, authority=authority) as server:
        thread = run_in_thread(server)
        try:
            yield server
        finally:
            server.stop()
            thread.join()
