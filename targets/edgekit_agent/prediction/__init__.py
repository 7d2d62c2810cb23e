"""Prediction for one sample after the other: inputs, runs, answers, and sketches of all of them."""
