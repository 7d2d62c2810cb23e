"""Size of the cache, and removal of its entries."""

from edgekit.cache.maintenance import Removal, Usage, clear, measure_usage, prune

__all__ = ["Removal", "Usage", "clear", "measure_usage", "prune"]
