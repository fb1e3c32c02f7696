"""Files that are packed, damaged, missing, or no traces at all."""

from __future__ import annotations

import gzip
import os
import threading
from pathlib import Path

import pytest
from traces.builders import CSV, JSONL, rows_of, write

from melange.errors import InputError
from melange.traces import read_trace, source


@pytest.mark.parametrize("text", [CSV, JSONL])
def test_gzip_is_told_by_content(tmp_path: Path, text: str) -> None:
    plain = read_trace(write(tmp_path, text, "plain"))
    members = gzip.compress(text[:20].encode()) + gzip.compress(text[20:].encode())
    for packed in (gzip.compress(text.encode()), members):
        assert rows_of(read_trace(write(tmp_path, packed, "packed.csv"))) == rows_of(plain)


@pytest.mark.parametrize(
    "data", [CSV.encode(), JSONL.encode(), gzip.compress(CSV.encode())], ids=["CSV", "JSONL", "gzip"]
)
def test_a_pipe_holds_what_a_file_would(tmp_path: Path, data: bytes) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(data,))
    writer.start()
    assert rows_of(read_trace(tmp_path / "pipe")) == rows_of(read_trace(write(tmp_path, data, "file")))
    writer.join()
    with pytest.raises(InputError, match="the trace is empty"):
        read_trace("/dev/null")


@pytest.mark.parametrize("text", ["x" * 1_000_000, CSV + "\n" * 1_000_000], ids=["one line", "blank lines"])
def test_what_only_unpacks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(source, "LEAST_JUDGED_BYTES", 300_000)
    with pytest.raises(InputError, match="unpack to over 300 times their size"):
        read_trace(write(tmp_path, gzip.compress(text.encode()), "bomb"))


@pytest.mark.parametrize("cut", [1, 8, 30])
def test_truncated_gzip(tmp_path: Path, cut: int) -> None:
    body = "input_tokens,output_tokens\n" + "".join(f"{i},{i * i}\n" for i in range(1000))
    with pytest.raises(InputError, match="truncated"):
        read_trace(write(tmp_path, gzip.compress(body.encode())[:-cut]))


def test_damaged_gzip(tmp_path: Path) -> None:
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
def test_whole_file(tmp_path: Path, content: bytes, problem: str) -> None:
    path = write(tmp_path, content)
    with pytest.raises(InputError, match=problem) as caught:
        read_trace(path)
    assert caught.value.file == str(path)
    assert caught.value.exit_code == 2


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_trace(tmp_path / "nope.csv")
    with pytest.raises(InputError, match="directory"):
        read_trace(tmp_path)
