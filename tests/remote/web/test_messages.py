"""Messages between host and page."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from edgekit.errors import DeviceError
from edgekit.remote.web.messages import DTYPES, Message, decode_message, encode_message

ARRAYS = st.dictionaries(
    st.text(max_size=8),
    st.sampled_from(sorted(DTYPES)).flatmap(
        lambda kind: arrays_of.arrays(kind, arrays_of.array_shapes(min_dims=0, min_side=0))
    ),
    max_size=4,
)


@settings(deadline=None)
@given(arrays=ARRAYS, facts=st.dictionaries(st.sampled_from(["a", "b"]), st.integers(0, 9)))
def test_a_message_is_read_as_it_was_written(arrays, facts):
    read = decode_message(encode_message(Message(facts=facts, arrays=arrays)))
    assert read.facts == facts
    assert list(read.arrays) == list(arrays)
    for name, values in arrays.items():
        assert read.arrays[name].dtype == values.dtype
        assert read.arrays[name].shape == values.shape
        assert read.arrays[name].tobytes() == values.tobytes()


@pytest.mark.parametrize("size", range(0, 60, 7))
def test_a_message_that_was_cut_is_refused(size):
    whole = encode_message(Message(facts={}, arrays={"x": np.ones(3)}))
    with pytest.raises(DeviceError, match="invalid answer of the page"):
        decode_message(whole[: min(size, len(whole) - 1)])


def test_arrays_of_unknown_types_are_refused():
    data = encode_message(Message(facts={}, arrays={"x": np.ones(3)}))
    with pytest.raises(DeviceError, match="unknown type"):
        decode_message(data.replace(b'"float64"', b'"object_"'))
