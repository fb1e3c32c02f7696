"""Parquet: times, blocks, and the row of every value that is wrong."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from traces.builders import write

from melange.errors import InputError, MissingExtraError
from melange.traces import read_trace


def test_parquet_blocks(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {"timestamp": [0, 1], "input_length": [600, 700], "output_length": [1, 1]}
    for ids, expected in (([[1, 2], [1, 3]], [0, 512]), ([[1, 2], None], None)):
        parquet.write_table(pa.table({**columns, "hash_ids": ids}), tmp_path / "p")
        if expected is not None:
            np.testing.assert_array_equal(read_trace(tmp_path / "p").cached_tokens, expected)
        else:
            with pytest.raises(InputError, match="row 2: hash_ids is not a list"):
                read_trace(tmp_path / "p")


def test_parquet_times(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    times = pa.array([1_700_000_000_000, 1_700_000_001_500])
    for column in (times.cast(pa.timestamp("ms", tz="UTC")), times.cast(pa.timestamp("ms"))):
        table = pa.table({"TIMESTAMP": column, "ContextTokens": [1, 2], "GeneratedTokens": [3, 4]})
        parquet.write_table(table, tmp_path / "p")
        np.testing.assert_array_equal(read_trace(tmp_path / "p").arrival_s, [0, 1.5])


def test_parquet_with_missing_and_wrong_values(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    path = tmp_path / "p"
    for outputs, problem in (
        ([1, None], "row 2: output_tokens is missing"),
        (["a", "b"], "type (large_)?string"),
        ([1.5, 1], "row 1: output_tokens is 1.5"),
    ):
        parquet.write_table(pa.table({"input_tokens": [1, 2], "output_tokens": outputs}), path)
        with pytest.raises(InputError, match=problem):
            read_trace(path)


def test_parquet_without_pyarrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"'\.\[parquet\]'"):
        read_trace(write(tmp_path, b"PAR1"))
