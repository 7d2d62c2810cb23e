"""Facts of a bundle that decide how an app feeds its model and shows its answers."""

from __future__ import annotations

from edgekit.bundle.bundle_file import Bundle
from edgekit.packaging.app_settings import InputKind

_DETECTORS = ("yolox", "yolov5", "yolov8", "distances", "boxes")


def get_input_kind(bundle: Bundle) -> InputKind:
    """Return what the user of an app gives to a model."""
    ranks = {len(tensor.shape) for tensor in bundle.manifest.inputs}
    return "image" if 4 in ranks else "form"


def get_answer(bundle: Bundle) -> str:
    """Return the kind of a model's answer, such as ``class``."""
    table = bundle.manifest.postprocess or {}
    if table.get("kind") in _DETECTORS:
        return "boxes"
    return "class" if bundle.manifest.metric in ("top1", "top5", "binary") else "values"


def list_form_fields(bundle: Bundle) -> tuple[str, ...]:
    """Return the names of the values of a row that a model takes, in their order."""
    del bundle
    return ()
