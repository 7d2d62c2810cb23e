"""Return of an app to its previous release."""

from __future__ import annotations

import contextlib

from edgekit_agent.apps.install import run_self_check
from edgekit_agent.apps.installed import App
from edgekit_agent.apps.waiting import Ticker
from edgekit_agent.boot.watch import drop_watch
from edgekit_agent.failures import AgentError
from edgekit_agent.releases.current import previous_release, switch
from edgekit_agent.releases.store import lock_home, read_release
from edgekit_agent.trust.keys import check_not_revoked, try_read_trust


def roll_back(app: App, ticker: Ticker) -> str:
    """Check the previous release and serve it; return its name. It can be undone in the same way.

    Raises:
        AgentError: ``no_previous``, ``revoked_key``, ``corrupt``, ``unhealthy``, ``busy``.
    """
    ticker.begin("checking the previous release")
    with lock_home(app.home, creates=False):
        before = previous_release(app.home)
        if before is None:
            raise AgentError("no_previous", "there is no release before this one")
        check_not_revoked(try_read_trust(app.home), read_release(app.home, before).key)
        run_self_check(app, before)
        switch(app.home, before)
        # Where the file cannot be removed, the watcher finds that another release is served.
        with contextlib.suppress(OSError):
            drop_watch(app.home)
    return before
