"""Examples for the report: samples that a candidate changes, with the answers of both models."""
