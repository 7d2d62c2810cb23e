"""Preprocessing of files: images, sounds, texts and rows as inputs of a model, on any machine.

The build reads its samples with the same code as an application on the device.
"""
