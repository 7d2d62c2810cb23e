"""Everything that requests are answered from: the package, its models, its page and its state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Callable, Dict, Mapping

from edgekit_agent.apps.package_format import Package
from edgekit_agent.apps.serving.pages import Asset
from edgekit_agent.apps.serving.predictor import Predictor

# A release is served only after its golden samples gave the outputs of the original here.
CHECKED = {"state": "same"}


@dataclass(frozen=True)
class ServedApp:
    """A served release.

    Attributes:
        package: its statement.
        predictor: answers samples.
        assets: files of the page, by their paths in a URL.
        documents: functions that return a JSON object, by the path in a URL.
    """

    package: Package
    predictor: Predictor
    assets: Mapping[str, Asset]
    documents: Mapping[str, Callable[[], Dict[str, Any]]]


def make_served_app(
    package: Package, predictor: Predictor, assets: Mapping[str, Asset], state: Mapping[str, Any]
) -> ServedApp:
    """Return a served release whose ``/health`` tells a state, and if the models are loaded."""

    def describe_health() -> Dict[str, Any]:
        problem = predictor.problem
        told = {"problem": problem} if problem else {}
        return {**state, "ready": predictor.is_ready, "check": CHECKED, **told}

    def describe_page() -> Dict[str, Any]:
        return {
            "name": package.name,
            "title": package.title,
            "version": package.version,
            "input": package.input,
        }

    documents = {"/health": describe_health}
    if "/config.json" not in assets:
        documents["/config.json"] = describe_page
    return ServedApp(package, predictor, assets, documents)
