"""edgekit: compression of trained models for small devices, with proof of the result.

The functions are those of the command line. They take paths as text or ``Path``, return typed
results, print nothing, and raise errors that derive from ``EdgekitError``. A function, with what it
needs, is loaded when it is first used.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from edgekit.version import __version__

if TYPE_CHECKING:
    from edgekit.api.apps import fetch, new_app, package
    from edgekit.api.benchmark import bench
    from edgekit.api.builds import build, build_pipeline, report
    from edgekit.api.metrics import list_metrics
    from edgekit.api.models import apply, distil, inspect
    from edgekit.api.passes import list_passes
    from edgekit.api.profiles import list_devices
    from edgekit.api.projects import example, init
    from edgekit.api.releases import open_bundle, probe, push, rollback, status, uninstall
    from edgekit.bundle.bundle_file import Bundle
    from edgekit.bundle.results import Candidate
    from edgekit.compression.pass_specs import PassSpec, Promise, Work
    from edgekit.compression.recipe_parser import PassFacts
    from edgekit.config.profile import DeviceProfile
    from edgekit.config.project import Project
    from edgekit.errors import (
        ArgumentError,
        DeviceError,
        EdgekitError,
        PassCrash,
        PassError,
        PassRefused,
        PluginWarning,
        UnknownStateError,
        UserError,
    )
    from edgekit.inspection.summary import Inspection
    from edgekit.metrics.registry import MetricFacts
    from edgekit.model import Model
    from edgekit.packaging.fetch import FetchReport
    from edgekit.packaging.package import PackageReport
    from edgekit.packaging.templates import NewApp
    from edgekit.packaging.web.web_package import WebReport
    from edgekit.pipeline.apply import ApplyResult
    from edgekit.pipeline.benchmark import BenchResult
    from edgekit.pipeline.build import BuildOutcome
    from edgekit.pipeline.combination.build import PipelineOutcome
    from edgekit.pipeline.example import ExampleProject
    from edgekit.pipeline.init_project import InitResult
    from edgekit.recipe import Recipe, Step
    from edgekit.remote.deploy import PushReport
    from edgekit_agent.results import DeviceFacts, Status, UninstallResult

__all__ = [
    "ApplyResult",
    "ArgumentError",
    "BenchResult",
    "BuildOutcome",
    "Bundle",
    "Candidate",
    "DeviceError",
    "DeviceFacts",
    "DeviceProfile",
    "EdgekitError",
    "ExampleProject",
    "FetchReport",
    "InitResult",
    "Inspection",
    "MetricFacts",
    "Model",
    "NewApp",
    "PackageReport",
    "PassCrash",
    "PassError",
    "PassFacts",
    "PassRefused",
    "PassSpec",
    "PipelineOutcome",
    "PluginWarning",
    "Project",
    "Promise",
    "PushReport",
    "Recipe",
    "Status",
    "Step",
    "UninstallResult",
    "UnknownStateError",
    "UserError",
    "WebReport",
    "Work",
    "__version__",
    "apply",
    "bench",
    "build",
    "build_pipeline",
    "distil",
    "example",
    "fetch",
    "init",
    "inspect",
    "list_devices",
    "list_metrics",
    "list_passes",
    "new_app",
    "open_bundle",
    "package",
    "probe",
    "push",
    "report",
    "rollback",
    "status",
    "uninstall",
]

# Module of each public name; a new name also goes to __all__ and to the imports above.
_MODULES = {
    # functions
    "apply": "edgekit.api.models",
    "bench": "edgekit.api.benchmark",
    "build": "edgekit.api.builds",
    "build_pipeline": "edgekit.api.builds",
    "distil": "edgekit.api.models",
    "example": "edgekit.api.projects",
    "fetch": "edgekit.api.apps",
    "init": "edgekit.api.projects",
    "inspect": "edgekit.api.models",
    "list_devices": "edgekit.api.profiles",
    "list_metrics": "edgekit.api.metrics",
    "list_passes": "edgekit.api.passes",
    "new_app": "edgekit.api.apps",
    "open_bundle": "edgekit.api.releases",
    "package": "edgekit.api.apps",
    "probe": "edgekit.api.releases",
    "push": "edgekit.api.releases",
    "report": "edgekit.api.builds",
    "rollback": "edgekit.api.releases",
    "status": "edgekit.api.releases",
    "uninstall": "edgekit.api.releases",
    # settings and results
    "ApplyResult": "edgekit.pipeline.apply",
    "BenchResult": "edgekit.pipeline.benchmark",
    "BuildOutcome": "edgekit.pipeline.build",
    "Bundle": "edgekit.bundle.bundle_file",
    "Candidate": "edgekit.bundle.results",
    "DeviceFacts": "edgekit_agent.results",
    "DeviceProfile": "edgekit.config.profile",
    "ExampleProject": "edgekit.pipeline.example",
    "FetchReport": "edgekit.packaging.fetch",
    "InitResult": "edgekit.pipeline.init_project",
    "Inspection": "edgekit.inspection.summary",
    "MetricFacts": "edgekit.metrics.registry",
    "Model": "edgekit.model",
    "NewApp": "edgekit.packaging.templates",
    "PackageReport": "edgekit.packaging.package",
    "WebReport": "edgekit.packaging.web.web_package",
    "PassFacts": "edgekit.compression.recipe_parser",
    "PassSpec": "edgekit.compression.pass_specs",
    "PipelineOutcome": "edgekit.pipeline.combination.build",
    "Project": "edgekit.config.project",
    "Promise": "edgekit.compression.pass_specs",
    "PushReport": "edgekit.remote.deploy",
    "Recipe": "edgekit.recipe",
    "Status": "edgekit_agent.results",
    "Step": "edgekit.recipe",
    "UninstallResult": "edgekit_agent.results",
    "Work": "edgekit.compression.pass_specs",
    # errors
    "ArgumentError": "edgekit.errors",
    "DeviceError": "edgekit.errors",
    "EdgekitError": "edgekit.errors",
    "PassCrash": "edgekit.errors",
    "PassError": "edgekit.errors",
    "PassRefused": "edgekit.errors",
    "PluginWarning": "edgekit.errors",
    "UnknownStateError": "edgekit.errors",
    "UserError": "edgekit.errors",
}

# onnxruntime's wheels for Linux report to their maker and leave an identifier in the user's cache,
# unless this is set before they are loaded.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        """Load a public name when it is first used."""
        if name not in _MODULES:
            raise AttributeError(f"module 'edgekit' has no attribute {name!r}")
        from importlib import import_module

        value = getattr(import_module(_MODULES[name]), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        """List the public names."""
        return sorted(__all__)
