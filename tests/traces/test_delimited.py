"""CSV: what is read alike, and the place of every value that is wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from traces.builders import CSV, rows_of, write

from melange.errors import InputError
from melange.traces import Trace, iter_trace, read_trace


@pytest.mark.parametrize("delimiter", [";", "\t", "|"])
def test_other_delimiters(tmp_path: Path, delimiter: str) -> None:
    assert rows_of(read_trace(write(tmp_path, CSV.replace(",", delimiter)))) == [(13, 263), (52, 434), (0, 7)]


def test_byte_order_mark_crlf_blank_lines_and_spaces(tmp_path: Path) -> None:
    text = "\ufeffinput_tokens, output_tokens\r\n13, 263\r\n\r\n52,434 \r\n"
    assert rows_of(read_trace(write(tmp_path, text))) == [(13, 263), (52, 434)]


def test_quoted_fields_may_hold_delimiters_and_newlines(tmp_path: Path) -> None:
    text = 'prompt,input_tokens,output_tokens\n"a, ""b""\nc",13,263\n"d\n\n",52,434\n'
    path = write(tmp_path, text)
    for block_bytes in (1, 7, 20, 1000):
        parts = list(iter_trace(path, block_bytes=block_bytes))
        assert rows_of(Trace.joined(parts)) == [(13, 263), (52, 434)]


BAD_CSV = [
    ("text", "1,2\n3,many\n", 3, 3, "output_tokens is 'many', not a number"),
    ("empty field", "1,2\n,4\n", 3, 1, "input_tokens is empty"),
    ("nan", "1,2\n3,nan\n", 3, 3, "output_tokens is 'nan', not a number"),
    ("infinite", "1,2\n3,inf\n", 3, 3, "is inf, not a count"),
    ("overflow", "1,2\n3,1e999\n", 3, 3, "is inf, not a count"),
    ("hexadecimal", "1,2\n3,0x10\n", 3, 3, "'0x10', not a number"),
    ("underscore", "1,2\n3,1_000\n", 3, 3, "'1_000', not a number"),
    ("negative", "1,2\n-3,4\n", 3, 1, "input_tokens is -3, not a count of tokens"),
    ("fraction", "1,2\n3,4.5\n", 3, 3, "output_tokens is 4.5, not a count of tokens"),
    ("short row", "1,2\n3\n", 3, None, "output_tokens is missing"),
    ("long row", "1,2\n3,4,5\n", 3, None, "3 fields where the header has 2"),
    ("long first row", "1,2,3\n3,4\n", 2, None, "3 fields where the header has 2"),
    ("unclosed quote", '1,2\n3,"4\n5,6\n', 3, None, "not CSV"),
]


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("block_bytes", [1, 4 << 20])
@pytest.mark.parametrize(
    ("body", "line", "column", "problem"), [case[1:] for case in BAD_CSV], ids=[case[0] for case in BAD_CSV]
)
def test_csv_value(
    tmp_path: Path, body: str, line: int, column: int | None, problem: str, block_bytes: int, packed: bool
) -> None:
    content = ("input_tokens,output_tokens\n" + body).encode()
    path = write(tmp_path, gzip.compress(content) if packed else content)
    with pytest.raises(InputError, match=problem) as caught:
        list(iter_trace(path, block_bytes=block_bytes))
    assert (caught.value.file, caught.value.line) == (str(path), line)
    if column is not None:
        assert caught.value.column == column
    assert "\n" not in str(caught.value)


def test_a_header_that_no_trace_has(tmp_path: Path) -> None:
    for header, reason in (
        ("input_tokens,output_tokens,input_tokens", "'input_tokens' occurs twice"),
        (",".join(f"c{n}" for n in range(20_000)), "20000 columns"),
        ("x" * 200_000 + ",output_tokens", "field larger than"),
    ):
        with pytest.raises(InputError, match=reason):
            read_trace(write(tmp_path, f"{header}\n1,2,3\n", "trace.csv"))
