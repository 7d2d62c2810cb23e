"""Projects of the entries of a folder of tasks, as a user would write them.

A project holds the data in a form that ``edgekit build`` reads, and an edgekit.toml with the
metric, its options, the post-processing, and how states and constants are fed.
"""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Array = np.ndarray
Table = dict[str, object]
Tables = dict[str, Table]
Writer = Callable[[Mapping[str, Any], Path, Path, str], str]
_SPLITS = {"calib": "calibration", "eval": "evaluation"}
_UNSCORED = {"seg": 255, "vad": -1}
_METRICS = {
    ("pairs", "auc"): "pairs-auc",
    ("pairs", "eer"): "pairs-eer",
    ("lm", "ppl"): "perplexity",
    ("lm", "top1"): "token-accuracy",
}
_DECODERS = {"yolox": "yolox", "gfl": "distances", "yolov8": "yolov8", "ssd01": "boxes"}


def name_metric(facts: Mapping[str, Any]) -> str:
    """Return edgekit's name of the metric of an entry."""
    kind, metric = str(facts["kind"]), str(facts["metric"])
    return _METRICS.get((kind, metric), metric)


def write_project(home: Path, facts: Mapping[str, Any], folder: Path) -> Path:
    """Write the data and the edgekit.toml of an entry; return the folder."""
    kind, source = str(facts["kind"]), home / str(facts["name"])
    folder.mkdir(parents=True, exist_ok=True)
    model = folder / str(facts["model"])
    shutil.copyfile(source / str(facts["model"]), model)
    data: Table = {
        name: _WRITERS[kind](facts, source, folder, split) for split, name in _SPLITS.items()
    }
    data["metric"] = name_metric(facts)
    named = facts["outputs"][0]["name"]
    if len(facts["outputs"]) > 1 and kind != "det":
        data["output"] = named
    tables: Tables = {"model": {"path": model.name}, **_list_input_tables(facts), "data": data}
    if kind in _UNSCORED:
        tables["data.metric_options"] = {"ignore": _UNSCORED[kind]}
    if preprocess := _list_preprocessing(facts):
        tables["data.preprocess"] = preprocess
    if postprocess := _list_postprocessing(facts, source, folder):
        tables["postprocess"] = postprocess
    text = "\n".join(_format_table(name, table) for name, table in tables.items())
    (folder / "edgekit.toml").write_text(text, encoding="utf-8")
    return folder


def shrink_project(folder: Path, samples: int) -> None:
    """Keep the first evaluation samples of a project; of sequences, the first steps of each."""
    table, images = folder / "eval.npz", folder / "eval"
    if table.exists():
        held = dict(np.load(table))
        rows = len(held["y"])
        numbers = held.get("sequence", np.zeros(rows, np.int64))
        kept = [np.flatnonzero(numbers == each)[:samples] for each in np.unique(numbers)]
        chosen = np.sort(np.concatenate(kept))
        _save(folder, "eval", **{name: values[chosen] for name, values in held.items()})
    for each in (images / "images", images / "masks"):
        for file in sorted(each.glob("*"))[samples:]:
            file.unlink()
    boxes = folder / "eval.json"
    if boxes.exists():
        facts = json.loads(boxes.read_text(encoding="utf-8"))
        facts["images"] = facts["images"][:samples]
        numbers = {each["id"] for each in facts["images"]}
        facts["annotations"] = [a for a in facts["annotations"] if a["image_id"] in numbers]
        boxes.write_text(json.dumps(facts), encoding="utf-8")
        names = {each["file_name"] for each in facts["images"]}
        for file in images.iterdir():
            if file.name not in names:
                file.unlink()


def _format_table(name: str, table: Table) -> str:
    lines = (f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in table.items())
    return "\n".join([f"[{name}]", *lines, ""])


def _list_input_tables(facts: Mapping[str, Any]) -> Tables:
    """Return how states and constants are fed."""
    tables: Tables = {}
    for name, value in facts.get("const", {}).items():
        tables[f"model.inputs.{name}"] = {"constant": value}
    fed_back = [each["name"] for each in facts["outputs"][1:]]
    for (name, state), output in zip(facts.get("state", {}).items(), fed_back, strict=False):
        table: Table = {"from": output}
        if -1 in state["shape"]:
            table["batch_axis"] = state["shape"].index(-1)
        tables[f"model.inputs.{name}"] = table
    for layer in range(facts.get("cache", {}).get("layers", 0)):
        for part in "kv":
            tables[f"model.inputs.past_{part}{layer}"] = {"from": f"present_{part}{layer}"}
    return tables


def _list_preprocessing(facts: Mapping[str, Any]) -> Table:
    if facts["kind"] not in ("det", "seg"):
        return {}
    given = facts.get("preprocess", {})
    table: Table = {key: given[key] for key in ("order", "mean", "std", "scale") if key in given}
    if facts.get("layout") != "NHWC":
        table["layout"] = "NCHW"
    if facts["kind"] == "det":
        table |= {"resize_mode": "letterbox", "pad_position": "corner", "size": facts["size"]}
        table["pad"] = given.get("pad", 0)
    return table


