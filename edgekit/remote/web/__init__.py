"""Browsers: the runtime that runs models in them, and headless Chromium as a device."""
