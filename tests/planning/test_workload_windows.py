from __future__ import annotations

import pytest

from melange import InputError
from melange.files.documents import Document
from melange.planning.workload_windows import read_windows, window_rule
from melange.workload.windows import WindowRule

CELLS = [(0, 0), (1, 1)]
SHAPE = (2, 2)
FIRST = {"start_s": 0.0, "length_s": 60.0, "requests": [3, 1]}
SECOND = {"start_s": 60.0, "length_s": 30.0, "requests": [0, 2]}


def windows_of(*rows):
    marks = {("windows",): (4, 1)} | {("windows", n, name): (5 + n, 9) for n in range(len(rows)) for name in rows[n]}
    return read_windows(Document(file="w.yaml", data={"windows": list(rows)}, marks=marks), CELLS, SHAPE)


def rule_of(**trace):
    return window_rule(Document(file="w.yaml", data={"trace": trace}, marks={("trace", "windows"): (3, 7)}))


def test_requests_go_to_the_cells_of_the_buckets():
    one, two = windows_of(FIRST, SECOND)
    assert (one.start_s, one.end_s, two.start_s, two.length_s) == (0, 60, 60, 30)
    assert (one.requests.tolist(), two.requests.tolist()) == ([[3, 0], [0, 1]], [[0, 0], [0, 2]])
    assert read_windows(Document(file="w.yaml", data={}, marks={}), CELLS, SHAPE) == ()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([FIRST, {**SECOND, "requests": [2]}], "w.yaml:6:9: the window has 1 numbers of requests, the workload 2"),
        ([FIRST, {**SECOND, "start_s": 59.0}], "w.yaml:6:9: the window at 59 s starts before the one above it ends"),
        ([{**FIRST, "requests": [0, 0]}], "w.yaml:4:1: no window holds a request"),
    ],
)
def test_what_makes_no_sense_is_named_where_it_stands(rows, message):
    with pytest.raises(InputError, match=message):
        windows_of(*rows)


def test_how_a_trace_is_to_be_cut():
    assert rule_of() == WindowRule()
    assert rule_of(windows="none") is None
    assert rule_of(windows=3) == WindowRule(count=3)
    assert rule_of(window_minutes=10) == WindowRule(length_s=600.0)
    with pytest.raises(InputError, match=r"w.yaml:3:7: both a number and a length of windows"):
        rule_of(windows=3, window_minutes=10)
