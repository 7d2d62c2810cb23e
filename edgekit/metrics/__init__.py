"""Metrics: aggregate, unit, margin and paired confidence interval of per-sample statistics."""
