"""The device profiles that come with edgekit, and those of users."""

from __future__ import annotations

from edgekit.config.profile import (
    DeviceProfile,
    list_profile_names,
    load_profile,
    read_profile,
    read_profile_text,
)

__all__ = ["list_devices", "load_profile", "read_profile", "read_profile_text"]


def list_devices() -> list[DeviceProfile]:
    """List the device profiles that come with edgekit and with plugins.

    Returns:
        The profiles, those of plugins last. Attributes of a profile: ``name``; ``summary``;
        ``hardware``; ``runtimes`` by name; ``budget``, the limits of a model there; ``connection``.
        Each can be given as ``device`` to the other functions.

    Examples:
        >>> import edgekit
        >>> "tablet" in [profile.name for profile in edgekit.list_devices()]
        True
    """
    return [load_profile(name) for name in list_profile_names()]
