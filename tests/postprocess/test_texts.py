"""Greedy CTC decoding."""

import numpy as np
import pytest

from edgekit_agent.failures import AgentError
from edgekit_agent.postprocess import postprocess
from edgekit_agent.scoring import Postprocess

CHARSET = ("a", "b", "ß", " ")


def decode(classes, settings, transpose=False):
    scores = np.eye(len(CHARSET) + 1)[classes]
    outputs = {"scores": scores.T if transpose else scores}
    return "".join(map(chr, postprocess(outputs, {}, settings)["text"]))


def test_repeated_classes_count_once_and_a_blank_divides_them():
    settings = Postprocess("ctc", charset=CHARSET)
    assert decode([0, 1, 1, 0, 1, 2, 2, 4, 3, 0], settings) == "aab ß"
    assert decode([0, 0], settings) == ""


def test_the_blank_may_be_any_class():
    assert decode([4, 0, 0, 4, 0, 2], Postprocess("ctc", charset=CHARSET, blank=4)) == "aaß"
    assert decode([0, 1, 2], Postprocess("ctc", charset=CHARSET, blank=1)) == "ab"


def test_classes_are_found_in_either_axis():
    settings = Postprocess("ctc", charset=CHARSET)
    assert decode([1, 2, 3], settings, transpose=True) == "abß"
    scores = np.eye(5)[[1, 2]][:, None]
    assert postprocess({"s": scores}, {}, settings)["text"].tolist() == [97, 98]
    assert postprocess({"s": np.eye(5)[[3]]}, {}, settings)["text"].tolist() == [0xDF]


def test_a_charset_that_does_not_fit_is_refused():
    with pytest.raises(AgentError, match="no axis of 5 classes"):
        postprocess({"s": np.zeros((7, 6))}, {}, Postprocess("ctc", charset=CHARSET))
    with pytest.raises(AgentError, match="blank 5 must be less than 5"):
        postprocess({"s": np.zeros((7, 5))}, {}, Postprocess("ctc", charset=CHARSET, blank=5))
