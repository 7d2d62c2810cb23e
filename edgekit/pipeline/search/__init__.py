"""Search for recipes whose candidates meet all budgets."""
