"""``config.json`` of the page of a web app."""

from __future__ import annotations

import json
from collections.abc import Mapping

from edgekit.bundle.bundle_file import Bundle
from edgekit.packaging.app_settings import AppSettings


def encode_page_config(
    settings: AppSettings, bundles: Mapping[str, Bundle], *, backend: str, **further: object
) -> bytes:
    """Return the bytes of config.json."""
    config = {
        "name": settings.name,
        "title": settings.ui.title or settings.title or settings.name,
        "version": settings.version,
        "input": settings.input,
        "camera": settings.permissions.camera,
        "microphone": settings.permissions.microphone,
        "notice": settings.ui.notice,
        "accuracy": settings.ui.accuracy,
        "model": [{"name": bundle.manifest.name} for bundle in bundles.values()],
        "language": settings.ui.language,
        "backend": backend,
        **further,
    }
    return json.dumps(config, indent=1, sort_keys=True).encode() + b"\n"
