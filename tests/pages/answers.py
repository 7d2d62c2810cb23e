"""Answers of an app, of each kind, as ``edgekit_agent`` gives them."""

from __future__ import annotations

TIMINGS = {"preprocess": 4.1, "run": 27.8, "postprocess": 0.3}


def make_answer(kind: str, result, confidence=None, **more) -> dict:
    """Make the answer of one prediction."""
    return {
        **{"kind": kind, "result": result, "confidence": confidence},
        **{"ms": 32.2, "timings": TIMINGS},
        **more,
    }


def make_class(*rows: tuple[str, float]) -> dict:
    """Make a class answer of labels and confidences, the best first."""
    classes = [
        {"label": label, "index": index, "confidence": share}
        for index, (label, share) in enumerate(rows)
    ]
    return make_answer("class", rows[0][0], rows[0][1], classes=classes)


def make_boxes(*rows: tuple[str, int, float, list[float]]) -> dict:
    """Make a detector's answer of label, index, confidence and corners."""
    boxes = [
        {"label": label, "index": index, "confidence": share, "box": box}
        for label, index, share, box in rows
    ]
    return make_answer("boxes", boxes, boxes[0]["confidence"] if boxes else None)


PNEUMONIA = make_class(("PNEUMONIA", 0.934), ("NORMAL", 0.066))
DOGS = make_boxes(
    ("dog", 16, 0.91, [40, 60, 200, 220]),
    ("person", 0, 0.84, [220, 20, 300, 230]),
    ("dog", 16, 0.42, [5, 150, 60, 230]),
)
MASK = make_answer(
    "mask",
    {
        "width": 4,
        "height": 2,
        "classes": [
            {"label": "road", "index": 3, "share": 0.5},
            {"label": "sky", "index": 0, "share": 0.375},
            {"label": "tree", "index": 5, "share": 0.125},
        ],
        "runs": [0, 3, 5, 1, 3, 4],
    },
)
TEXT = make_answer("text", "Take 2 tablets\ndaily", 0.87)
DECISIONS = make_answer(
    "decisions",
    [
        {"from_s": 0.0, "to_s": 0.8, "label": "silence", "confidence": 0.99},
        {"from_s": 0.8, "to_s": 2.4, "label": "speech", "confidence": 0.93},
        {"from_s": 2.4, "to_s": 3.0, "label": "silence", "confidence": 0.88},
    ],
)
VALUES = make_answer("values", {"price": [[2.53174]]})
EMBEDDING = make_answer("values", {"embedding": [[i / 7 for i in range(256)]]})
LONG = "Malignant neoplasm of overlapping sites of bronchus and lung, unspecified, "
FIFTY = make_class(*[(f"{LONG}variant {n}", 0.9 / 2**n) for n in range(50)])
EMPTY = {
    "labels": make_answer("labels", []),
    "boxes": make_boxes(),
    "text": make_answer("text", "", None),
    "decisions": make_answer("decisions", []),
    "values": make_answer("values", {}),
    "mask": make_answer("mask", {"width": 0, "height": 0, "classes": [], "runs": []}),
}


def place_cell(n: int) -> tuple[str, int, float, list[float]]:
    left, top = 20 * (n % 20), 15 * (n // 20)
    return (f"cell type {n % 9}", n % 9, 0.99 - n / 400, [left, top, left + 17, top + 12])


CROWD = make_boxes(*map(place_cell, range(300)))
