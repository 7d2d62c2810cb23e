"""Jobs about homes that may hold an app; the code of apps is loaded only where one does.

So the agent starts as fast as before on devices that hold models alone.
"""

from __future__ import annotations

from edgekit_agent.jobs import PackageJob, PackagePlanJob, RollbackJob, StatusJob, UninstallJob
from edgekit_agent.releases.current import is_app
from edgekit_agent.releases.homes import open_home
from edgekit_agent.releases.install import AskHealth, rollback, status
from edgekit_agent.results import PackagePlan, Status, UninstallResult
from edgekit_agent.wire import Progress


def choose_status(job: StatusJob, ask_health: AskHealth) -> Status:
    """Report the state of a home; check the served release if asked, also that of an app."""
    home = open_home(job.home, job.app)
    # After a wait, the home may hold an app that it does not hold yet.
    if job.check and (is_app(home) or (home.app and job.wait_s)):
        from edgekit_agent.apps.remote_jobs import report_status

        return report_status(job, ask_health)
    return status(job, ask_health)


def choose_rollback(job: RollbackJob, ask_health: AskHealth) -> Status:
    """Serve the previous release of a home, which may be an app."""
    if is_app(open_home(job.home, job.app)):
        from edgekit_agent.apps.remote_jobs import roll_back_app

        return roll_back_app(job)
    return rollback(job, ask_health)


def uninstall_home(job: UninstallJob) -> UninstallResult:
    """Remove a named home; of an app, also its processes, its unit and its command."""
    from edgekit_agent.apps import remote_jobs

    return remote_jobs.uninstall_home(job)


def plan_package(job: PackagePlanJob) -> PackagePlan:
    """Check that this device can run a package, and report the members that it lacks."""
    from edgekit_agent.apps import remote_jobs

    return remote_jobs.plan_package(job)


def install_received(job: PackageJob, progress: Progress) -> Status:
    """Install a package from received members, check it, and switch its app to it."""
    from edgekit_agent.apps import remote_jobs

    return remote_jobs.install_received(job, progress)
