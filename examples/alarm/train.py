"""Make recordings of a monitor's alarm, train a small network on them with torch, and export it.

An alarm is a burst of three tones with harmonics, as monitors sound it (IEC 60601-1-8), in the
noise of a room; the other recordings hold the noise, hum, clicks or a single tone. Run
``python train.py``; it takes about a minute on two cores and writes ``calib/``, ``eval/`` (a
subfolder per class, ``.wav`` of one second) and ``model.onnx`` into this folder.
"""

from __future__ import annotations

import argparse
import wave
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

SEED = 5
RATE = 8000  # Hz
TRAINING, CALIBRATION, EVALUATION = 1200, 100, 400
EPOCHS, BATCH, STEP = 6, 40, 3e-3

Array = NDArray[np.float64]


def make_tone(frequency: float, seconds: float) -> Array:
    """Return a tone with four harmonics that rises and falls within 20 ms."""
    time = np.arange(int(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * frequency * n * time) / n for n in range(1, 6))
    edge = np.minimum(1, np.minimum(time, time[::-1]) / 0.02)
    return np.asarray(tone * edge / 2)


def record(is_alarm: bool, rng: np.random.Generator) -> Array:
    """Return one second of a room, with an alarm or with another sound."""
    sound = rng.normal(0, rng.uniform(0.01, 0.06), RATE)
    sound += rng.uniform(0, 0.1) * np.sin(2 * np.pi * 50 * np.arange(RATE) / RATE)
    if is_alarm:
        tone = make_tone(rng.uniform(440, 900), rng.uniform(0.12, 0.18))
        pause = tone.size + int(rng.uniform(0.06, 0.12) * RATE)
        start = rng.integers(0, RATE - 2 * pause - tone.size)
        for number in range(3):
            begin = start + number * pause
            sound[begin : begin + tone.size] += rng.uniform(0.1, 0.4) * tone
    elif rng.random() < 0.5:
        tone = make_tone(rng.uniform(150, 1500), rng.uniform(0.3, 0.8))
        begin = rng.integers(0, RATE - tone.size)
        sound[begin : begin + tone.size] += rng.uniform(0.05, 0.4) * tone
    else:
        for begin in rng.integers(0, RATE - 80, rng.integers(0, 6)):
            sound[begin : begin + 80] += rng.normal(0, 0.4, 80)
    return np.asarray(sound.clip(-1, 1))


def write_recordings(folder: Path, sounds: list[Array], labels: NDArray[np.int64]) -> None:
    """Write recordings as ``.wav`` files of 16 bits into a subfolder for each class."""
    for number, (sound, label) in enumerate(zip(sounds, labels, strict=True)):
        file = folder / str(label) / f"{number:04d}.wav"
        file.parent.mkdir(parents=True, exist_ok=True)
        with wave.open(str(file), "wb") as out:
            out.setnchannels(1)
            out.setsampwidth(2)
            out.setframerate(RATE)
            out.writeframes((sound * 32767).astype("<i2").tobytes())


def make_network() -> nn.Sequential:
    """Return five convolutions over time, the mean over time, and a layer."""
    layers: list[nn.Module] = []
    for inputs, outputs, width, step in (
        (1, 16, 64, 8),
        (16, 32, 8, 4),
        (32, 48, 8, 4),
        (48, 64, 4, 2),
    ):
        layers += [
            nn.Conv1d(inputs, outputs, width, step),
            nn.BatchNorm1d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(64, 2))


def train(sounds: torch.Tensor, labels: torch.Tensor, *, epochs: int = EPOCHS) -> nn.Sequential:
    """Train the network with Adam and a rate that falls to zero along a cosine."""
    network = make_network()
    optimizer = torch.optim.Adam(network.parameters(), STEP)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs * len(sounds) // BATCH)
    for _ in range(epochs):
        for batch in torch.randperm(len(sounds)).split(BATCH):
            loss = nn.functional.cross_entropy(network(sounds[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return network.eval()


def to_inputs(sounds: list[Array]) -> torch.Tensor:
    """Return the inputs of the network: [N, 1, 8000], -1 to 1."""
    return torch.from_numpy(np.stack(sounds).astype(np.float32)[:, None])


def main() -> None:
    """Write the recordings, train, and export the network."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="passes over the recordings")
    arguments = parser.parse_args()

    torch.manual_seed(SEED)
    rng = np.random.default_rng(SEED)
    labels = rng.integers(0, 2, TRAINING + EVALUATION)
    sounds = [record(bool(label), rng) for label in labels]

    first = TRAINING  # the last recordings are for evaluation alone
    inputs, targets = to_inputs(sounds[:first]), torch.from_numpy(labels[:first])
    network = train(inputs, targets, epochs=arguments.epochs)
    with torch.no_grad():
        found = network(to_inputs(sounds[first:])).argmax(1).numpy()
    print(f"{(found == labels[first:]).sum()} of {EVALUATION} evaluation recordings are told right")
    write_recordings(arguments.out / "calib", sounds[:CALIBRATION], labels[:CALIBRATION])
    write_recordings(arguments.out / "eval", sounds[first:], labels[first:])
    torch.onnx.export(
        network,
        (torch.zeros(2, 1, RATE),),
        arguments.out / "model.onnx",
        input_names=["sound"],
        output_names=["logits"],
        dynamic_shapes=({0: "N"},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )


if __name__ == "__main__":
    main()
