"""Scores by the eval.py of a folder of tasks, with the parts that resampling needs.

Functions of eval.py are recorded while it runs, so that its score can be computed again with any
weight of each unit. Units are images (detection, segmentation), text lines, identities (pairs of
embeddings), blocks of three seconds (voice activity), rows (regression), sequences (language
models), samples (classifiers) and clips (anomaly detection).
"""

from __future__ import annotations

import importlib.util
import math
import types
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.task_intervals import Array, Evaluation
from benchmarks.task_metrics import match, mean_iou, mean_precision, ratio, weighted_auc

_BLOCK_SECONDS = 3.0
_SAMPLES_A_SECOND = 16000


class Run:
    """Run of eval.py on a model file, in a separate module whose functions are recorded."""

    def __init__(self, home: Path, facts: Mapping[str, Any], model: Path) -> None:
        spec = importlib.util.spec_from_file_location("task_eval", home / "eval.py")
        if spec is None or spec.loader is None:
            raise FileNotFoundError(home / "eval.py")
        self.module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(self.module)
        self.folder, self.facts = home / str(facts["name"]), facts
        self.model = self.module.open_model(str(model), 1)

    def record(self, name: str) -> list[tuple[tuple[Any, ...], Any]]:
        """Record arguments and result of each call of a function of eval.py."""
        calls: list[tuple[tuple[Any, ...], Any]] = []
        real = getattr(self.module, name)

        def recorded(*args: Any) -> Any:  # noqa: ANN401
            calls.append((args, real(*args)))
            return calls[-1][1]

        setattr(self.module, name, recorded)
        return calls

    def score(self) -> float:
        """Run the task and return the metric that its section names."""
        task = self.module.TASKS[self.facts["kind"]]
        scores, _ = task(str(self.folder), self.facts, self.model, "eval", None, None)
        return float(scores[self.facts["metric"]])

    def split(self) -> Mapping[str, Array]:
        """Return the arrays of the evaluation split."""
        return np.load(self.folder / self.facts.get("data", ".") / "eval.npz")


def evaluate(home: Path, facts: Mapping[str, Any], model: Path) -> Evaluation:
    """Score a model file with eval.py and keep the parts of the score."""
    run = Run(home, facts, model)
    if "kind" not in facts:
        return _classifier(run)
    score, units, metric_of = _KINDS[facts["kind"]](run)
    return Evaluation(metric=facts["metric"], score=score, units=units, metric_of=metric_of)


Parts = tuple[float, int, Callable[[Array], float]]


def _classifier(run: Run) -> Evaluation:
    """Return the hits of each sample; for anomaly detection the score of each clip."""
    ranked = run.record("auc")
    facts, data = run.facts, run.module.load_split(str(run.folder), run.facts, "eval")
    made, count = run.module.run(facts, run.model, data)
    scores = run.module.metric(facts, made, data, count)
    if facts["metric"] == "recon_auc":
        (labels, errors), score = ranked[0]
        metric_of = weighted_auc(labels, errors, lambda counts: counts)
        return Evaluation(metric="auc", score=float(score), units=len(labels), metric_of=metric_of)
    right, made = np.asarray(data["y"][:count]), made.reshape(count, -1)
    if facts["metric"] == "binary":
        hits = (made[:, -1] > 0.5) == (right == 1)
    else:
        hits = made.argmax(1) - facts.get("label_offset", 0) == right
    return Evaluation(
        metric="top1",
        score=float(scores["top1"]),
        units=count,
        metric_of=partial(ratio, np.stack([hits, np.ones(count)], 1)),
        hits=np.asarray(hits),
    )


def _images_of_detector(run: Run) -> Parts:
    calls = run.record("coco_ap")
    score = run.score()
    truths, found = calls[0][0]
    return score, len(truths), partial(mean_precision, match(run.module.iou, truths, found))


def _lines(run: Run) -> Parts:
    calls = run.record("edit")
    score = run.score()
    sums = np.array([(distance, len(truth)) for (_, truth), distance in calls], float)
    return score, len(sums), partial(ratio, sums)


