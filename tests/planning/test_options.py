from __future__ import annotations

import pytest

from melange import InputError, SolveOptions


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"slice_factor": 0}, "slice factor is 0"),
        ({"gap": 1.0}, "gap is 1.0"),
        ({"gap": float("nan")}, "gap is nan"),
        ({"time_limit_s": 0.0}, "time limit is 0.0 s"),
    ],
)
def test_options_that_cannot_be_solved_with_are_refused(values, message):
    with pytest.raises(InputError, match=message):
        SolveOptions(**values)


def test_a_gap_of_zero_may_be_asked_for():
    assert SolveOptions(gap=0.0).gap == 0.0
