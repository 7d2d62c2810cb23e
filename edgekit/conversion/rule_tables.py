"""Merge of the tables of conversion rules, one for each group of operators."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

R = TypeVar("R")


def merge_rule_tables(*tables: Mapping[str, R]) -> dict[str, R]:
    """Merge tables of rules by operator into one.

    Raises:
        ValueError: two tables have a rule for the same operator.
    """
    merged: dict[str, R] = {}
    for table in tables:
        twice = sorted(merged.keys() & table.keys())
        if twice:
            raise ValueError(f"more than one conversion rule for {', '.join(twice)}")
        merged.update(table)
    return merged
