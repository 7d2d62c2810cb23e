"""Train the digits network with numpy alone and write model.onnx, calib.npz and eval.npz.

Two 3x3 convolutions, a 2x2 maximum and one dense layer, trained with Adam on the 8x8 digits that
ship with scikit-learn. Run ``python train.py``; it takes under two minutes on one core.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from sklearn.datasets import load_digits

Array = NDArray[np.float32]
Params = dict[str, Array]

SEED = 7
TRAINING, CALIBRATION = 1000, 200  # the rest of the 1797 images is for evaluation
WIDTH = 128  # channels of the second convolution
BATCH, STEPS, RATE = 50, 600, 2e-3
SCALE = np.float32(1 / 16)  # pixels are 0..16


def split(seed: int = SEED) -> tuple[Array, NDArray[np.int64], Array, NDArray[np.int64]]:
    """Training images and labels, then evaluation images and labels; images are [N, 1, 8, 8]."""
    digits = load_digits()
    images = digits.images.astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    order = np.random.default_rng(seed).permutation(len(images))
    first, rest = order[:TRAINING], order[TRAINING:]
    return images[first], labels[first], images[rest], labels[rest]


def initial(rng: np.random.Generator) -> Params:
    """He-initialized weights; biases are zero."""
    shapes = {"conv1": (64, 1, 3, 3), "conv2": (WIDTH, 64, 3, 3), "dense": (10, 16 * WIDTH)}
    params: Params = {}
    for name, shape in shapes.items():
        deviation = np.sqrt(2 / np.prod(shape[1:]))
        params[f"{name}.weight"] = (rng.standard_normal(shape) * deviation).astype(np.float32)
        params[f"{name}.bias"] = np.zeros(shape[0], np.float32)
    return params


def patches(x: Array) -> Array:
    """Every 3x3 neighborhood of zero-padded ``x``: [N, C, H, W] to [N, H, W, C * 9]."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    n, c, h, w = x.shape
    return np.ascontiguousarray(windows.transpose(0, 2, 3, 1, 4, 5)).reshape(n, h, w, c * 9)


def convolve(x: Array, weight: Array, bias: Array) -> tuple[Array, Array]:
    """Return the convolution of ``x``, and the patches that its gradient needs."""
    columns = patches(x)
    y = columns @ weight.reshape(len(weight), -1).T + bias
    return y.transpose(0, 3, 1, 2), columns


def convolve_back(dy: Array, columns: Array, weight: Array) -> tuple[Array, Array, Array]:
    """Gradients of a convolution with respect to its input, its weight and its bias."""
    flat = dy.transpose(0, 2, 3, 1).reshape(-1, len(weight))
    dweight = (flat.T @ columns.reshape(len(flat), -1)).reshape(weight.shape)
    mirrored = weight[:, :, ::-1, ::-1].transpose(1, 0, 2, 3)
    dx, _ = convolve(dy, mirrored, np.zeros(len(mirrored), np.float32))
    return dx, dweight, flat.sum(0)


def gradients(params: Params, x: Array, labels: NDArray[np.int64]) -> tuple[float, Params]:
    """Cross-entropy of one batch and its gradient with respect to every parameter."""
    n = len(x)
    a1, columns1 = convolve(x * SCALE, params["conv1.weight"], params["conv1.bias"])
    r1 = np.maximum(a1, 0)
    a2, columns2 = convolve(r1, params["conv2.weight"], params["conv2.bias"])
    r2 = np.maximum(a2, 0)
    cells = r2.reshape(n, WIDTH, 4, 2, 4, 2)
    pooled = cells.max(axis=(3, 5))
    flat = pooled.reshape(n, -1)
    logits = flat @ params["dense.weight"].T + params["dense.bias"]

    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    loss = float(-logs[np.arange(n), labels].mean())

    dlogits = np.exp(logs)
    dlogits[np.arange(n), labels] -= 1
    dlogits /= n
    dpooled = (dlogits @ params["dense.weight"]).reshape(n, WIDTH, 4, 1, 4, 1)
    largest = cells == pooled[:, :, :, None, :, None]
    dr2 = (dpooled * largest / largest.sum((3, 5), keepdims=True)).reshape(r2.shape)
    dr1, dweight2, dbias2 = convolve_back(dr2 * (a2 > 0), columns2, params["conv2.weight"])
    _, dweight1, dbias1 = convolve_back(dr1 * (a1 > 0), columns1, params["conv1.weight"])
    return loss, {
        "conv1.weight": dweight1,
        "conv1.bias": dbias1,
        "conv2.weight": dweight2,
        "conv2.bias": dbias2,
        "dense.weight": dlogits.T @ flat,
        "dense.bias": dlogits.sum(0),
    }


