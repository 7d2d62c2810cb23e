"""Make photos of handwritten digits, train a small network on them with torch, and export it.

The photos are the 8x8 digits that ship with scikit-learn, enlarged to 64x64 and put on paper of
changing color, angle and light. Run ``python train.py``; it takes about a minute on two cores and
writes ``calib/``, ``eval/`` (a subfolder per class) and ``model.onnx`` into this folder.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

SEED = 3
PHOTO, SIDE = 64, 32  # pixels of a photo, and of the input of the network
CALIBRATION, EVALUATION = 100, 400
EPOCHS, BATCH, RATE = 8, 50, 4e-3
CLASSES = 10


def take_photo(digit: NDArray[np.float64], rng: np.random.Generator) -> Image.Image:
    """Return a digit (8x8, 0 to 16) in dark ink on colored paper, turned and noisy."""
    ink = Image.fromarray((digit * 255 / 16).astype(np.uint8)).resize((44, 44), Image.BICUBIC)
    page = Image.new("L", (PHOTO, PHOTO))
    page.paste(ink, tuple(int(n) for n in rng.integers(4, 17, 2)))
    page = page.rotate(rng.uniform(-12, 12), Image.BICUBIC)
    strength = np.asarray(page, np.float64)[:, :, None] / 255
    paper, pen = rng.uniform(150, 250, 3), rng.uniform(10, 90, 3)
    light = np.linspace(*rng.uniform(0.75, 1.1, 2), PHOTO)[:, None, None]
    photo = (paper * (1 - strength) + pen * strength) * light + rng.normal(0, 5, (PHOTO, PHOTO, 3))
    return Image.fromarray(photo.clip(0, 255).astype(np.uint8))


def write_photos(folder: Path, photos: list[Image.Image], labels: NDArray[np.int64]) -> None:
    """Write photos as PNG files into a subfolder for each class."""
    for number, (photo, label) in enumerate(zip(photos, labels, strict=True)):
        file = folder / str(label) / f"{number:04d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        photo.save(file)


def to_inputs(photos: list[Image.Image]) -> torch.Tensor:
    """Return the inputs of the network, as edgekit.toml describes them: [N, 3, 32, 32], -1 to 1."""
    small = [np.asarray(photo.resize((SIDE, SIDE), Image.BICUBIC)) for photo in photos]
    values = np.stack(small).astype(np.float32).transpose(0, 3, 1, 2)
    return torch.from_numpy((values - 127.5) / 127.5)


def make_network() -> nn.Sequential:
    """Return three convolutions with batch normalization, a mean over the image, and a layer."""
    layers: list[nn.Module] = []
    for inputs, outputs in ((3, 16), (16, 32), (32, 64)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.MaxPool2d(2),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def train(images: torch.Tensor, labels: torch.Tensor, *, epochs: int = EPOCHS) -> nn.Sequential:
    """Train the network with Adam and a rate that falls to zero along a cosine."""
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), RATE)
    steps = epochs * (len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in range(epochs):
        for batch in torch.randperm(len(images)).split(BATCH)[: len(images) // BATCH]:
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def main() -> None:
    """Write the photos, train, and export the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the photos")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    digits = load_digits()
    order = rng.permutation(len(digits.images))
    labels = digits.target[order].astype(np.int64)
    photos = [take_photo(digits.images[i], rng) for i in order]

    first = len(photos) - EVALUATION  # the last photos are for evaluation alone
    inputs, targets = to_inputs(photos[:first]), torch.from_numpy(labels[:first])
    network = train(inputs, targets, epochs=arguments.epochs)
    with torch.no_grad():
        found = network(to_inputs(photos[first:])).argmax(1).numpy()
    print(f"{(found == labels[first:]).sum()} of {EVALUATION} evaluation photos are read right")
    write_photos(arguments.out / "calib", photos[:CALIBRATION], labels[:CALIBRATION])
    write_photos(arguments.out / "eval", photos[first:], labels[first:])
    torch.onnx.export(
        network,
        (torch.zeros(2, 3, SIDE, SIDE),),
        arguments.out / "model.onnx",
        input_names=["photo"],
        output_names=["logits"],
        dynamic_shapes=({0: "N"},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
