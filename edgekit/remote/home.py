"""Edgekit's folder on a device, as the user or a device profile sets it; a bundle never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.config.profile import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class Home:
    """Edgekit's folder on a device.

    Attributes:
        path: the folder; empty = the device chooses it.
        rule: ``said``: set by the user, overrides ``EDGEKIT_HOME`` on the device; ``inside``: set
            by a profile, must lie in the user's home on the device; ``any``: has no such limit.
            ``EDGEKIT_HOME`` on the device overrides ``inside`` and ``any``.
    """

    path: str = ""
    rule: Literal["said", "inside", "any"] = "any"


DEFAULT = Home()


def profile_home(profile: DeviceProfile | None) -> Home:
    """Return the home that the user's own profile of a device sets, else the default."""
    return Home(path=profile.connection.home, rule="inside") if profile else DEFAULT
