"""Request of a package: the app's settings and files, and a bundle for each of its models."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib.resources.abc import Traversable
from pathlib import Path

from edgekit.bundle.bundle_file import Bundle
from edgekit.bundle.manifest import MANIFEST, SUFFIX
from edgekit.errors import UserError, reason
from edgekit.packaging.app_settings import (
    APP_FILE,
    WEB_ENTRY,
    AppSettings,
    check_name,
    load_app,
)
from edgekit.packaging.bundle_facts import get_input_kind, list_form_fields
from edgekit.packaging.lock_file import LOCK_FILE
from edgekit.packaging.templates import (
    TEMPLATE_INPUTS,
    check_template,
    find_template,
    make_app_name,
)

MAIN_MODEL = "main"
_MOST_NAMED = 12
_MOST_APP_BYTES = 1 << 30
# Folders that an app folder may hold beside its files.
_OUTPUTS = {"__pycache__", "node_modules"}


@dataclass(frozen=True, kw_only=True)
class PackageRequest:
    """An app to package.

    Attributes:
        settings: Settings of the app.
        files: Files of the app folder by their paths in it.
        bundles: Bundles of the models by name.
        folder: The app folder; ``None`` = an app of defaults.
    """

    settings: AppSettings
    files: dict[str, bytes]
    bundles: dict[str, Bundle]
    folder: Path | None = None


def make_default_request(
    bundle: Bundle, *, name: str | None, template: str | None
) -> PackageRequest:
    """Return a request for an app of one model, with the code of a template if one is named.

    Args:
        bundle: Bundle of the model, which names the app too.
        name: Name of the app; that of the bundle unless given.
        template: Name of a template.

    Raises:
        UserError: There is no such template, or it is for other models.
    """
    files: dict[str, bytes] = {}
    kind = get_input_kind(bundle)
    if template is not None:
        source = find_template(template)
        check_template(template, bundle)
        files = dict(_iter_template(source))
        kind = TEMPLATE_INPUTS.get(template, kind)
    app_name = name or make_app_name(bundle.manifest.name)
    values = {
        "schema": 1,
        "name": app_name,
        "version": "1.0.0",
        "title": app_name.replace("-", " ").capitalize(),
        "input": kind,
        "permissions": {"camera": kind == "image", "microphone": kind == "audio"},
    }
    if template is not None:
        is_watch = template == "folder-watch"
        values["background" if is_watch else "entry"] = "app:watch" if is_watch else "app:answer"
    check_name(app_name)
    settings = AppSettings.model_validate(values)
    return PackageRequest(settings=settings, files=files, bundles={MAIN_MODEL: bundle})


def _iter_template(source: Traversable) -> Iterator[tuple[str, bytes]]:
    for entry in sorted(source.iterdir(), key=lambda e: e.name):
        if entry.is_file() and entry.name != APP_FILE and not entry.name.startswith("."):
            yield entry.name, entry.read_bytes()


def read_app_folder(folder: Path, *, name: str | None) -> PackageRequest:
    """Read the settings and the files of an app folder; the bundles are added by the caller.

    Raises:
        UserError: The folder cannot be read, or its settings are wrong.
    """
    settings = load_app(folder)
    if name is not None:
        check_name(name)
        settings = settings.model_copy(update={"name": name})
    files: dict[str, bytes] = {}
    total = 0
    try:
        for path in _iter_files(folder):
            total += path.stat().st_size
            if total > _MOST_APP_BYTES:
                raise UserError(f"{folder}: its files are larger than 1 GiB in all")
            files[path.relative_to(folder).as_posix()] = path.read_bytes()
    except OSError as error:
        raise UserError(f"{folder}: {error.filename}: {reason(error)}") from error
    return PackageRequest(settings=settings, files=files, bundles={}, folder=folder)


def check_not_replaced(request: PackageRequest, out: Path) -> None:
    """Check that the package does not take the place of a file that it is made of.

    Raises:
        UserError: It would.
    """
    if request.folder is None:
        return
    read = (request.folder / path for path in (APP_FILE, LOCK_FILE, *request.files))
    if any(path.exists() and out.exists() and path.samefile(out) for path in read):
        raise UserError(f"{out}: is a file of the app", hint="choose another file: -o FILE")


def _iter_files(folder: Path) -> Iterator[Path]:
    """Yield the files of an app folder, without hidden ones, outputs, bundles and the lock.

    Raises:
        UserError: There is a link: it would bring files that are not in the folder.
    """
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        path = Path(entry.path)
        if entry.name.startswith(".") or entry.name in _OUTPUTS:
            continue
        is_bundle = (path / MANIFEST).is_file()
        if entry.is_symlink() and not is_bundle and _is_app_file(entry.name):
            raise UserError(
                f"{path}: is a link, which packages do not follow",
                hint="copy what it names into the app folder, or remove it",
            )
        if entry.is_dir():
            if not is_bundle:
                yield from _iter_files(path)
        elif entry.is_file() and _is_app_file(entry.name):
            yield path


def _is_app_file(name: str) -> bool:
    return name != LOCK_FILE and not name.endswith((".pyc", SUFFIX, ".run", ".deb", ".part"))


def name_bundles(
    settings: AppSettings, bundles: Sequence[tuple[str | None, Bundle]]
) -> dict[str, Bundle]:
    """Return bundles of the command line by the names of the models that they are.

    A bundle without a name of its own is the app's only model, or the model of its own name.

    Raises:
        UserError: It is unclear which model a bundle is, or two are the same one.
    """
    found: dict[str, Bundle] = {}
    for given, bundle in bundles:
        name = given or _choose_name(settings, bundle, len(bundles))
        if name in found:
            raise UserError(
                f"two bundles are the model {name!r}",
                hint="name them: edgekit package NAME=BUNDLE NAME=BUNDLE",
            )
        found[name] = bundle
    return found


def _choose_name(settings: AppSettings, bundle: Bundle, count: int) -> str:
    if count == 1 and len(settings.models) <= 1:
        return next(iter(settings.models), MAIN_MODEL)
    name = make_app_name(bundle.manifest.name)
    if settings.models and name not in settings.models:
        raise UserError(
            f"{bundle.path}: which of the models {', '.join(settings.models)} is it?",
            hint=f"name it: edgekit package {next(iter(settings.models))}={bundle.path}",
        )
    return name


def use_bundles(request: PackageRequest, bundles: dict[str, Bundle]) -> PackageRequest:
    """Return a request with bundles, in the order of the names.

    Raises:
        UserError: Several models need an entry that combines them; a form without one has other
            fields than the model.
    """
    if len(bundles) > 1 and request.settings.entry is None:
        raise UserError(
            f"{request.folder / APP_FILE if request.folder else APP_FILE}: entry: missing, and "
            f"{len(bundles)} models need a function that combines them"
        )
    if not (request.settings.entry or WEB_ENTRY in request.files):
        _check_form(request.settings, next(iter(bundles.values())))
    return replace(request, bundles={name: bundles[name] for name in sorted(bundles)})


def _check_form(settings: AppSettings, bundle: Bundle) -> None:
    """Check that the model takes every row that the form sends, as no entry changes it."""
    names, fields = list_form_fields(bundle), {field.name: field for field in settings.ui.fields}
    if not (fields and names):
        return
    where = f"{APP_FILE}: ui.fields"
    for name, field in fields.items():
        if name not in names:
            raise UserError(f"{where}: the model has no field {name!r}", hint=_list(names))
        texts = [value for value in (field.value, *field.choices) if isinstance(value, str)]
        if texts or field.optional:
            told = f"the text {texts[0]!r}" if texts else "a row without it"
            raise UserError(
                f"{where}: {name}: the model does not take {told}",
                hint="write an 'entry' that turns it into a number",
            )
    lacking = [name for name in names if name not in fields]
    if lacking:
        raise UserError(f"{where}: {lacking[0]!r} of the model is missing", hint=_list(names))


def _list(names: Iterable[str]) -> str:
    shown = list(names)
    more = ", ..." if len(shown) > _MOST_NAMED else ""
    return f"its fields are {', '.join(shown[:_MOST_NAMED])}{more}"
