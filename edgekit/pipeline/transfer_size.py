"""Transfer size of a model file: the bytes that are sent to the device."""

from __future__ import annotations

from functools import partial

from edgekit.bundle.packing import encode_for_transfer
from edgekit.cache.store import Store
from edgekit.model import Model
from edgekit.progress import Tick


def compute_transfer_bytes(data: bytes) -> int:
    """Compute the transfer size of a model: packed, or raw if packing saves little."""
    return len(encode_for_transfer(data).data)


def get_transfer_bytes(model: Model, store: Store, tick: Tick) -> int:
    """Compute the transfer size of a model file, or take it from the store: packing is slow.

    Args:
        model: The model. A model of several files is over 2 GiB and is not sent; its size on disk
            is returned.
        store: Store of facts.
        tick: Progress callback.
    """
    if model.beside:
        return model.bytes
    known = store.recall_as("transfers", model.digest, lambda f: int(f["bytes"]))
    if known is None:
        known = len(encode_for_transfer(model.path.read_bytes(), partial(tick, "packing")).data)
        store.remember("transfers", model.digest, {"bytes": known})
    return known
