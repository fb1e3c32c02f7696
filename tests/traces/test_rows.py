"""The checks of values and times that all formats share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from traces.builders import CSV, rows_of, write

from melange.errors import InputError
from melange.traces import read_trace

AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319601,3180,8"""


def test_azure_times_have_seven_digits(tmp_path: Path) -> None:
    trace = read_trace(write(tmp_path, AZURE))
    assert rows_of(trace) == [(4808, 10), (3180, 8)]
    np.testing.assert_allclose(trace.arrival_s, [0, 0.0520001], atol=1e-9)


@pytest.mark.parametrize("second", ["2024-05-10 01:00:01+01:00", "2024-05-10T00:00:01Z", "2024-05-10 00:00:01.000"])
def test_times_with_zones_and_of_mixed_precision(tmp_path: Path, second: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00+00:00,1,2\n{second},3,4\n"
    np.testing.assert_array_equal(read_trace(write(tmp_path, text)).arrival_s, [0, 1])


@pytest.mark.parametrize(
    ("unit", "values", "expected"),
    [
        (None, ("100", "101.5"), [0, 1.5]),
        ("ms", ("100", "1600"), [0, 1.5]),
        ("us", ("0", "1500000"), [0, 1.5]),
        ("ns", ("0", "1500000000"), [0, 1.5]),
        (None, ("2024-01-01T00:00:00Z", "2024-01-01T00:00:01.5Z"), [0, 1.5]),
    ],
)
def test_time_units(tmp_path: Path, unit: str | None, values: tuple[str, str], expected: list[float]) -> None:
    text = "t,i,o\n" + "".join(f"{value},1,1\n" for value in values)
    columns = {"time": "t", "input": "i", "output": "o"}
    trace = read_trace(write(tmp_path, text), columns=columns, time_unit=unit)  # type: ignore[arg-type]
    np.testing.assert_allclose(trace.arrival_s, expected)


def test_whole_floats_are_counts(tmp_path: Path) -> None:
    assert rows_of(read_trace(write(tmp_path, CSV.replace("52", "52.0")))) == [(13, 263), (52, 434), (0, 7)]


@pytest.mark.parametrize("ids", ["null", "7", "[1, null]", "[[1]]", "[1.5]", "[true]"])
def test_blocks_that_are_no_ids(tmp_path: Path, ids: str) -> None:
    start = '{"timestamp": 0, "input_length": 900, "output_length": 1, "hash_ids": '
    with pytest.raises(InputError, match="hash_ids is not a list of whole numbers or texts") as caught:
        read_trace(write(tmp_path, f"{start}[1, 2]}}\n{start}{ids}}}\n"))
    assert caught.value.line == 2


@pytest.mark.parametrize("when", ["2023-11-16 25:00:00", "yesterday", "", "XXX"])
def test_bad_time(tmp_path: Path, when: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1,1\n{when},1,1\n"
    with pytest.raises(InputError, match=r"TIMESTAMP is .*not an ISO 8601 time") as caught:
        read_trace(write(tmp_path, text))
    assert caught.value.line == 3


@pytest.mark.parametrize("when", ["9999-01-01 00:00:00", "1066-10-14 09:00:00"])
def test_time_beyond_64_bits_of_ns(tmp_path: Path, when: str) -> None:
    text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,1\n{when},1,1\n"
    with pytest.raises(InputError, match="not an ISO 8601 time"):
        read_trace(write(tmp_path, text))


def test_absurd_number_as_time(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"arrival_s is 1e\+300, not a time in s"):
        read_trace(write(tmp_path, "arrival_s,input_tokens,output_tokens\n0,1,1\n1e300,1,1\n"))


def test_time_after_no_time(tmp_path: Path) -> None:
    text = "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,1,1\n2023-11-16 18:17:03,1,1\n"
    with pytest.raises(InputError, match="the first row's is 'XXX'") as caught:
        read_trace(write(tmp_path, text))
    assert caught.value.line == 3


def test_more_cached_than_input(tmp_path: Path) -> None:
    text = "input_tokens,output_tokens,cached_tokens\n5,1,5\n5,1,6\n"
    with pytest.raises(InputError, match="cached_tokens is 6 for 5 input tokens") as caught:
        read_trace(write(tmp_path, text))
    assert caught.value.line == 3
