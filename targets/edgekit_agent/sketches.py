"""Sketches of inputs, outputs, confidences and latency in constant memory, for monitoring.

Histograms have fixed edges, so that those of several devices and days can be added. A reservoir
(Vitter 1985, algorithm R) keeps some predictions, each with the same probability.
"""

from __future__ import annotations

import bisect
import json
import math
import random
import threading
from typing import TYPE_CHECKING, Any, Dict, List, Mapping, Optional

from edgekit_agent.files import write_atomic

if TYPE_CHECKING:
    from numpy.typing import NDArray

VERSION = 1
# Values of an array that are looked at for each prediction, evenly spaced.
LOOKED_AT = 64
# Halves of octaves from 2^-12 to 2^16 on both sides of zero.
_STEPS = [2.0 ** (place / 2) for place in range(-24, 33)]
VALUE_EDGES = [*(-edge for edge in reversed(_STEPS)), 0.0, *_STEPS]
CONFIDENCE_EDGES = [place / 20 for place in range(1, 20)]
# Steps of a quarter of an octave from 1/64 ms to 2^17 ms.
LATENCY_EDGES = [2.0 ** (place / 4) for place in range(-24, 69)]
_KEPT, _SEED = 100, 0
_MOST_LABELS, _MOST_TEXT = 1000, 60


class Histogram:
    """Counts of numbers between fixed edges, with their number, sum and sum of squares."""

    def __init__(self, edges: List[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.count, self.total, self.squares = 0, 0.0, 0.0
        self._array: Any = None
        self._counts: Any = None

    def add(self, value: float) -> None:
        """Count a number."""
        self.counts[bisect.bisect_right(self.edges, value)] += 1
        self.count += 1
        self.total += value
        self.squares += value * value

    def add_array(self, values: NDArray[Any]) -> None:
        """Count up to ``LOOKED_AT`` values of an array, evenly spaced."""
        import numpy as np

        if self._array is None:
            self._array = np.array(self.edges)
            self._counts = np.zeros(len(self.counts), np.int64)
        flat = values.reshape(-1)
        chosen = flat[:: max(1, flat.size // LOOKED_AT)][:LOOKED_AT].astype(np.float64)
        places = self._array.searchsorted(chosen, "right")
        self._counts += np.bincount(places, minlength=len(self.counts))
        self.count += chosen.size
        self.total += float(chosen.sum())
        self.squares += float(chosen.dot(chosen))

    def list_counts(self) -> List[int]:
        """Return the number of values before the first edge, between edges, and from the last."""
        if self._counts is None:
            return list(self.counts)
        return [one + other for one, other in zip(self.counts, self._counts.tolist())]

    def to_json(self) -> Dict[str, Any]:
        """Return the counts that are not zero by their place, and the moments."""
        counts = {str(place): count for place, count in enumerate(self.list_counts()) if count}
        moments = {"sum": _to_finite(self.total), "squares": _to_finite(self.squares)}
        return {"count": self.count, **moments, "counts": counts}


class Sketches:
    """Sketches of all predictions of a session; several threads may add to them."""

    def __init__(self) -> None:
        self.inputs: Dict[str, Histogram] = {}
        self.outputs: Dict[str, Histogram] = {}
        self.confidence = Histogram(CONFIDENCE_EDGES)
        self.latency_ms = Histogram(LATENCY_EDGES)
        self.labels: Dict[str, int] = {}
        self.count = 0
        self._reservoir: List[Dict[str, Any]] = []
        self._random = random.Random(_SEED)
        self._lock = threading.Lock()

    def add(
        self,
        inputs: Mapping[str, NDArray[Any]],
        outputs: Mapping[str, NDArray[Any]],
        answer: Mapping[str, Any],
    ) -> None:
        """Add one prediction.

        Args:
            inputs: inputs of the model.
            outputs: outputs of the model.
            answer: the answer, with its confidence and time.
        """
        with self._lock:
            for arrays, known in ((inputs, self.inputs), (outputs, self.outputs)):
                for name, values in arrays.items():
                    if values.size:
                        _find(known, name).add_array(values)
            confidence: Optional[float] = answer["confidence"]
            if confidence is not None and math.isfinite(confidence):
                self.confidence.add(confidence)
            self.latency_ms.add(answer["ms"])
            label = answer["result"] if answer["kind"] == "class" else None
            if label is not None:
                self._count_label(str(label)[:_MOST_TEXT])
            self._keep({"label": label, "confidence": confidence, "ms": answer["ms"]})

    def to_json(self) -> Dict[str, Any]:
        """Return everything as JSON values."""
        with self._lock:
            return {
                "version": VERSION,
                "count": self.count,
                "edges": {
                    "values": VALUE_EDGES,
                    "confidence": CONFIDENCE_EDGES,
                    "latency_ms": LATENCY_EDGES,
                },
                "inputs": {name: each.to_json() for name, each in self.inputs.items()},
                "outputs": {name: each.to_json() for name, each in self.outputs.items()},
                "confidence": self.confidence.to_json(),
                "latency_ms": self.latency_ms.to_json(),
                "labels": dict(self.labels),
                "sample": list(self._reservoir),
            }

    def save(self, path: str) -> None:
        """Write everything as one JSON file, whole or not at all."""
        write_atomic(path, json.dumps(self.to_json(), allow_nan=False).encode() + b"\n")

    def _count_label(self, label: str) -> None:
        if label in self.labels or len(self.labels) < _MOST_LABELS:
            self.labels[label] = self.labels.get(label, 0) + 1

    def _keep(self, record: Dict[str, Any]) -> None:
        """Keep a record with the probability that each one has."""
        self.count += 1
        if len(self._reservoir) < _KEPT:
            self._reservoir.append({"number": self.count, **record})
            return
        place = self._random.randrange(self.count)
        if place < _KEPT:
            self._reservoir[place] = {"number": self.count, **record}


def _find(known: Dict[str, Histogram], name: str) -> Histogram:
    if name not in known:
        known[name] = Histogram(VALUE_EDGES)
    return known[name]


def _to_finite(value: float) -> Optional[float]:
    return value if math.isfinite(value) else None
