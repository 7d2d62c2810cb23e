"""A small network of plain, depthwise, strided and dense layers, with its weights."""

from tests.builders.tiny import normal


def network(channels, size):
    """Return the ONNX text, for images of these channels and sizes."""
    return (
        f"g (float[N,{channels},{size},{size}] x) => (float[N,10] y) {{ "
        "c = Conv<pads = [1,1,1,1]>(x, w0, b0) r = Relu(c) "
        "d = Conv<pads = [1,1,1,1], group = 16>(r, w1) q = Relu(d) "
        "e = Conv<strides = [2,2]>(q, w2, b2) t = Relu(e) p = GlobalAveragePool(t) f = Flatten(p) "
        "y = Gemm<transB = 1>(f, v, k) }"
    )


def weights(channels):
    return {
        "w0": normal(16, channels, 3, 3, scale=0.3),
        "b0": normal(16),
        "w1": normal(16, 1, 3, 3, scale=0.4, seed=1),
        "w2": normal(24, 16, 1, 1, scale=0.3, seed=2),
        "b2": normal(24),
        "v": normal(10, 24, seed=3),
        "k": normal(10),
    }
