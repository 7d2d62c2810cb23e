"""Every operator: LiteRT on the file agrees with onnxruntime on the converted graph."""

import numpy as np
import pytest

from tests.builders.handmade_tflite import assert_alike, one, tensor
from tests.builders.tiny import normal, uniform

INT = np.int32


def ints(*numbers):
    return np.asarray(numbers, INT)


IMAGE = (1, 9, 7, 4)
CONV = {"stride_h": 2, "stride_w": 1, "dilation_h_factor": 1, "dilation_w_factor": 1}
POOL = {"filter_height": 3, "filter_width": 2, "stride_h": 2, "stride_w": 2}
WEIGHTS = normal(6, 3, 3, 4)

# kind, input shapes, constants by position, output shape and type, options
CASES = {
    "a convolution with SAME pads": (
        "CONV_2D", [IMAGE], {1: WEIGHTS, 2: normal(6)}, [(1, 5, 7, 6)],
        CONV | {"padding": "SAME", "fused_activation_function": "RELU6"},
    ),
    "a VALID convolution that dilates": (
        "CONV_2D", [IMAGE], {1: WEIGHTS, 2: normal(6)}, [(1, 5, 3, 6)],
        {"stride_h": 1, "stride_w": 1, "dilation_h_factor": 2, "dilation_w_factor": 2,
         "padding": "VALID"},
    ),
    "a convolution in groups": (
        "CONV_2D", [IMAGE], {1: normal(6, 3, 3, 2), 2: normal(6)}, [(1, 5, 7, 6)],
        CONV | {"padding": "SAME"},
    ),
    "a depthwise convolution that multiplies channels": (
        "DEPTHWISE_CONV_2D", [IMAGE], {1: normal(1, 3, 3, 8), 2: normal(8)}, [(1, 5, 4, 8)],
        {"stride_h": 2, "stride_w": 2, "depth_multiplier": 2, "padding": "SAME",
         "dilation_h_factor": 1, "dilation_w_factor": 1},
    ),
    "a transposed convolution that is cut": (
        "TRANSPOSE_CONV", [IMAGE], {0: ints(1, 18, 14, 6), 1: WEIGHTS}, [(1, 18, 14, 6)],
        {"stride_h": 2, "stride_w": 2, "padding": "SAME"},
    ),
    "a transposed convolution that is filled up": (
        "TRANSPOSE_CONV", [IMAGE], {0: ints(1, 27, 21, 6), 1: normal(6, 2, 2, 4)},
        [(1, 27, 21, 6)], {"stride_h": 3, "stride_w": 3, "padding": "SAME"},
    ),
    "means that do not count pads": (
        "AVERAGE_POOL_2D", [IMAGE], {}, [(1, 5, 4, 4)], POOL | {"padding": "SAME"},
    ),
    "maxima": ("MAX_POOL_2D", [IMAGE], {}, [(1, 5, 4, 4)], POOL | {"padding": "SAME"}),
    "roots of mean squares": ("L2_POOL_2D", [IMAGE], {}, [(1, 4, 3, 4)],
                              POOL | {"padding": "VALID"}),
    "neighbors": (
        "LOCAL_RESPONSE_NORMALIZATION", [IMAGE], {}, [IMAGE],
        {"radius": 2, "bias": 1.0, "alpha": 0.5, "beta": 0.6},
    ),
    "lengths of one": ("L2_NORMALIZATION", [IMAGE], {}, [IMAGE], {}),
    "a larger image from the corner": (
        "RESIZE_BILINEAR", [IMAGE], {1: ints(17, 5)}, [(1, 17, 5, 4)], {},
    ),
    "a larger image from half pixels": (
        "RESIZE_BILINEAR", [IMAGE], {1: ints(17, 5)}, [(1, 17, 5, 4)],
        {"half_pixel_centers": True},
    ),
    "a larger image between corners": (
        "RESIZE_BILINEAR", [IMAGE], {1: ints(17, 5)}, [(1, 17, 5, 4)], {"align_corners": True},
    ),
    "nearest pixels": (
        "RESIZE_NEAREST_NEIGHBOR", [IMAGE], {1: ints(17, 5)}, [(1, 17, 5, 4)],
        {"half_pixel_centers": True},
    ),
    "blocks as samples": (
        "SPACE_TO_BATCH_ND", [IMAGE], {1: ints(2, 3), 2: np.asarray([[1, 2], [1, 1]], INT)},
        [(6, 6, 3, 4)], {},
    ),
    "samples as blocks": (
        "BATCH_TO_SPACE_ND", [(6, 6, 3, 4)],
        {1: ints(2, 3), 2: np.asarray([[1, 0], [2, 1]], INT)}, [(1, 11, 6, 4)], {},
    ),
    "blocks as channels": ("SPACE_TO_DEPTH", [(1, 8, 6, 3)], {}, [(1, 4, 3, 12)],
                           {"block_size": 2}),
    "channels as blocks": ("DEPTH_TO_SPACE", [IMAGE], {}, [(1, 18, 14, 1)], {"block_size": 2}),
    "a border with its neighbors": (
        "MIRROR_PAD", [IMAGE], {1: np.asarray([[0, 0], [1, 2], [0, 1], [1, 0]], INT)},
        [(1, 12, 8, 5)], {"mode": "SYMMETRIC"},
    ),
    "a reflected border": (
        "MIRROR_PAD", [IMAGE], {1: np.asarray([[0, 0], [1, 2], [0, 1], [0, 0]], INT)},
        [(1, 12, 8, 4)], {"mode": "REFLECT"},
    ),
    "a border of threes": (
        "PADV2", [IMAGE],
        {1: np.asarray([[0, 0], [1, 2], [0, 1], [1, 0]], INT), 2: np.float32(3)},
        [(1, 12, 8, 5)], {},
    ),
    "a slice with every mask": (
        "STRIDED_SLICE", [IMAGE], {1: ints(0, 1, 0, 2), 2: ints(1, 0, 0, 3), 3: ints(1, 2, 1, 1)},
        [(4, 1, 4)],
        {"end_mask": 2, "new_axis_mask": 4, "shrink_axis_mask": 9, "ellipsis_mask": 0},
    ),
    "a slice behind an ellipsis": (
        "STRIDED_SLICE", [IMAGE], {1: ints(0, 3), 2: ints(0, 0), 3: ints(1, -2)},
        [(1, 9, 7, 2)], {"ellipsis_mask": 1},
    ),
    "a slice with what is left": (
        "SLICE", [IMAGE], {1: ints(0, 2, 0, 1), 2: ints(1, -1, 7, 2)}, [(1, 7, 7, 2)], {},
    ),
    "rows by batch": (
        "GATHER", [(2, 5, 3)], {1: np.asarray([[4, 0], [1, 1]], INT)}, [(2, 2, 3)],
        {"axis": 1, "batch_dims": 1},
    ),
    "weights in rows": (
        "FULLY_CONNECTED", [(1, 2, 2, 3)], {1: normal(5, 12), 2: normal(5)}, [(1, 5)],
        {"fused_activation_function": "RELU"},
    ),
    "weights for each place": (
        "FULLY_CONNECTED", [(1, 4, 6)], {1: normal(5, 6), 2: normal(5)}, [(1, 4, 5)],
        {"keep_num_dims": True},
    ),
    "products of turned matrices": (
        "BATCH_MATMUL", [(2, 6, 4), (2, 5, 6)], {}, [(2, 4, 5)], {"adj_x": True, "adj_y": True},
    ),
    "a softmax with a slope": ("SOFTMAX", [(2, 5)], {}, [(2, 5)], {"beta": 2.0}),
    "slopes by channel": ("PRELU", [IMAGE], {1: uniform(1, 1, 4)}, [IMAGE], {}),
    "a leak": ("LEAKY_RELU", [IMAGE], {}, [IMAGE], {"alpha": 0.3}),
    "an exact gelu": ("GELU", [(2, 5)], {}, [(2, 5)], {"approximate": False}),
    "a gelu by tanh": ("GELU", [(2, 5)], {}, [(2, 5)], {"approximate": True}),
    "a hard swish": ("HARD_SWISH", [IMAGE], {}, [IMAGE], {}),
    "sums from behind": ("CUMSUM", [(2, 5)], {1: np.asarray(1, INT)}, [(2, 5)],
                         {"exclusive": True, "reverse": True}),
    "the root's inverse": ("RSQRT", [(2, 5)], {}, [(2, 5)], {}),
    "means over an image": ("MEAN", [IMAGE], {1: ints(1, 2)}, [(1, 4)], {"keep_dims": False}),
    "sums that stay": ("SUM", [IMAGE], {1: ints(-1)}, [(1, 9, 7, 1)], {"keep_dims": True}),
    "copies": ("TILE", [IMAGE], {1: ints(1, 2, 1, 3)}, [(1, 18, 7, 12)], {}),
    "axes backwards": ("REVERSE_V2", [IMAGE], {1: ints(1, 2)}, [IMAGE], {}),
    "values side by side": ("PACK", [(1, 3), (1, 3)], {}, [(1, 2, 3)],
                            {"axis": 1, "values_count": 2}),
    "values one by one": ("UNPACK", [(1, 2, 3)], {}, [(1, 3), (1, 3)], {"axis": 1, "num": 2}),
    "unequal parts": (
        "SPLIT_V", [(1, 6)], {1: ints(1, 3, 2), 2: np.asarray(1, INT)},
        [(1, 1), (1, 3), (1, 2)], {"num_splits": 3},
    ),
    "rounding down": ("FLOOR_MOD", [(2, 5), (2, 5)], {}, [(2, 5)], {}),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_an_operator_computes_the_same_in_both_runtimes(name):
    kind, shapes, constants, made, options = CASES[name]
    places = [i for i in range(len(shapes) + len(constants)) if i not in constants]
    inputs = {p: tensor(f"x{p}", s) for p, s in zip(places, shapes, strict=True)}
    outputs = [tensor(f"y{i}", shape) for i, shape in enumerate(made)]
    feeds = {t.name: normal(*t.shape, seed=p) for p, t in inputs.items()}
    if kind == "RSQRT":
        feeds = {name: np.abs(given) + 0.1 for name, given in feeds.items()}
    assert_alike(one(kind, inputs, constants, outputs, **options), feeds)


@pytest.mark.parametrize("kind", ["FLOOR_DIV", "FLOOR_MOD"])
def test_negative_integers_are_divided_downwards(kind):
    x = {0: tensor("a", (1, 6), "int32"), 1: tensor("b", (1, 6), "int32")}
    graph = one(kind, x, {}, [tensor("y", (1, 6), "int32")])
    feeds = {
        "a": np.asarray([[7, -7, 7, -7, 6, -6]], np.int32),
        "b": np.asarray([[2, 2, -2, -2, 3, 3]], np.int32),
    }
    assert_alike(graph, feeds)


@pytest.mark.parametrize("dtype", ["float32", "int32", "int64"])
def test_indices_outside_a_one_hot_have_no_hot_place(dtype):
    x = {0: tensor("i", (1, 4), "int32")}
    constants = {1: np.asarray(3, INT), 2: np.asarray(2, dtype), 3: np.asarray(-1, dtype)}
    graph = one("ONE_HOT", x, constants, [tensor("y", (1, 4, 3), dtype)], axis=-1)
    assert_alike(graph, {"i": np.asarray([[0, 2, 3, -1]], np.int32)})
