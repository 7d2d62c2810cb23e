"""Damaged and hostile inputs of every kind, taken or refused in one line."""
