from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from melange.errors import InputError, MissingExtraError
from melange.traces import Trace, iter_trace, read_trace
from melange.traces.prefixes import PrefixCache

CSV = "input_tokens,output_tokens\n13,263\n52,434\n0,7\n"
JSONL = """{"timestamp": 0, "input_length": 13, "output_length": 263}
{"timestamp": 1500, "input_length": 52, "output_length": 434}
"""
AZURE = """TIMESTAMP,ContextTokens,GeneratedTokens
2023-11-16 18:17:03.9799600,4808,10
2023-11-16 18:17:04.0319601,3180,8"""
BURSTGPT = """Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type
5,ChatGPT,472,18,490,Conversation log
45,GPT-4,1087,230,1317,API log
"""


def write(folder: Path, content: str | bytes, name: str = "trace") -> Path:
    path = folder / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def rows_of(trace: Trace) -> list[tuple[int, int]]:
    return list(zip(trace.input_tokens.tolist(), trace.output_tokens.tolist(), strict=True))


class TestFormats:
    def test_tokens_csv_has_no_times(self, tmp_path: Path) -> None:
        trace = read_trace(write(tmp_path, CSV))
        assert rows_of(trace) == [(13, 263), (52, 434), (0, 7)]
        assert trace.arrival_s is None
        assert trace.cached_tokens is None
        assert trace.session is None

    def test_tokens_csv_with_every_optional_column(self, tmp_path: Path) -> None:
        text = (
            "session,arrival_s,input_tokens,cached_tokens,output_tokens\nu1,5,100,0,7\nu2,5.5,30,16,8\nu1,7,200,100,9\n"
        )
        trace = read_trace(write(tmp_path, text))
        assert rows_of(trace) == [(100, 7), (30, 8), (200, 9)]
        np.testing.assert_array_equal(trace.arrival_s, [0, 0.5, 2])
        np.testing.assert_array_equal(trace.cached_tokens, [0, 16, 100])
        np.testing.assert_array_equal(trace.session, [0, 1, 0])

    def test_azure_times_have_seven_digits(self, tmp_path: Path) -> None:
        trace = read_trace(write(tmp_path, AZURE))
        assert rows_of(trace) == [(4808, 10), (3180, 8)]
        np.testing.assert_allclose(trace.arrival_s, [0, 0.0520001], atol=1e-9)

    @pytest.mark.parametrize("second", ["2024-05-10 01:00:01+01:00", "2024-05-10T00:00:01Z", "2024-05-10 00:00:01.000"])
    def test_times_with_zones_and_of_mixed_precision(self, tmp_path: Path, second: str) -> None:
        text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:00+00:00,1,2\n{second},3,4\n"
        np.testing.assert_array_equal(read_trace(write(tmp_path, text)).arrival_s, [0, 1])

    def test_xxx_means_no_times(self, tmp_path: Path) -> None:
        trace = read_trace(write(tmp_path, "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,107,15\nXXX,396,513\n"))
        assert rows_of(trace) == [(107, 15), (396, 513)]
        assert trace.arrival_s is None

    def test_burstgpt(self, tmp_path: Path) -> None:
        trace = read_trace(write(tmp_path, BURSTGPT))
        assert rows_of(trace) == [(472, 18), (1087, 230)]
        np.testing.assert_array_equal(trace.arrival_s, [0, 40])

    def test_mooncake_times_are_milliseconds(self, tmp_path: Path) -> None:
        trace = read_trace(write(tmp_path, JSONL))
        np.testing.assert_array_equal(trace.arrival_s, [0, 1.5])
        assert trace.cached_tokens is None

    def test_mooncake_blocks_become_cached_tokens(self, tmp_path: Path) -> None:
        requests = [([0, 1], 700), ([0, 1, 2], 1300), ([0, 1], 1024), ([0, 9, 1], 1500), ([], 5)]
        lines = [
            json.dumps({"timestamp": 0, "input_length": size, "output_length": 1, "hash_ids": ids})
            for ids, size in requests
        ]
        trace = read_trace(write(tmp_path, "\n".join(lines)))
        # By hand: nothing yet; two blocks; two blocks less the token always computed; one block, then a miss; none.
        np.testing.assert_array_equal(trace.cached_tokens, [0, 1024, 1023, 512, 0])
        assert trace.cached_upper_bound

    def test_blocks_of_another_size_are_noticed(self, tmp_path: Path) -> None:
        line = json.dumps({"timestamp": 0, "input_length": 160, "output_length": 1, "hash_ids": list(range(10))})
        path = write(tmp_path, f"{line}\n{line}\n")
        with pytest.raises(InputError, match="--block-tokens"):
            read_trace(path)
        np.testing.assert_array_equal(read_trace(path, block_tokens=16).cached_tokens, [0, 159])

    @pytest.mark.parametrize("delimiter", [";", "\t", "|"])
    def test_other_delimiters(self, tmp_path: Path, delimiter: str) -> None:
        assert rows_of(read_trace(write(tmp_path, CSV.replace(",", delimiter)))) == [(13, 263), (52, 434), (0, 7)]

    def test_byte_order_mark_crlf_blank_lines_and_spaces(self, tmp_path: Path) -> None:
        text = "\ufeffinput_tokens, output_tokens\r\n13, 263\r\n\r\n52,434 \r\n"
        assert rows_of(read_trace(write(tmp_path, text))) == [(13, 263), (52, 434)]

    @pytest.mark.parametrize("block_bytes", [1, 30, 1000])
    def test_the_first_row_decides_on_times_wherever_a_block_ends(self, tmp_path: Path, block_bytes: int) -> None:
        texts = ("\narrival_s,input_tokens,output_tokens\n\n3,1,1\n4,1,1\n"[1:], "\n\n" + JSONL)
        for text, span in zip(texts, (1, 1.5), strict=True):
            parts = list(iter_trace(write(tmp_path, text), block_bytes=block_bytes))
            assert Trace.joined(parts).span_s == span

    def test_quoted_fields_may_hold_delimiters_and_newlines(self, tmp_path: Path) -> None:
        text = 'prompt,input_tokens,output_tokens\n"a, ""b""\nc",13,263\n"d\n\n",52,434\n'
        path = write(tmp_path, text)
        for block_bytes in (1, 7, 20, 1000):
            parts = list(iter_trace(path, block_bytes=block_bytes))
            assert rows_of(Trace.joined(parts)) == [(13, 263), (52, 434)]

    def test_whole_floats_are_counts(self, tmp_path: Path) -> None:
        assert rows_of(read_trace(write(tmp_path, CSV.replace("52", "52.0")))) == [(13, 263), (52, 434), (0, 7)]

    @pytest.mark.parametrize("text", [CSV, JSONL])
    def test_gzip_is_told_by_content(self, tmp_path: Path, text: str) -> None:
        plain = read_trace(write(tmp_path, text, "plain"))
        members = gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode())
        for packed in (gzip.compress(text.encode()), members):
            assert rows_of(read_trace(write(tmp_path, packed, "packed.csv"))) == rows_of(plain)

    def test_out_of_order_arrivals_are_sorted(self, tmp_path: Path) -> None:
        text = "arrival_s,input_tokens,output_tokens\n10,1,1\n30,2,2\n20,3,3\n5,4,4\n"
        path = write(tmp_path, text)
        trace = read_trace(path)
        assert rows_of(trace) == [(4, 4), (1, 1), (3, 3), (2, 2)]
        np.testing.assert_array_equal(trace.arrival_s, [-5, 0, 10, 20])
        assert trace.span_s == 25
        (as_written,) = iter_trace(path)
        np.testing.assert_array_equal(as_written.arrival_s, [0, 20, 10, -5])


