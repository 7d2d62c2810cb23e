"""Bill of materials of a package, in the JSON form of CycloneDX 1.6."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from edgekit.bundle.manifest import Manifest
from edgekit.packaging.licenses import WheelLicense
from edgekit.packaging.lock_file import LockedWheel
from edgekit.version import __version__


def encode_sbom(
    *,
    name: str,
    version: str,
    wheels: Sequence[tuple[LockedWheel, WheelLicense, tuple[str, ...]]],
    models: Mapping[str, Manifest],
    app_files: Mapping[str, bytes],
) -> bytes:
    """Return the bytes of sbom.cdx.json, the same for the same package.

    Args:
        name: Name of the app.
        version: Version of the app.
        wheels: Facts, license and left-out files of each wheel.
        models: Manifests of the models by name.
        app_files: Files of the app folder by path.
    """
    app = f"{name}@{version}"
    components = [_describe_agent()]
    components += [_describe_model(key, models[key]) for key in sorted(models)]
    components += [_describe_wheel(*each) for each in sorted(wheels, key=lambda w: w[0].name)]
    components += [
        {
            "type": "file",
            "bom-ref": f"app/{path}",
            "name": f"app/{path}",
            "hashes": [_hash(hashlib.sha256(app_files[path]).hexdigest())],
        }
        for path in sorted(app_files)
    ]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": app, "name": name, "version": version},
        },
        "components": components,
        "dependencies": [
            {"ref": app, "dependsOn": sorted(c["bom-ref"] for c in components)},
        ],
    }
    return json.dumps(document, indent=1).encode() + b"\n"


def _describe_agent() -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"pkg:pypi/edgekit@{__version__}",
        "name": "edgekit",
        "version": __version__,
        "description": "The device side of edgekit: installer, server and pages",
        "licenses": [{"license": {"id": "Apache-2.0"}}],
        "purl": f"pkg:pypi/edgekit@{__version__}",
    }


def _describe_model(key: str, manifest: Manifest) -> dict[str, Any]:
    return {
        "type": "machine-learning-model",
        "bom-ref": f"models/{key}",
        "name": f"{key}: {manifest.name}",
        "hashes": [_hash(manifest.file(manifest.model).digest)],
        "properties": [
            {"name": "edgekit:runtime", "value": manifest.runtime.name},
            {"name": "edgekit:source-digest", "value": manifest.source_digest},
        ],
    }


def _describe_wheel(
    wheel: LockedWheel, license_: WheelLicense, left_out: tuple[str, ...]
) -> dict[str, Any]:
    purl = f"pkg:pypi/{wheel.name}@{wheel.version}"
    described: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": wheel.name,
        "version": wheel.version,
        "hashes": [_hash(wheel.sha256)],
        "purl": purl,
        "properties": [{"name": "edgekit:wheel", "value": wheel.file}],
    }
    if license_.is_expression:
        described["licenses"] = [{"expression": license_.name}]
    elif license_.name:
        described["licenses"] = [{"license": {"name": license_.name}}]
    if left_out:
        value = ", ".join(left_out)
        described["properties"].append({"name": "edgekit:left-out", "value": value})
    return described


def _hash(digest: str) -> dict[str, str]:
    return {"alg": "SHA-256", "content": digest}
