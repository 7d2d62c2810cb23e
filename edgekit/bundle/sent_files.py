"""Statement of the files that a command sends to a device, and of the real samples in them."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.bundle.manifest import MANIFEST, Manifest
from edgekit.bundle.package_file import AppPackage


@dataclass(frozen=True, kw_only=True)
class SentFiles:
    """Files that are sent unless the device has them, besides edgekit's agent and a runtime.

    Attributes:
        names: The files.
        real_samples: Files with samples of the user's data, and what they hold; empty if there
            are none.
    """

    names: tuple[str, ...]
    real_samples: str = ""

    def __str__(self) -> str:
        """Return one line for the user."""
        held = self.real_samples or "no real samples are among them"
        return f"sends {', '.join(self.names)}; {held}"


def list_sent_files(manifest: Manifest) -> SentFiles:
    """List the files of a bundle that a device gets."""
    names = (*(file.name for file in manifest.files), MANIFEST)
    return SentFiles(names=names, real_samples=describe_golden_samples(manifest))


def list_package_files(package: AppPackage) -> SentFiles:
    """List the members of the package of an app that a device gets."""
    stated = package.package
    names = (f"{len(stated.files)} files of {stated.name} {stated.version}",)
    samples = ", ".join(package.real_samples)
    held = f"{samples}: coarse copies of real samples" if samples else ""
    return SentFiles(names=names, real_samples=held)


def describe_golden_samples(manifest: Manifest) -> str:
    """Return what the golden samples hold of real samples; empty if nothing."""
    if manifest.golden_kind == "synthetic":
        return ""
    return f"{manifest.golden_samples} holds coarse copies of two real samples"