def moved(x: Array, rng: np.random.Generator) -> Array:
    """Every image shifted by up to one pixel each way, so that the network learns to bear it."""
    down, right = rng.integers(0, 3, size=(2, len(x)))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(2, 3))
    return windows[np.arange(len(x)), :, down, right]


def train(
    images: Array, labels: NDArray[np.int64], *, steps: int = STEPS, seed: int = SEED
) -> tuple[Params, list[float]]:
    """Adam with a rate that falls to zero along a cosine; returns parameters and losses."""
    rng = np.random.default_rng(seed)
    params = initial(rng)
    first = {k: np.zeros_like(v) for k, v in params.items()}
    second = {k: np.zeros_like(v) for k, v in params.items()}
    losses = []
    for step in range(1, steps + 1):
        batch = rng.choice(len(images), BATCH, replace=False)
        loss, grads = gradients(params, moved(images[batch], rng), labels[batch])
        losses.append(loss)
        rate = RATE * (1 + np.cos(np.pi * step / steps)) / 2
        for k, grad in grads.items():
            first[k] += 0.1 * (grad - first[k])
            second[k] += 0.001 * (grad**2 - second[k])
            size = np.sqrt(second[k] / (1 - 0.999**step)) + 1e-8
            params[k] -= (rate * first[k] / (1 - 0.9**step) / size).astype(np.float32)
    return params, losses


def as_onnx(params: Params) -> onnx.ModelProto:
    """Return the network as ONNX: raw pixels 0..16 go in, ten logits come out, any batch size."""
    constants = {**params, "scale": np.asarray(SCALE)}
    nodes = [
        helper.make_node("Mul", ["image", "scale"], ["scaled"]),
        _conv("conv1", "scaled"),
        helper.make_node("Relu", ["conv1"], ["relu1"]),
        _conv("conv2", "relu1"),
        helper.make_node("Relu", ["conv2"], ["relu2"]),
        helper.make_node("MaxPool", ["relu2"], ["pool"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["pool"], ["flat"], axis=1),
        helper.make_node("Gemm", ["flat", "dense.weight", "dense.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "digits",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 1, 8, 8])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 10])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def _conv(name: str, source: str) -> onnx.NodeProto:
    inputs = [source, f"{name}.weight", f"{name}.bias"]
    return helper.make_node(
        "Conv", inputs, [name], name=name, kernel_shape=[3, 3], pads=[1, 1, 1, 1]
    )


def main() -> None:
    """Train, then write the three files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent, help="where to write")
    parser.add_argument("--steps", type=int, default=STEPS, help="batches to train on")
    arguments = parser.parse_args()

    images, labels, held_out, held_out_labels = split()
    params, losses = train(images, labels, steps=arguments.steps)
    print(f"loss {np.mean(losses[:20]):.3f} at the start, {np.mean(losses[-20:]):.4f} at the end")
    onnx.save(as_onnx(params), arguments.out / "model.onnx")
    # Calibration takes images without their labels; evaluation takes images never trained on.
    np.savez_compressed(arguments.out / "calib.npz", image=images[:CALIBRATION])
    np.savez_compressed(arguments.out / "eval.npz", image=held_out, y=held_out_labels)


if __name__ == "__main__":
    main()
