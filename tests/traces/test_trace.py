"""A trace as a value."""

from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.traces import Trace


def test_arrays_are_read_only_copies() -> None:
    given_array = np.array([1, 2])
    trace = Trace(input_tokens=given_array, output_tokens=np.array([3, 4]))
    given_array[0] = 9
    assert trace.input_tokens[0] == 1
    with pytest.raises(ValueError, match="read-only"):
        trace.input_tokens[0] = 5


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"output_tokens": [1]}, "has shape"),
        ({"output_tokens": [1, -1]}, "holds -1"),
        ({"output_tokens": [1, 1.5]}, "not whole numbers"),
        ({"arrival_s": [0, float("nan")]}, "not finite"),
        ({"cached_tokens": [0, 3]}, "more cached than input"),
    ],
)
def test_bad_values(change: dict[str, list[float]], problem: str) -> None:
    values = {"input_tokens": [1, 2], "output_tokens": [1, 1], **change}
    with pytest.raises(InputError, match=problem):
        Trace(**{name: np.array(value) for name, value in values.items()})  # type: ignore[arg-type]


def test_joining_nothing() -> None:
    with pytest.raises(InputError, match="no parts"):
        Trace.joined([])


def test_a_whole_tells_only_what_all_its_parts_tell() -> None:
    one = np.array([5])
    timed = Trace(input_tokens=one, output_tokens=one, arrival_s=np.array([1.0]), session=one, cached_upper_bound=True)
    whole = Trace.joined([timed, Trace(input_tokens=one, output_tokens=one, arrival_s=np.array([3.0]))])
    assert (whole.span_s, whole.session, whole.cached_upper_bound) == (2.0, None, True)


def test_requests_of_one_instant_keep_their_order() -> None:
    trace = Trace(input_tokens=np.array([1, 2, 3]), output_tokens=np.array([1, 1, 1]), arrival_s=np.array([5.0, 0, 5]))
    assert trace.in_order().input_tokens.tolist() == [2, 1, 3]
