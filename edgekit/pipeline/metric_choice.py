"""Choice of the accuracy metric where neither the user nor edgekit.toml names one."""

from __future__ import annotations

from edgekit.model import Signature


def choose_default_metric(signature: Signature, output: str | None) -> str:
    """Return ``binary`` if an output holds a single value per sample, else ``top1``."""
    spec = next((o for o in signature.outputs if o.name == output), signature.outputs[0])
    sizes = [d for d in spec.shape[1:] if isinstance(d, int)]
    single = len(sizes) == len(spec.shape) - 1 and all(d == 1 for d in sizes)
    return "binary" if single else "top1"
