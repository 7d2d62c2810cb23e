"""``config.json`` of an app's page."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from edgekit.bundle.bundle_file import Bundle
from edgekit.packaging.app_settings import AppSettings, FormField
from edgekit.packaging.bundle_facts import describe_accuracy, list_form_fields, read_settings

BACKEND_OF_SERVER = "./backend-http.js"


def encode_page_config(
    settings: AppSettings, bundles: Mapping[str, Bundle], *, backend: str, **further: object
) -> bytes:
    """Return the bytes of config.json.

    Args:
        settings: Settings of the app.
        bundles: Bundles of the models by name.
        backend: Module of the page that asks the model.
        further: Further values, such as ``manifest``.
    """
    config: dict[str, Any] = {
        "name": settings.name,
        "title": settings.ui.title or settings.title or settings.name,
        "version": settings.version,
        "input": settings.input,
        "camera": settings.permissions.camera,
        "microphone": settings.permissions.microphone,
        "intro": settings.ui.intro,
        "notice": settings.ui.notice,
        "accuracy": settings.ui.accuracy or _describe_accuracy(bundles),
        "model": [_describe_model(name, bundle) for name, bundle in bundles.items()],
        "language": settings.ui.language,
        "backend": backend,
        **further,
    }
    if settings.input == "form":
        first = next(iter(bundles.values()))
        paths = list_form_fields(first)
        fields = settings.ui.fields or tuple(FormField(name=name) for name in paths)
        config["fields"] = [_describe_field(field, paths) for field in fields]
    if settings.input == "audio":
        config["audio"] = _describe_recordings(bundles)
    return json.dumps(config, indent=1, sort_keys=True).encode() + b"\n"


def _describe_model(name: str, bundle: Bundle) -> dict[str, str]:
    """Return the name of a model in the app, and the start of its sha256, as /health states it."""
    manifest = bundle.manifest
    return {"name": name, "version": manifest.file(manifest.model).digest[:12]}


def _describe_accuracy(bundles: Mapping[str, Bundle]) -> str:
    """Return the accuracy of the only model; the answer of several has none of its own."""
    return describe_accuracy(next(iter(bundles.values()))) if len(bundles) == 1 else ""


def _describe_recordings(bundles: Mapping[str, Bundle]) -> dict[str, float]:
    """Return rate and window of recordings, as the first model of sounds takes them."""
    all_settings = map(read_settings, bundles.values())
    audio = next((each.audio for each in all_settings if each.audio is not None), None)
    if audio is None:
        return {}
    if audio.samples is None or audio.step is not None:
        return {"sample_rate": audio.rate}
    return {"sample_rate": audio.rate, "window_s": audio.samples / audio.rate}


def _describe_field(field: FormField, paths: Mapping[str, tuple[str | int, ...]]) -> dict[str, Any]:
    """Return a field as the page reads it, with its path in the row if that is not its name."""
    described: dict[str, Any] = field.model_dump(exclude_defaults=True)
    path = paths.get(field.name, (field.name,))
    if len(path) > 1:
        described["path"] = path
    return {**described, "type": "choice"} if field.choices else described