class TestColumns:
    MAP: ClassVar = {"input": "n_in", "output": "n_out", "time": "when", "cached": "hits", "session": "who"}

    def test_mapped_csv_jsonl_and_parquet_read_alike(self, tmp_path: Path) -> None:
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
            trace = read_trace(path, columns=self.MAP)
            assert rows_of(trace) == [(20, 4), (30, 5), (40, 6)]
            np.testing.assert_array_equal(trace.arrival_s, [0, 0.5, 7.5])
            np.testing.assert_array_equal(trace.cached_tokens, [3, 0, 40])
            np.testing.assert_array_equal(trace.session, [0, 1, 0])

    def test_parquet_blocks(self, tmp_path: Path) -> None:
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

    def test_blocks_in_csv(self, tmp_path: Path) -> None:
        text = "a,b,c\n1,2,[3]\n"
        with pytest.raises(InputError, match="hash_ids in a CSV file"):
            read_trace(write(tmp_path, text), columns={"input": "a", "output": "b", "hash_ids": "c"})

    def test_parquet_times(self, tmp_path: Path) -> None:
        pa = pytest.importorskip("pyarrow")
        parquet = pytest.importorskip("pyarrow.parquet")
        times = pa.array([1_700_000_000_000, 1_700_000_001_500])
        for column in (times.cast(pa.timestamp("ms", tz="UTC")), times.cast(pa.timestamp("ms"))):
            table = pa.table({"TIMESTAMP": column, "ContextTokens": [1, 2], "GeneratedTokens": [3, 4]})
            parquet.write_table(table, tmp_path / "p")
            np.testing.assert_array_equal(read_trace(tmp_path / "p").arrival_s, [0, 1.5])

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
    def test_time_units(self, tmp_path: Path, unit: str | None, values: tuple[str, str], expected: list[float]) -> None:
        text = "t,i,o\n" + "".join(f"{value},1,1\n" for value in values)
        columns = {"time": "t", "input": "i", "output": "o"}
        trace = read_trace(write(tmp_path, text), columns=columns, time_unit=unit)  # type: ignore[arg-type]
        np.testing.assert_allclose(trace.arrival_s, expected)

    def test_milliseconds_are_not_taken_for_seconds(self, tmp_path: Path) -> None:
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
    def test_bad_maps(self, tmp_path: Path, columns: dict[str, str], problem: str) -> None:
        with pytest.raises(InputError, match=problem):
            read_trace(write(tmp_path, CSV), columns=columns)

    def test_mapped_column_that_occurs_twice(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="more than one column 'a'"):
            read_trace(write(tmp_path, "a,a,b\n1,2,3\n"), columns={"input": "a", "output": "b"})

    def test_format_and_map_contradict(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="both a column map and format azure"):
            read_trace(
                write(tmp_path, CSV), format="azure", columns={"input": "input_tokens", "output": "output_tokens"}
            )
        with pytest.raises(InputError, match="without a column map"):
            read_trace(write(tmp_path, CSV), format="columns")


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


