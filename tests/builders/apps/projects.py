"""Small projects of every kind of answer, with samples in the files that an application gets."""

from __future__ import annotations

import json
import wave
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import tokenizers
from PIL import Image

from tests.builders.projects import PROFILE, edgekit

RATE = 8000
COLORS = ("blue", "green", "red")
WORDS = ("[PAD]", "[UNK]", "good", "bad", "movie", "the", "was", "a", "film")
FIELDS = ("age", "weight", "height")
STEP, WINDOW = 400, 480


def build_application(folder: Path) -> Path:
    """Build a project with the least work; return the folder of the bundle."""
    done = edgekit("build", "-C", folder, "--step", "clean", "--allow-failing")
    out = folder / "build" / PROFILE
    assert (out / "manifest.json").exists(), done.out + done.err
    return out


def write_colors(folder: Path) -> None:
    """Write an image classifier: the color that an image has most of."""
    rng = np.random.default_rng(1)
    for number in range(30):
        label = number % 3
        values = rng.integers(0, 90, (22 + number % 5, 30, 3))
        values[..., 2 - label] += 120
        save_image(folder / "eval" / COLORS[label] / f"{number:02}.png", values)
    text = (
        "g (float[N,3,16,16] x) => (float[N,3] logits) <float[3,3] w = "
        "{0,0,6, 0,6,0, 6,0,0}> { p = GlobalAveragePool(x) f = Flatten(p) logits = MatMul(f, w) }"
    )
    preprocess = (
        "[data.preprocess]\nresize = 20\ncrop = 16\nscale = 0.00392156862745098\n"
        'mean = [0.4, 0.4, 0.4]\nstd = [0.2, 0.2, 0.2]\nlayout = "NCHW"\n'
    )
    write_project(folder, text, "eval", "top1", preprocess)


def write_finder(folder: Path, mode: str = "letterbox") -> None:
    """Write a detector of one bright rectangle in each image, of images of any size."""
    rng = np.random.default_rng(2)
    images, annotations = [], []
    for number in range(12):
        width, height = 60 + 7 * (number % 4), 90 - 5 * (number % 3)
        values = rng.integers(0, 60, (height, width, 3))
        left, top = 5 + number, 8 + 2 * number
        values[top : top + 40, left : left + 24] = 250
        name = f"{number:02}.png"
        save_image(folder / "eval" / name, values)
        images.append({"id": number, "file_name": name, "width": width, "height": height})
        box = [left, top, 24, 40]
        annotations.append({"id": number, "image_id": number, "category_id": 3, "bbox": box})
    document = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 3, "name": "lamp"}],
    }
    (folder / "eval" / "annotations.json").write_text(json.dumps(document), encoding="utf-8")
    text = (
        "g (float[1,64,64,3] x) => (float[1,1,4] boxes, float[1,1,1] scores) "
        "<float[3] third = {0.333333,0.333333,0.333334}, float half = {150.0}, "
        "int64[1] last = {-1}, float one = {1.0}, int64[3] shape = {1,1,4}, "
        "int64[3] single = {1,1,1}, float unit = {0.00392156862745098}, int64[1] rows = {1}, "
        "int64[1] columns = {2}> { "
        "weighted = Mul(x, third) gray = ReduceSum<keepdims = 0>(weighted, last) "
        "across = ReduceMax<axes = [1], keepdims = 0>(gray) "
        "down = ReduceMax<axes = [2], keepdims = 0>(gray) "
        "ac = Greater(across, half) af = Cast<to = 1>(ac) "
        "dc = Greater(down, half) df = Cast<to = 1>(dc) "
        "li = ArgMax<axis = 1, keepdims = 1>(af) l = Cast<to = 1>(li) "
        "ri = ArgMax<axis = 1, keepdims = 1, select_last_index = 1>(af) rf = Cast<to = 1>(ri) "
        "ti = ArgMax<axis = 1, keepdims = 1>(df) t = Cast<to = 1>(ti) "
        "bi = ArgMax<axis = 1, keepdims = 1, select_last_index = 1>(df) bf = Cast<to = 1>(bi) "
        "r = Add(rf, one) b = Add(bf, one) c = Concat<axis = 1>(l, t, r, b) "
        "boxes = Reshape(c, shape) "
        "most = ReduceMax<axes = [1, 2], keepdims = 1>(gray) "
        "m = Mul(most, unit) scores = Reshape(m, single) }"
    )
    more = (
        f'[data.preprocess]\nresize_mode = "{mode}"\npad = 0\n'
        '[postprocess]\nkind = "boxes"\noutputs = ["boxes", "scores"]\nsize = [64, 64]\n'
        "first_class = 3\n"
    )
    write_project(folder, text, "eval", "map50", more, opset=13)


