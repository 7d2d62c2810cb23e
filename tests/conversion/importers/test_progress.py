"""A conversion reports which of its stages are finished."""

from __future__ import annotations

from pathlib import Path

from edgekit.conversion.importers.source import detect_source
from edgekit.conversion.importers.subprocesses import convert_in_process

_SLOW = """
import time
from onnx import parser

time.sleep(1)

def make():
    time.sleep(1)
    return parser.parse_model('<ir_version: 8, opset_import: ["" : 17]> '
                              'g (float[1,2] x) => (float[1,2] y) { y = Relu(x) }')
"""


def test_stages_of_a_conversion_are_counted(tmp_path):
    (tmp_path / "slow.py").write_text(_SLOW)
    source = detect_source(Path("slow:make"), folder=tmp_path, trusted=False)
    told = []

    convert_in_process(source, tmp_path, lambda *each: told.append(each))

    assert told[0] == (0, 3)
    assert told == sorted(told)
    assert {done for done, _ in told} & {1, 2}
