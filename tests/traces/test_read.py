"""The doors: whatever the format and wherever blocks end, the same trace, or one line that says why not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from traces.builders import JSONL, rows_of, write

from melange.errors import InputError
from melange.traces import Trace, iter_trace, read_trace


@pytest.mark.parametrize("block_bytes", [1, 30, 1000])
def test_the_first_row_decides_on_times_wherever_a_block_ends(tmp_path: Path, block_bytes: int) -> None:
    texts = ("\narrival_s,input_tokens,output_tokens\n\n3,1,1\n4,1,1\n"[1:], "\n\n" + JSONL)
    for text, span in zip(texts, (1, 1.5), strict=True):
        parts = list(iter_trace(write(tmp_path, text), block_bytes=block_bytes))
        assert Trace.joined(parts).span_s == span


def test_out_of_order_arrivals_are_sorted(tmp_path: Path) -> None:
    text = "arrival_s,input_tokens,output_tokens\n10,1,1\n30,2,2\n20,3,3\n5,4,4\n"
    path = write(tmp_path, text)
    trace = read_trace(path)
    assert rows_of(trace) == [(4, 4), (1, 1), (3, 3), (2, 2)]
    np.testing.assert_array_equal(trace.arrival_s, [-5, 0, 10, 20])
    assert trace.span_s == 25
    (as_written,) = iter_trace(path)
    np.testing.assert_array_equal(as_written.arrival_s, [0, 20, 10, -5])


MAP = {"input": "n_in", "output": "n_out", "time": "when", "cached": "hits", "session": "who"}


def test_mapped_csv_jsonl_and_parquet_read_alike(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    rows = [
        {"who": "a", "when": 1.5, "n_in": 20, "hits": 3, "n_out": 4},
        {"who": "b", "when": 2.0, "n_in": 30, "hits": 0, "n_out": 5},
        {"who": "a", "when": 9.0, "n_in": 40, "hits": 40, "n_out": 6},
    ]
    header = ",".join(rows[0])
    lines = [",".join(map(str, row.values())) for row in rows]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "p", row_group_size=2)
    paths = [
        write(tmp_path, "\n".join([header, *lines]), "c"),
        write(tmp_path, "\n".join(map(json.dumps, rows)), "j"),
        tmp_path / "p",
    ]
    for path in paths:
        trace = read_trace(path, columns=MAP)
        assert rows_of(trace) == [(20, 4), (30, 5), (40, 6)]
        np.testing.assert_array_equal(trace.arrival_s, [0, 0.5, 7.5])
        np.testing.assert_array_equal(trace.cached_tokens, [3, 0, 40])
        np.testing.assert_array_equal(trace.session, [0, 1, 0])


def test_blocks_in_csv(tmp_path: Path) -> None:
    text = "a,b,c\n1,2,[3]\n"
    with pytest.raises(InputError, match="hash_ids in a CSV file"):
        read_trace(write(tmp_path, text), columns={"input": "a", "output": "b", "hash_ids": "c"})


SIZES = st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 10**6)), min_size=1, max_size=40)


@given(sizes=SIZES, block_bytes=st.integers(1, 200), packed=st.booleans(), jsonl=st.booleans())
@settings(max_examples=60, deadline=None)
def test_blocks_make_no_difference(
    tmp_path_factory: pytest.TempPathFactory,
    sizes: list[tuple[int, int]],
    block_bytes: int,
    packed: bool,
    jsonl: bool,
) -> None:
    if jsonl:
        text = "\n".join(json.dumps({"input_tokens": i, "output_tokens": o}) for i, o in sizes)
    else:
        text = "\n".join(["input_tokens,output_tokens", *(f"{i},{o}" for i, o in sizes)])
    content = gzip.compress(text.encode()) if packed else text.encode()
    path = write(tmp_path_factory.mktemp("blocks"), content)
    parts = list(iter_trace(path, block_bytes=block_bytes))
    assert rows_of(Trace.joined(parts)) == sizes


PIECES = st.sampled_from(
    [
        *("input_tokens", "output_tokens", "arrival_s", "TIMESTAMP,ContextTokens,GeneratedTokens", "XXX", "2024-01-01"),
        *',;\n\r"{}[]:-+.eE_ \t\x00\x1f\u00e9\ufeff019',
        *("1,2\n", "nan", "1e400", '{"input_tokens": 1, "output_tokens": 2}\n', "null", "# TYPE x counter\n"),
    ]
)


@given(pieces=st.lists(PIECES, max_size=12), start=st.sampled_from(["", "input_tokens,output_tokens\n", '{"']))
@settings(max_examples=300, deadline=None)
def test_any_text_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, pieces: list[str], start: str
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes((start + "".join(pieces)).encode())
    answers = []
    for block_bytes in (3, 1 << 20):
        try:
            answers.append(rows_of(Trace.joined(list(iter_trace(path, block_bytes=block_bytes)))))
        except InputError as error:
            # Where several values are wrong, which is named may depend on where blocks end.
            answers.append([])
            message = str(error)
            assert "\n" not in message
    assert answers[0] == answers[1]


@pytest.mark.parametrize(
    ("name", "rows", "timed"),
    [
        ("arena_lmsys_conversations.csv", 201_570, False),
        ("lmsys_chat_1m_sample.csv", 100_000, False),
        ("azure_llm_2023_conv.csv", 19_366, True),
        ("azure_llm_2023_code.csv", 8_819, True),
        ("mooncake_conversation.jsonl", 12_031, True),
    ],
)
def test_rows_of_the_real_traces(shared: Path, name: str, rows: int, timed: bool) -> None:
    trace = read_trace(shared / "traces" / name)
    assert len(trace) == rows
    assert (trace.arrival_s is not None) == timed