def _identities(run: Run) -> Parts:
    """Weight pairs by both their identities; copies of one identity form no pairs."""
    calls = run.record("auc")
    score = run.score()
    (labels, scores), _ = calls[0]
    held = run.split()
    group, (names, identity) = held["group"], np.unique(held["y"], return_inverse=True)
    first, second = np.triu_indices(len(group), 1)
    other = group[first] != group[second]
    a, b = identity[first[other]], identity[second[other]]

    def weigh(counts: Array) -> Array:
        return np.where(a == b, counts[a], counts[a] * counts[b])

    return score, len(names), weighted_auc(labels, scores, weigh)


def _blocks(run: Run) -> Parts:
    calls = run.record("auc")
    score = run.score()
    (labels, scores), _ = calls[0]
    frame = run.facts["frame"]
    truth = np.repeat(run.split()["label"], 512 // frame, 1)
    rate = run.facts.get("const", {}).get("sr", _SAMPLES_A_SECOND)
    length = max(1, round(_BLOCK_SECONDS * rate / frame))
    in_stream = np.arange(truth.shape[1]) // length
    block = np.arange(len(truth))[:, None] * (in_stream[-1] + 1) + in_stream
    names, kept = np.unique(block[truth >= 0], return_inverse=True)
    return score, len(names), weighted_auc(labels, scores, lambda counts: counts[kept])


def _images_of_segmenter(run: Run) -> Parts:
    """Return the confusion matrix of each image, from the pixels that eval.py counts."""
    run.module.np = types.SimpleNamespace(**vars(np))  # a copy for the module, to record its calls
    counted: list[Array] = []

    def bincount(cells: Array, minlength: int) -> Array:
        counted.append(cells)
        return np.bincount(cells, minlength=minlength)

    run.module.np.bincount = bincount
    score, classes = run.score(), int(run.facts["classes"])
    scored = (run.split()["mask"] != 255).sum((1, 2))
    images = np.split(counted[0], np.cumsum(scored)[:-1])
    tables = np.stack([np.bincount(each, minlength=classes**2) for each in images])
    return score, len(tables), partial(mean_iou, tables.reshape(-1, classes, classes))


def _rows(run: Run) -> Parts:
    calls = run.record("run_batches")
    score = run.score()
    truth, made = run.split()["y"], calls[0][1][0]
    errors = np.abs(made.reshape(len(truth), -1)[:, 0] - truth)
    return score, len(truth), partial(ratio, np.stack([errors, np.ones(len(truth))], 1))


def _sequences(run: Run) -> Parts:
    """Return the negative log-likelihood and the length of each sequence, in eval.py's order."""
    pick, steps = run.model.pick, []

    def recorded(outputs: Sequence[Array], wanted: Sequence[Any]) -> list[Array]:
        made: list[Array] = pick(outputs, wanted)
        steps.append(made[0].reshape(len(made[0]), -1).astype(np.float64))
        return made

    run.model.pick = recorded
    score, held, left = run.score(), run.split(), iter(steps)
    tokens, offsets = held["tokens"].astype(int), held["off"]
    texts = sorted((tokens[i:j] for i, j in pairwise(offsets)), key=len)
    batch, sums = run.model.batch or run.facts.get("batch", 16), np.zeros((len(texts), 2))
    for start in range(0, len(texts), batch):
        group = texts[start : start + batch]
        for step in range(max(map(len, group)) - 1):
            logits = next(left)
            logits -= logits.max(1, keepdims=True)
            norms = np.log(np.exp(logits).sum(1))
            for i, text in enumerate(group):
                if step + 1 < len(text):
                    sums[start + i] += norms[i] - logits[i, text[step + 1]], 1
    return score, len(sums), lambda counts: math.exp(ratio(sums, counts))


_KINDS: dict[str, Callable[[Run], Parts]] = {
    "det": _images_of_detector,
    "ctc": _lines,
    "pairs": _identities,
    "vad": _blocks,
    "seg": _images_of_segmenter,
    "reg": _rows,
    "lm": _sequences,
}
