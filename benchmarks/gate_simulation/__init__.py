"""Simulation of the gate: how often it passes models whose true loss is known."""
