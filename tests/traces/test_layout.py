"""Which column of a file plays which role, told by its names or by a map."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces.builders import CSV, JSONL, rows_of, write

from melange.errors import InputError
from melange.traces import read_trace


def test_tokens_csv_has_no_times(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, CSV))
    assert rows_of(trace) == [(13, 263), (52, 434), (0, 7)]
    assert trace.arrival_s is None
    assert trace.cached_tokens is None
    assert trace.session is None


def test_tokens_csv_with_every_optional_column(tmp_path: Path) -> None:
    text = "session,arrival_s,input_tokens,cached_tokens,output_tokens\nu1,5,100,0,7\nu2,5.5,30,16,8\nu1,7,200,100,9\n"
    trace = read_trace(write(tmp_path, text))
    assert rows_of(trace) == [(100, 7), (30, 8), (200, 9)]
    np.testing.assert_array_equal(trace.arrival_s, [0, 0.5, 2])
    np.testing.assert_array_equal(trace.cached_tokens, [0, 16, 100])
    np.testing.assert_array_equal(trace.session, [0, 1, 0])


def test_xxx_means_no_times(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,107,15\nXXX,396,513\n"))
    assert rows_of(trace) == [(107, 15), (396, 513)]
    assert trace.arrival_s is None


BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,230,1317,API log
"""


def test_burstgpt(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, BURSTGPT))
    assert rows_of(trace) == [(472, 18), (1087, 230)]
    np.testing.assert_array_equal(trace.arrival_s, [0, 40])


def test_mooncake_times_are_milliseconds(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, JSONL))
    np.testing.assert_array_equal(trace.arrival_s, [0, 1.5])
    assert trace.cached_tokens is None


def test_milliseconds_are_not_taken_for_seconds(tmp_path: Path) -> None:
    path = write(tmp_path, "t,i,o\n1700000000000,1,1\n")
    with pytest.raises(InputError, match="--time-unit ms"):
        read_trace(path, columns={"time": "t", "input": "i", "output": "o"})


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"input": "input_tokens"}, "has no output"),
        ({"input": "input_tokens", "output": "nope"}, "no column 'nope'.*found 'input_tokens', 'output_tokens'"),
        ({"input": "input_tokens", "output": "output_tokens", "size": "x"}, "unknown role 'size'"),
    ],
)
def test_bad_maps(tmp_path: Path, columns: dict[str, str], problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        read_trace(write(tmp_path, CSV), columns=columns)


def test_mapped_column_that_occurs_twice(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the column 'a' occurs twice"):
        read_trace(write(tmp_path, "a,a,b\n1,2,3\n"), columns={"input": "a", "output": "b"})


def test_format_and_map_contradict(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="both a column map and format azure"):
        read_trace(write(tmp_path, CSV), format="azure", columns={"input": "input_tokens", "output": "output_tokens"})
    with pytest.raises(InputError, match="without a column map"):
        read_trace(write(tmp_path, CSV), format="columns")


def test_format_without_its_columns(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no column 'TIMESTAMP', which format azure has"):
        read_trace(write(tmp_path, CSV), format="azure")
    with pytest.raises(InputError, match="unknown trace format"):
        read_trace(write(tmp_path, CSV), format="csv")
