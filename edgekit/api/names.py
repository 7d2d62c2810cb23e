"""Names that a shell completes; each list loads what it needs alone."""

from __future__ import annotations


def list_pass_names() -> list[str]:
    """List the names of all passes."""
    from edgekit.compression import all_passes

    return all_passes.list_pass_names()


def list_profile_names() -> list[str]:
    """List the names of the device profiles."""
    from edgekit.config import profile

    return profile.list_profile_names()


def list_example_names() -> list[str]:
    """List the names of the examples."""
    from edgekit.pipeline import example

    return [each.name for each in example.list_examples()]
