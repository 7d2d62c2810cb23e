"""All files of a web app, assembled in memory."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from edgekit.bundle.bundle_file import Bundle
from edgekit.config.shipped_files import get_shipped_folder, iter_files
from edgekit.errors import UserError
from edgekit.packaging.app_settings import APP_FILE, WEB_ENTRY, AppSettings
from edgekit.packaging.page_config import encode_page_config
from edgekit.packaging.templates import list_templates
from edgekit.packaging.web.models import make_model_files
from edgekit.packaging.web.service_worker import SERVICE_WORKER, make_service_worker
from edgekit.progress import Tick
from edgekit.remote.web.runtime_files import WebRuntime

MANIFEST = "manifest.webmanifest"
BACKEND = "./backend-web.js"
CONFIG = "config.json"
# Files of an app folder below this folder replace those of the page, or come beside them.
PAGES = "pages/"
# Backend of pages that a server answers.
_LEFT_OUT = frozenset({"backend-http.js"})
_BACKGROUND, _THEME = "#ffffff", "#1f4e79"


@dataclass(frozen=True, kw_only=True)
class WebApp:
    """A web app, ready to be written.

    Attributes:
        release: Name of the release.
        files: Bytes by path, with ``/``.
        sources: Bundle or file of the user that a file comes from, by path.
        notes: Remarks for the user.
    """

    release: str
    files: Mapping[str, bytes]
    sources: Mapping[str, str]
    notes: tuple[str, ...]


def assemble_web_app(
    settings: AppSettings,
    app_files: Mapping[str, bytes],
    bundles: Mapping[str, Bundle],
    runtime: WebRuntime,
    *,
    tick: Tick,
) -> WebApp:
    """Assemble the files of a web app.

    Args:
        settings: Settings of the app.
        app_files: Files of the app folder by path.
        bundles: Bundles of the models by name.
        runtime: Files of onnxruntime-web.
        tick: Called with a stage, the amount done and the total.

    Raises:
        UserError: The app or one of its models cannot run in a browser.
    """
    entry = _choose_entry(settings, app_files)
    sources: dict[str, str] = {}
    files = dict(iter_files(get_shipped_folder("targets/pages")))
    files |= iter_files(get_shipped_folder("targets/web/app"))
    files |= {f"edgekit/{n}": d for n, d in iter_files(get_shipped_folder("targets/web/edgekit"))}
    files |= {f"runtime/{name}": data for name, data in runtime.files.items()}
    models = []
    for number, (name, bundle) in enumerate(bundles.items()):
        tick("packing the models", number, len(bundles))
        made, model = make_model_files(bundle)
        folder = f"models/{name}"
        files |= {f"{folder}/{each}": data for each, data in made.items()}
        sources |= {f"{folder}/{each}": str(bundle.path) for each in made}
        models.append(
            {"name": name, "folder": folder, "file": model, "bytes": len(made[model])},
        )
    for path, data in app_files.items():
        if path.startswith(PAGES) or path == entry:
            target = path.removeprefix(PAGES)
            files[target], sources[target] = data, path
    files["licenses.txt"] = _write_licenses(runtime)
    files[MANIFEST] = _encode_manifest(settings)
    files[CONFIG] = encode_page_config(
        settings,
        bundles,
        backend=BACKEND,
        manifest=MANIFEST,
        worker=SERVICE_WORKER,
        models=models,
        entry=f"./{entry}" if entry else None,
    )
    kept = {path: files[path] for path in sorted(files) if path not in _LEFT_OUT}
    del kept[SERVICE_WORKER]
    worker, release = make_service_worker(settings.name, kept)
    return WebApp(
        release=release,
        files={**kept, SERVICE_WORKER: worker},
        sources=sources,
        notes=tuple(_iter_notes(settings, entry)),
    )


def _choose_entry(settings: AppSettings, app_files: Mapping[str, bytes]) -> str:
    """Return the module that answers; empty = the answer is that of the only model.

    Raises:
        UserError: The app needs Python code, or a folder to watch.
    """
    if WEB_ENTRY in app_files:
        return WEB_ENTRY
    if settings.background is not None:
        raise UserError(
            f"{APP_FILE}: background: a page cannot run {settings.background!r}",
            hint="package it with --target linux",
        )
    if settings.entry is None or _is_template_code(settings.entry, app_files):
        return ""
    raise UserError(
        f"{APP_FILE}: entry: Python code ({settings.entry}) does not run in a browser",
        hint=f"write it in JavaScript as {WEB_ENTRY} ('export async function answer(models, "
        "sample)'), remove the entry for the model's own answer, or package it with --target linux",
    )


def _is_template_code(entry: str, app_files: Mapping[str, bytes]) -> bool:
    """Return whether the module of an entry is that of a template as it was written."""
    path = entry.partition(":")[0].replace(".", "/") + ".py"
    templates = get_shipped_folder("targets/templates")
    return any(
        (templates / name / path).is_file()
        and (templates / name / path).read_bytes() == app_files.get(path)
        for name in list_templates()
    )


def _iter_notes(settings: AppSettings, entry: str) -> Iterator[str]:
    if settings.entry is not None and not entry:
        yield (
            f"the template's Python code ({settings.entry}) is left out: the page shows the "
            "model's own answer"
        )


def _encode_manifest(settings: AppSettings) -> bytes:
    """Return the web app manifest, by which browsers install the page."""
    title = settings.ui.title or settings.title or settings.name
    icons = [
        {"src": "icons/icon-192.png", "sizes": "192x192", "type": "image/png"},
        {"src": "icons/icon-512.png", "sizes": "512x512", "type": "image/png"},
        {
            "src": "icons/icon-maskable-512.png",
            "sizes": "512x512",
            "type": "image/png",
            "purpose": "maskable",
        },
    ]
    manifest = {
        "id": "./",
        "name": title,
        "short_name": title[:30],
        "lang": settings.ui.language,
        "start_url": "./",
        "scope": "./",
        "display": "standalone",
        "background_color": _BACKGROUND,
        "theme_color": _THEME,
        "icons": icons,
    }
    return json.dumps(manifest, indent=1).encode() + b"\n"


def _write_licenses(runtime: WebRuntime) -> bytes:
    text = (
        "This app was packaged by edgekit (Apache-2.0). It runs its models with onnxruntime-web\n"
        f"{runtime.version} ({runtime.license}), whose npm archive has the hash\n"
        f"{runtime.integrity}.\n"
    )
    return text.encode()
