"""Page of the device profiles that come with edgekit, with the sources of their figures."""

from __future__ import annotations

from docs.generate.markdown import make_page, make_table
from edgekit.config.profile import list_shipped_names, load_profile, read_profile_text

INTRODUCTION = """
`edgekit devices` lists these profiles, `edgekit devices show NAME` prints one. A budget that is not
measured is derived; the comment in its line says from what. Change the budgets in a copy of the
profile: [Write a device profile](../how-to/device-profile.md). [The fields](device-profile.md) are
the same in all profiles.
"""


def render() -> str:
    """Render the page."""
    profiles = [load_profile(name) for name in list_shipped_names()]
    rows = [
        [
            f"[`{p.name}`](#{p.name})",
            p.summary,
            p.hardware.arch,
            f"{p.hardware.memory_mib} MiB",
            ", ".join(f"{name} {spec.version}" for name, spec in p.runtimes.items()),
        ]
        for p in profiles
    ]
    table = make_table(["profile", "device", "architecture", "memory", "runtimes"], rows)
    parts = [f"## {p.name}\n\n```toml\n{read_profile_text(p.name).strip()}\n```" for p in profiles]
    return make_page("Devices", INTRODUCTION, table, *parts)