class TestBadInput:
    @pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
    @pytest.mark.parametrize("block_bytes", [1, 4 << 20])
    @pytest.mark.parametrize(
        ("body", "line", "column", "problem"), [case[1:] for case in BAD_CSV], ids=[case[0] for case in BAD_CSV]
    )
    def test_csv_value(
        self, tmp_path: Path, body: str, line: int, column: int | None, problem: str, block_bytes: int, packed: bool
    ) -> None:
        content = ("input_tokens,output_tokens\n" + body).encode()
        path = write(tmp_path, gzip.compress(content) if packed else content)
        with pytest.raises(InputError, match=problem) as caught:
            list(iter_trace(path, block_bytes=block_bytes))
        assert (caught.value.file, caught.value.line) == (str(path), line)
        if column is not None:
            assert caught.value.column == column
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("block_bytes", [1, 4 << 20])
    @pytest.mark.parametrize(
        ("second", "problem"),
        [
            ('{"input_tokens": "7", "output_tokens": 1}', 'input_tokens is "7", not a number'),
            ('{"input_tokens": true, "output_tokens": 1}', "input_tokens is true, not a number"),
            ('{"input_tokens": null, "output_tokens": 1}', "input_tokens is null, not a number"),
            ('{"input_tokens": NaN, "output_tokens": 1}', "input_tokens is nan, not a count"),
            ('{"input_tokens": -7, "output_tokens": 1}', "input_tokens is -7, not a count"),
            ('{"input_tokens": 7.5, "output_tokens": 1}', "input_tokens is 7.5, not a count"),
            ('{"input_tokens": 1' + "0" * 400 + ', "output_tokens": 1}', "input_tokens is too large"),
            ('{"output_tokens": 1}', "input_tokens is missing"),
            ('{"input_tokens": 7, "output_tokens"', "not JSON"),
            ('{"input_tokens": 7, "output_tokens": 1} {}', "not JSON: Extra data"),
            ("[7, 1]", "a list, not an object"),
            ('{"input_tokens": 1' + "0" * 5000 + ', "output_tokens": 1}', "too many digits"),
            ('{"input_tokens": ' + "[" * 100_000 + "]" * 100_000 + "}", "nested too deeply"),
        ],
    )
    def test_jsonl_value(self, tmp_path: Path, second: str, problem: str, block_bytes: int) -> None:
        good = '{"input_tokens": 7, "output_tokens": 1}'
        path = write(tmp_path, f"{good}\n\n{second}\n{good}\n")
        with pytest.raises(InputError, match=problem) as caught:
            list(iter_trace(path, block_bytes=block_bytes))
        assert (caught.value.file, caught.value.line) == (str(path), 3)

    @pytest.mark.parametrize("ids", ["null", "7", "[1, null]", "[[1]]", "[1.5]", "[true]"])
    def test_blocks_that_are_no_ids(self, tmp_path: Path, ids: str) -> None:
        start = '{"timestamp": 0, "input_length": 900, "output_length": 1, "hash_ids": '
        with pytest.raises(InputError, match="hash_ids is not a list of whole numbers or texts") as caught:
            read_trace(write(tmp_path, f"{start}[1, 2]}}\n{start}{ids}}}\n"))
        assert caught.value.line == 2

    def test_jsonl_column_points_at_the_key(self, tmp_path: Path) -> None:
        path = write(tmp_path, '{"input_tokens": 7, "output_tokens": -1}\n')
        with pytest.raises(InputError) as caught:
            read_trace(path)
        assert (caught.value.line, caught.value.column) == (1, 21)

    @pytest.mark.parametrize("when", ["2023-11-16 25:00:00", "yesterday", "", "XXX"])
    def test_bad_time(self, tmp_path: Path, when: str) -> None:
        text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.97,1,1\n{when},1,1\n"
        with pytest.raises(InputError, match=r"TIMESTAMP is .*not an ISO 8601 time") as caught:
            read_trace(write(tmp_path, text))
        assert caught.value.line == 3

    @pytest.mark.parametrize("when", ["9999-01-01 00:00:00", "1066-10-14 09:00:00"])
    def test_time_beyond_64_bits_of_ns(self, tmp_path: Path, when: str) -> None:
        text = f"TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03,1,1\n{when},1,1\n"
        with pytest.raises(InputError, match="not an ISO 8601 time"):
            read_trace(write(tmp_path, text))

    def test_absurd_number_as_time(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"arrival_s is 1e\+300, not a time in s"):
            read_trace(write(tmp_path, "arrival_s,input_tokens,output_tokens\n0,1,1\n1e300,1,1\n"))

    def test_pipe(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="a pipe or a device"):
            read_trace("/dev/null")

    def test_time_after_no_time(self, tmp_path: Path) -> None:
        text = "TIMESTAMP,ContextTokens,GeneratedTokens\nXXX,1,1\n2023-11-16 18:17:03,1,1\n"
        with pytest.raises(InputError, match="the first row's is 'XXX'") as caught:
            read_trace(write(tmp_path, text))
        assert caught.value.line == 3

    def test_more_cached_than_input(self, tmp_path: Path) -> None:
        text = "input_tokens,output_tokens,cached_tokens\n5,1,5\n5,1,6\n"
        with pytest.raises(InputError, match="cached_tokens is 6 for 5 input tokens") as caught:
            read_trace(write(tmp_path, text))
        assert caught.value.line == 3

    @pytest.mark.parametrize("cut", [1, 8, 30])
    def test_truncated_gzip(self, tmp_path: Path, cut: int) -> None:
        body = "input_tokens,output_tokens\n" + "".join(f"{i},{i * i}\n" for i in range(1000))
        with pytest.raises(InputError, match="truncated"):
            read_trace(write(tmp_path, gzip.compress(body.encode())[:-cut]))

    def test_damaged_gzip(self, tmp_path: Path) -> None:
        packed = bytearray(gzip.compress(("input_tokens,output_tokens\n" + "1,2\n" * 1000).encode()))
        packed[-6] ^= 0xFF
        with pytest.raises(InputError, match="damaged"):
            read_trace(write(tmp_path, bytes(packed)))

    @pytest.mark.parametrize(
        ("content", "problem"),
        [
            (b"", "is empty"),
            (b"  \n\n", "is empty"),
            (gzip.compress(b"", mtime=0), "is empty"),
            (b"input_tokens,output_tokens\n", "no rows"),
            (b"input_tokens,output_tokens\n\n\n", "no rows"),
            (b"\x89PNG\r\n\x1a\n\x00\x00", "not a text file"),
            (bytes(range(128, 256)) * 9, "not a text file"),
            ("input_tokens,output_tokens\n1,2\n".encode("utf-16"), "not a text file"),
            (gzip.compress(b"\x00\x01\x02", mtime=0), "not a text file"),
            (b"PK\x03\x04rest", "a zip archive"),
            (b"PAR1 and no more", "not a readable Parquet file"),
            (gzip.compress(b"PAR1", mtime=0), "gzipped Parquet"),
            (b'[{"input_tokens": 1}]', "one JSON array"),
            (b"13,263\n52,434\n", "numbers, not column names"),
            (b"a,b\n1,2\n", "not recognised; found 'a', 'b'.*--columns"),
            (b'{"a": 1}\n', "not recognised; found 'a'"),
            (b"input_tokens,length\n1,2\n", "not recognised"),
        ],
    )
    def test_whole_file(self, tmp_path: Path, content: bytes, problem: str) -> None:
        path = write(tmp_path, content)
        with pytest.raises(InputError, match=problem) as caught:
            read_trace(path)
        assert caught.value.file == str(path)
        assert caught.value.exit_code == 2

    def test_missing_file_and_folder(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="No such file"):
            read_trace(tmp_path / "nope.csv")
        with pytest.raises(InputError, match="directory"):
            read_trace(tmp_path)

    def test_format_without_its_columns(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match="no column 'TIMESTAMP', which format azure has"):
            read_trace(write(tmp_path, CSV), format="azure")
        with pytest.raises(InputError, match="unknown trace format"):
            read_trace(write(tmp_path, CSV), format="csv")

    def test_parquet_with_missing_and_wrong_values(self, tmp_path: Path) -> None:
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

    def test_parquet_without_pyarrow(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(MissingExtraError, match=r"melange\[parquet\]"):
            read_trace(write(tmp_path, b"PAR1"))


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


BLOCKS = st.lists(st.lists(st.one_of(st.integers(0, 6), st.sampled_from(["a", "b", 1 << 40])), max_size=5), max_size=20)


@given(requests=BLOCKS, cut=st.integers(0, 20))
@settings(max_examples=100, deadline=None)
def test_prefix_hits_equal_a_plain_loop(requests: list[list[int | str]], cut: int) -> None:
    cache = PrefixCache(block_tokens=10)
    inputs = np.array([10 * len(blocks) for blocks in requests], dtype=np.int64)
    parts = [cache.hit_tokens(requests[part], inputs[part]) for part in (slice(0, cut), slice(cut, None))]
    seen: set[int | str] = set()
    expected = []
    for blocks in requests:
        hits = 0
        while hits < len(blocks) and blocks[hits] in seen:
            hits += 1
        expected.append(max(0, min(10 * hits, 10 * len(blocks) - 1)))
        seen.update(blocks)
    assert np.concatenate(parts).tolist() == expected


class TestValue:
    def test_arrays_are_read_only_copies(self) -> None:
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
    def test_bad_values(self, change: dict[str, list[float]], problem: str) -> None:
        values = {"input_tokens": [1, 2], "output_tokens": [1, 1], **change}
        with pytest.raises(InputError, match=problem):
            Trace(**{name: np.array(value) for name, value in values.items()})  # type: ignore[arg-type]

    def test_joining_nothing(self) -> None:
        with pytest.raises(InputError, match="no parts"):
            Trace.joined([])


class TestRealTraces:
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
    def test_rows(self, shared: Path, name: str, rows: int, timed: bool) -> None:
        trace = read_trace(shared / "traces" / name)
        assert len(trace) == rows
        assert (trace.arrival_s is not None) == timed

    def test_mooncake_hits_equal_a_plain_loop(self, shared: Path) -> None:
        path = shared / "traces" / "mooncake_conversation.jsonl"
        seen: set[int] = set()
        expected = []
        for line in path.read_text(encoding="utf-8").splitlines():
            request = json.loads(line)
            hits = 0
            for block in request["hash_ids"]:
                if block not in seen:
                    break
                hits += 1
            expected.append(min(512 * hits, request["input_length"] - 1))
            seen.update(request["hash_ids"])
        np.testing.assert_array_equal(read_trace(path).cached_tokens, expected)