def write_regions(folder: Path) -> None:
    """Write a segmenter: the class of a pixel is its strongest channel."""
    rng = np.random.default_rng(3)
    for number in range(8):
        classes = np.kron(rng.integers(0, 3, (4, 5)), np.ones((4, 4), np.int64))
        values = rng.integers(0, 80, (16, 20, 3))
        values += 120 * (classes[..., None] == np.arange(3))
        wrong = rng.random(classes.shape) < 0.05
        save_image(folder / "eval" / "images" / f"{number}.png", values)
        mask = np.where(wrong, 0, classes).astype(np.uint8)
        path = folder / "eval" / "masks" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    text = (
        "g (float[N,3,16,20] x) => (float[N,3,16,20] scores) <float scale = {0.01}> "
        "{ scores = Mul(x, scale) }"
    )
    more = '[data.preprocess]\nlayout = "NCHW"\nscale = 0.5\n'
    write_project(folder, text, "eval", "miou", more, names=("wall", "floor", "door"))


def write_tags(folder: Path) -> None:
    """Write a model of several labels, each with a logit of its own."""
    rng = np.random.default_rng(4)
    x = rng.normal(0, 2, (60, 4)).astype(np.float32)
    y = ((x + rng.normal(0, 0.7, x.shape)) > 0).astype(np.int64)
    np.savez(folder / "eval.npz", x=x, y=y)
    text = "g (float[N,4] x) => (float[N,4] y) <float one = {1.0}> { y = Mul(x, one) }"
    write_project(folder, text, "eval.npz", "multilabel-f1", names=("sun", "rain", "wind", "snow"))


