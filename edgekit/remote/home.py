"""Edgekit's folder on a device, as the user or a device profile sets it; a bundle never does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgekit.profile import DeviceProfile


@dataclass(frozen=True, kw_only=True)
class Home:
    """Edgekit's folder on a device.

    Attributes:
        path: the folder; empty for the device's own choice.
        rule: ``said``: by the user, before ``EDGEKIT_HOME`` there; ``inside``: by a profile, only
            below the user's home there; ``any``: only where ``EDGEKIT_HOME`` is not set.
    """

    path: str = ""
    rule: Literal["said", "inside", "any"] = "any"


DEFAULT = Home()


def profile_home(profile: DeviceProfile | None) -> Home:
    """Return the home that the user's own profile of a device names."""
    return Home(path=profile.connection.home, rule="inside") if profile else DEFAULT
