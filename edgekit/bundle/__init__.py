"""Bundles: a model with its manifest and golden samples, packed for transfer."""