def write_tones(folder: Path) -> None:
    """Write a classifier of sounds, low and high tones, by their spectrogram."""
    rng = np.random.default_rng(5)
    for number in range(20):
        label = number % 2
        hz = rng.uniform(300, 700) if label == 0 else rng.uniform(2000, 3000)
        signal = 0.4 * np.sin(2 * np.pi * hz * np.arange(1600) / RATE)
        signal += rng.normal(0, 0.02, 1600)
        save_wave(folder / "eval" / ("high", "low")[1 - label] / f"{number:02}.wav", signal)
    bins = 16
    low = ", ".join("1" if place < bins // 2 else "0" for place in range(bins))
    high = ", ".join("0" if place < bins // 2 else "1" for place in range(bins))
    text = (
        f"g (float[N,1,19,{bins}] x) => (float[N,2] logits) "
        f"<float[{bins}] low = {{{low}}}, float[{bins}] high = {{{high}}}> "
        "{ a = Mul(x, high) h = ReduceMean<axes = [1, 2, 3], keepdims = 0>(a) "
        "b = Mul(x, low) l = ReduceMean<axes = [1, 2, 3], keepdims = 0>(b) "
        "hu = Unsqueeze<axes = [1]>(h) lu = Unsqueeze<axes = [1]>(l) "
        "logits = Concat<axis = 1>(hu, lu) }"
    )
    more = (
        '[data.audio]\nspectrogram = "log-mel"\nn_fft = 160\nhop = 80\nmels = 16\n'
        'mel_scale = "slaney"\nfloor = 1e-6\n'
    )
    write_project(folder, text, "eval", "top1", more, opset=12)


def write_speech(folder: Path) -> None:
    """Write a detector of sound in a stream, with a state and a constant rate."""
    rng = np.random.default_rng(6)
    for number in range(4):
        labels = np.repeat(rng.integers(0, 2, 6), 5)
        signal = np.repeat(labels, STEP) * rng.normal(0, 0.3, STEP * len(labels))
        save_wave(folder / "eval" / f"{number}.wav", signal + rng.normal(0, 0.01, len(signal)))
        numbers = labels.copy()
        numbers[3] = 1 - numbers[3]  # nobody is always right
        (folder / "eval" / f"{number}.txt").write_text(" ".join(map(str, numbers)))
    text = (
        f"g (float[N,{WINDOW}] x, float[1,N,1] state, int64 sr) "
        "=> (float[N,1] y, float[1,N,1] next) "
        "<float gain = {0.000125}, float half = {0.5}, float limit = {0.05}, float ten = {60.0}> "
        "{ rate = Cast<to = 1>(sr) k = Mul(rate, gain) a = Abs(x) "
        "m = ReduceMean<axes = [1], keepdims = 1>(a) e = Mul(m, k) "
        "old = Mul(state, half) flat = ReduceSum<axes = [0], keepdims = 0>(old) "
        "s = Mul(e, half) sum = Add(s, flat) next = Unsqueeze<axes = [0]>(sum) "
        "d = Sub(sum, limit) z = Mul(d, ten) y = Sigmoid(z) }"
    )
    more = (
        f"[data.audio]\nstep = {STEP}\n"
        '[model.inputs.state]\nfrom = "next"\n[model.inputs.sr]\nconstant = 8000\n'
    )
    write_project(folder, text, "eval", "auc", more, opset=12, names=("silence", "speech"))


def write_reviews(folder: Path) -> None:
    """Write a classifier of short texts of any length."""
    rng = np.random.default_rng(7)
    save_tokenizer(folder / "tokenizer.json")
    lines = []
    for _ in range(40):
        label = int(rng.integers(2))
        words = [*rng.choice(WORDS[4:], int(rng.integers(1, 6))), ("bad", "good")[label]]
        rng.shuffle(words)
        lines.append({"text": " ".join(words), "label": label if rng.random() > 0.1 else 1 - label})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "eval.jsonl").write_text(text, encoding="utf-8")
    weights = np.zeros((len(WORDS), 2), np.float32)
    weights[2], weights[3] = (-4, 4), (4, -4)
    listed = ", ".join(f"{value:g}" for value in weights.ravel())
    model = (
        "g (int64[N,T] input_ids, int64[N,T] attention_mask) => (float[N,2] logits) "
        f"<float[{len(WORDS)},2] w = {{{listed}}}> {{ e = Gather(w, input_ids) "
        "m = Cast<to = 1>(attention_mask) u = Unsqueeze<axes = [2]>(m) p = Mul(e, u) "
        "logits = ReduceSum<axes = [1], keepdims = 0>(p) }"
    )
    write_project(folder, model, "eval.jsonl", "top1", opset=12, names=("negative", "positive"))


def write_sentences(folder: Path) -> None:
    """Write a language model of pairs of words."""
    rng = np.random.default_rng(11)
    save_tokenizer(folder / "tokenizer.json")
    following = {"the": "movie", "movie": "was", "was": "good", "good": "the", "a": "film"}
    lines = []
    for _ in range(30):
        words = [str(rng.choice(["the", "movie", "was", "good"]))]
        while len(words) < 6:
            is_usual = rng.random() < 0.8
            words.append(following[words[-1]] if is_usual else str(rng.choice(list(following)[:4])))
        lines.append({"text": " ".join(words)})
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (folder / "eval.jsonl").write_text(text, encoding="utf-8")
    weights = np.zeros((len(WORDS), len(WORDS)), np.float32)
    for word, after in following.items():
        weights[WORDS.index(word), WORDS.index(after)] = 3
    listed = ", ".join(f"{value:g}" for value in weights.ravel())
    size = len(WORDS)
    model = (
        f"g (int64[N,T] input_ids) => (float[N,T,{size}] logits) "
        f"<float[{size},{size}] w = {{{listed}}}> {{ logits = Gather(w, input_ids) }}"
    )
    more = '[data.text]\ntargets = "next-token"\n'
    write_project(folder, model, "eval.jsonl", "perplexity", more)


def write_risks(folder: Path) -> None:
    """Write a classifier of rows with named fields, by the logit of the second class."""
    rng = np.random.default_rng(8)
    rows = np.stack([rng.uniform(20, 90, 60), rng.uniform(50, 120, 60), rng.uniform(1.5, 2, 60)])
    logits = (rows[0] - 55) / 10
    labels = (rng.random(60) < 1 / (1 + np.exp(-logits))).astype(int)
    lines = [",".join((*FIELDS, "label"))]
    lines += [
        ",".join(f"{value:.3f}" for value in row) + f",{label}"
        for row, label in zip(rows.T, labels, strict=True)
    ]
    (folder / "eval.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    text = (
        "g (float[N,3] x) => (float[N,1] logit) <float[3,1] w = {0.1,0,0}, float c = {5.5}> "
        "{ m = MatMul(x, w) logit = Sub(m, c) }"
    )
    write_project(folder, text, "eval.csv", "auc", names=("healthy", "ill"))


def write_prices(folder: Path) -> None:
    """Write a regression of rows."""
    rng = np.random.default_rng(9)
    x = rng.normal(0, 1, (50, 3)).astype(np.float32)
    y = (x.sum(axis=1, keepdims=True) + rng.normal(0, 0.1, (50, 1))).astype(np.float32)
    np.savez(folder / "eval.npz", x=x, y=y)
    text = (
        "g (float[N,3] x) => (float[N,1] price) <float[3,1] w = {1,1,1}> { price = MatMul(x, w) }"
    )
    write_project(folder, text, "eval.npz", "mae")


def write_lines(folder: Path) -> None:
    """Write a recognizer of texts: columns of an image are scores of characters."""
    rng = np.random.default_rng(10)
    alphabet = "abcd"
    scores = rng.uniform(0, 1, (40, 12, len(alphabet) + 1)).astype(np.float32)
    texts = []
    for rows in scores:
        classes = rows.argmax(axis=1)
        kept = [c for i, c in enumerate(classes) if c and (i == 0 or c != classes[i - 1])]
        texts.append("".join(alphabet[c - 1] for c in kept)[:-1] or "a")
    np.savez(folder / "eval.npz", x=scores * 8 - 4, y=np.array(texts))
    (folder / "charset.txt").write_text("\n".join(alphabet) + "\n", encoding="utf-8")
    text = (
        "g (float[N,12,5] x) => (float[N,12,5] scores) <float one = {1.0}> { scores = Mul(x, one) }"
    )
    more = '[postprocess]\nkind = "ctc"\ncharset = "charset.txt"\n'
    write_project(folder, text, "eval.npz", "cer", more)


def write_project(
    folder: Path,
    text: str,
    evaluation: str,
    metric: str,
    more: str = "",
    *,
    names: tuple[str, ...] = (),
    opset: int = 17,
) -> None:
    """Write the model and the edgekit.toml of a project."""
    header = f'<ir_version: 8, opset_import: ["" : {opset}]> '
    onnx.save(onnx.parser.parse_model(header + text), folder / "model.onnx")
    known = f"class_names = {json.dumps(names)}\n" if names else ""
    (folder / "edgekit.toml").write_text(
        f'[model]\npath = "model.onnx"\n[data]\nevaluation = "{evaluation}"\n'
        f'metric = "{metric}"\n{known}{more}'
        f'[build]\ndevice = "{PROFILE}"\nruntime = "onnxruntime"\n',
        encoding="utf-8",
    )


def save_image(path: Path, values: np.ndarray) -> None:
    """Write pixels [height, width, 3] as a PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(values, 0, 255).astype(np.uint8)).save(path)


def save_wave(path: Path, signal: np.ndarray, rate: int = RATE) -> None:
    """Write 16-bit PCM."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.round(np.asarray(signal) * 32768).clip(-32768, 32767).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(values.tobytes())


def save_tokenizer(path: Path) -> None:
    """Write a tokenizer of whole words."""
    ids = {word: number for number, word in enumerate(WORDS)}
    made = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids, unk_token="[UNK]"))
    made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    made.save(str(path))


APPLICATIONS: dict[str, Callable[[Path], None]] = {
    "colors": write_colors,
    "finder": write_finder,
    "stretched-finder": lambda folder: write_finder(folder, "stretch"),
    "regions": write_regions,
    "tags": write_tags,
    "tones": write_tones,
    "speech": write_speech,
    "reviews": write_reviews,
    "sentences": write_sentences,
    "risks": write_risks,
    "prices": write_prices,
    "lines": write_lines,
}