def _list_postprocessing(facts: Mapping[str, Any], source: Path, folder: Path) -> Table:
    if facts["kind"] == "ctc":
        charset = str(facts["charset"])
        shutil.copyfile(source / charset, folder / charset)
        characters = (source / charset).read_text(encoding="utf-8").split("\n")
        return {
            "kind": "ctc",
            "charset": charset,
            "space": len(characters) == facts["classes"] - 2,
        }
    if facts["kind"] != "det":
        return {}
    decoder = str(facts["decode"])
    table: Table = {
        "kind": _DECODERS[decoder],
        "outputs": [each["name"] for each in facts["outputs"]],
        "size": facts["size"],
        "score_min": facts.get("score_min", 0.01),
        "nms_iou": facts.get("nms_iou", 0.65),
        "first_class": facts.get("first_category", 0),
    }
    if "strides" in facts:
        table["strides"] = facts["strides"]
    if decoder == "ssd01":
        table |= {"box_unit": "share", "background": 0}
        table["outputs"] = [each["name"] for each in reversed(facts["outputs"])]
    return table


def _write_boxes(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Copy a folder of images with the COCO annotations beside it."""
    del facts
    (folder / split).mkdir(exist_ok=True)
    for image in sorted((source / split).iterdir()):
        shutil.copyfile(image, folder / split / image.name)
    shutil.copyfile(source / f"{split}.json", folder / f"{split}.json")
    return split


def _write_masks(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write images and masks of the same names."""
    held = np.load(source / f"{split}.npz")
    images, masks = folder / split / "images", folder / split / "masks"
    for each in (images, masks):
        each.mkdir(parents=True, exist_ok=True)
    packed, offsets = held["jpeg"].tobytes(), held["off"]
    for number, mask in enumerate(held["mask"]):
        name = f"{number:05}"
        (images / f"{name}.jpg").write_bytes(packed[offsets[number] : offsets[number + 1]])
        Image.fromarray(mask).save(masks / f"{name}.png")
    del facts
    return split


def _write_lines(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write lines of text as arrays: they are padded with zeros after the normalization."""
    with (source / f"{split}.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    height, width = facts["size"]
    made = np.zeros((len(rows), 3, height, width), np.float32)
    for number, row in enumerate(rows):
        image = Image.open(source / split / row["file"]).convert("RGB")
        size = min(width, int(np.ceil(height * image.width / image.height)))
        pixels = np.asarray(image.resize((size, height), Image.Resampling.BILINEAR))
        made[number, :, :, :size] = _normalize(facts, pixels).transpose(2, 0, 1)
    return _save(folder, split, x=made, y=np.array([row["text"] for row in rows]))


def _normalize(facts: Mapping[str, Any], pixels: Array) -> Array:
    """Return images in the channel order and the scaling of the entry."""
    given, values = facts.get("preprocess", {}), pixels.astype(np.float32)
    if given.get("order", "RGB") == "BGR":
        values = values[..., ::-1]
    scale = np.float32(given.get("scale", 1.0))
    mean, std = (np.array(given.get(key, at), np.float32) for key, at in (("mean", 0), ("std", 1)))
    return ((values * scale - mean) / std).astype(np.float32)


def _write_frames(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write a row for each frame of each stream, with the samples before it that it overlaps."""
    held = np.load(source / facts.get("data", ".") / f"{split}.npz")
    audio, frame, context = (
        held["audio"].astype(np.float32) / 32768,
        facts["frame"],
        facts["context"],
    )
    labels = np.repeat(held["label"], 512 // frame, 1)
    streams, frames = labels.shape
    padded = np.concatenate([np.zeros((streams, context), np.float32), audio], 1)
    starts = np.arange(frames) * frame
    rows = padded[:, starts[:, None] + np.arange(frame + context)]
    return _save(
        folder,
        split,
        x=rows.reshape(-1, frame + context),
        y=labels.reshape(-1),
        sequence=np.repeat(np.arange(streams), frames),
    )


def _write_embeddings(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write inputs with the identity and the recording of each."""
    held = np.load(source / f"{split}.npz")
    values = held["x"]
    if values.ndim == 4:
        values = np.repeat(values, 3, -1) if values.shape[-1] == 1 else values
        values = np.ascontiguousarray(_normalize(facts, values).transpose(0, 3, 1, 2))
    return _save(folder, split, x=values, y=held["y"], group=held["group"])


def _write_values(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write rows of features with the number to predict."""
    del facts
    held = np.load(source / f"{split}.npz")
    return _save(folder, split, x=held["x"], y=held["y"])


def _write_symbols(facts: Mapping[str, Any], source: Path, folder: Path, split: str) -> str:
    """Write a row for each symbol of each sequence; its target is the next symbol."""
    del facts
    held = np.load(source / f"{split}.npz")
    symbols, offsets = held["tokens"].astype(np.int64), held["off"]
    texts = [symbols[start:end] for start, end in pairwise(offsets)]
    steps = [np.arange(len(text) - 1) for text in texts]
    return _save(
        folder,
        split,
        ids=np.concatenate([text[:-1] for text in texts])[:, None],
        pos=np.concatenate(steps)[:, None],
        y=np.concatenate([text[1:] for text in texts]),
        sequence=np.repeat(np.arange(len(texts)), [len(each) for each in steps]),
    )


def _save(folder: Path, split: str, **arrays: Array) -> str:
    np.savez(folder / f"{split}.npz", **arrays)  # type: ignore[arg-type]
    return f"{split}.npz"


_WRITERS: dict[str, Writer] = {
    "det": _write_boxes,
    "ctc": _write_lines,
    "pairs": _write_embeddings,
    "vad": _write_frames,
    "seg": _write_masks,
    "reg": _write_values,
    "lm": _write_symbols,
}
