"""A model over 2 GiB: inspected, quantized, run."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from textwrap import dedent

import pytest

GIB = 1 << 30
MOST_KIB = 12 << 20

WHOLE = """
    import sys
    from pathlib import Path

    import numpy as np
    import onnx
    from onnx import TensorProto, helper

    from edgekit.onnx_graph.io import read_onnx
    from edgekit.inspection.summary import inspect
    from tests.builders.tiny import apply, run, sqnr_db, uniform

    folder = Path(sys.argv[1])
    widths = [4096, 24576, 4096, 24576, 4096, 24576, 4096]
    block = (np.random.default_rng(0).standard_normal(1 << 22) / 64).astype(np.float32)
    nodes, tensors, offset = [], [], 0
    with (folder / "weights.bin").open("wb") as file:
        for i, (into, out) in enumerate(zip(widths, widths[1:])):
            for _ in range(into * out // block.size):
                file.write(block)
            tensor = TensorProto(name=f"w{i}", dims=[into, out], data_type=1, data_location=1)
            place = {"location": "weights.bin", "offset": offset, "length": 4 * into * out}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            offset += 4 * into * out
            tensors.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"r{i}", f"w{i}"], [f"m{i}"]))
            nodes.append(helper.make_node("Relu", [f"m{i}"], [f"r{i + 1}"]))
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("r0", 1, ["N", widths[0]])],
        [helper.make_tensor_value_info(f"r{len(widths) - 1}", 1, ["N", widths[-1]])],
        tensors,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(made, folder / "model.onnx")

    source = read_onnx(folder / "model.onnx")
    assert source.bytes > 1 << 31
    found = inspect(source.path, device="tablet-x86", folder=folder)
    assert found.cost.macs == found.cost.parameters == offset // 4
    small = apply("quantize-dynamic", source, folder)
    assert not small.beside
    assert small.bytes < 0.26 * source.bytes
    x = uniform(2, widths[0])
    assert sqnr_db(run(source, r0=x)[0], run(small, r0=x)[0]) > 15
    print(Path("/proc/self/status").read_text())
"""


def memory_kib():
    with open("/proc/meminfo") as file:  # noqa: PTH123 - not a file of anyone's
        return int(re.search(r"MemAvailable:\s+(\d+)", file.read())[1])


@pytest.mark.slow
def test_a_model_over_two_gib_is_quantized_with_the_same_outputs(tmp_path):
    if memory_kib() < MOST_KIB:
        pytest.skip("under 12 GiB of memory are free")
    if shutil.disk_usage(tmp_path).free < 8 * GIB:
        pytest.skip("under 8 GiB of disk are free")
    command = [sys.executable, "-c", dedent(WHOLE), str(tmp_path)]
    said = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout

    assert int(re.search(r"VmHWM:\s+(\d+) kB", said)[1]) < MOST_KIB
    shutil.rmtree(tmp_path)
