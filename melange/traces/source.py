"""Bytes of a trace file, plain or gzipped, in blocks of whole lines; every failure names the file."""

from __future__ import annotations

import gzip
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import numpy as np

from melange.errors import InputError
from melange.files.places import is_regular, read_bytes

Container = Literal["csv", "jsonl", "parquet", "prometheus"]
Progress = Callable[[int, int], None]

HEAD_BYTES = 1 << 16
MAX_RECORD_BYTES = 64 << 20
# Logs unpack to 5 to 50 times their size; gzip can do 1032, which only blank or repeated bytes reach.
MOST_UNPACKED, LEAST_JUDGED_BYTES = 300, 256 << 20
GZIP_MAGIC = b"\x1f\x8b"
PARQUET_MAGIC = b"PAR1"
PROMETHEUS_STARTS = (b"# HELP ", b"# TYPE ", b"vllm:")
UTF8_BOM = b"\xef\xbb\xbf"
FOREIGN_MAGIC = {
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ\x00": "xz data",
    b"\x28\xb5\x2f\xfd": "zstd data",
    b"ARROW1": "an Arrow file",
}


class Source:
    """A readable stream of a file's decompressed bytes. ``on_progress(done, total)`` hears of the file's own bytes."""

    def __init__(self, path: Path, raw: BinaryIO, *, on_progress: Progress | None) -> None:
        self.path = path
        self._raw = raw
        self._total = os.fstat(raw.fileno()).st_size
        self._on_progress = on_progress
        self.gzipped = raw.read(2) == GZIP_MAGIC
        raw.seek(0)
        self._stream: BinaryIO = gzip.GzipFile(fileobj=raw) if self.gzipped else raw  # type: ignore[assignment]
        self._unpacked = 0
        self.head = b""
        self.head = self.read(HEAD_BYTES)
        self._pending = self.head.removeprefix(UTF8_BOM)

    def read(self, size: int) -> bytes:
        """Up to ``size`` bytes; empty only at the end. Damaged gzip data raise InputError."""
        if self.head and self._pending:
            data, self._pending = self._pending[:size], self._pending[size:]
            return data
        try:
            data = self._stream.read(size)
        except EOFError as error:
            raise InputError(
                "the gzip data end in the middle: the file is truncated", file=self.path, fix="copy or fetch it again"
            ) from error
        except (gzip.BadGzipFile, zlib.error) as error:
            raise InputError(
                f"the gzip data are damaged ({error})", file=self.path, fix="copy or fetch it again"
            ) from error
        except OSError as error:
            raise InputError(f"cannot read on: {error.strerror}", file=self.path, fix="check the disk") from error
        self._unpacked += len(data)
        if self.gzipped and self._unpacked > max(LEAST_JUDGED_BYTES, MOST_UNPACKED * self._total):
            fix = "unpack it with gunzip if it is meant"
            raise InputError(f"the gzip data unpack to over {MOST_UNPACKED} times their size", file=self.path, fix=fix)
        if self._on_progress is not None:
            self._on_progress(self._raw.tell(), self._total)
        return data


def _opened(path: str | os.PathLike[str]) -> BinaryIO:
    """A trace's file; what a pipe or a device holds is first put into a temporary one, which can be read twice."""
    if is_regular(path) or (os.path.isdir(path) or not (os.fspath(path) == "-" or os.path.exists(path))):
        return Path(path).open("rb")
    file = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    try:
        file.write(read_bytes(path))
        file.seek(0)
    except BaseException:
        file.close()
        raise
    return file


@contextmanager
def open_source(path: str | os.PathLike[str], *, on_progress: Progress | None = None) -> Iterator[Source]:
    """The file, ready to be read; a missing, unreadable or empty one raises InputError."""
    try:
        raw = _opened(path)
    except OSError as error:
        raise InputError(
            f"cannot open the trace: {error.strerror}", file=path, fix="check the path and its permissions"
        ) from error
    with raw:
        source = Source(Path(path), raw, on_progress=on_progress)
        if not source.head.removeprefix(UTF8_BOM).strip():
            raise InputError("the trace is empty", file=path, fix="give a file with at least one request")
        yield source


def container_of(source: Source) -> Container:
    """CSV, JSONL, Parquet or Prometheus' text, told by the content and never by the name; else raises InputError."""
    head = source.head.removeprefix(UTF8_BOM)
    if head.startswith(PARQUET_MAGIC):
        if source.gzipped:
            raise InputError("a gzipped Parquet file", file=source.path, fix="unpack it with gunzip")
        if not is_regular(source.path):
            raise InputError("Parquet from a pipe, which is read from its end", file=source.path, fix="save it first")
        return "parquet"
    for magic, name in FOREIGN_MAGIC.items():
        if head.startswith(magic):
            raise InputError(
                f"this is {name}", file=source.path, fix="unpack it; CSV, JSONL (plain or gzipped) and Parquet are read"
            )
    _check_text(source.path, head)
    first = head.lstrip()[:1]
    if first == b"[":
        raise InputError("the file is one JSON array", file=source.path, line=1, column=1, fix="write an object a line")
    if head.lstrip().startswith(PROMETHEUS_STARTS):
        return "prometheus"
    return "jsonl" if first == b"{" else "csv"


def _check_text(path: Path, head: bytes) -> None:
    at = head.find(b"\0")
    if at < 0:
        try:
            head.decode("utf-8")
            return
        except UnicodeDecodeError as error:
            # The head may end in the middle of a character.
            if error.start >= len(head) - 3:
                return
            at = error.start
    raise InputError(
        f"not a text file: byte 0x{head[at]:02x} at position {at}",
        file=path,
        fix="CSV and JSONL in UTF-8 (plain or gzipped) and Parquet are read",
    )


class Block(NamedTuple):
    """Whole lines of a file. ``line`` is the number of the first, from 1."""

    line: int
    data: bytes


def line_blocks(source: Source, block_bytes: int, *, quotes: bool) -> Iterator[Block]:
    """The file's lines in blocks of about ``block_bytes``; with ``quotes``, newlines between quotes end no record."""
    line, rest = 1, b""
    while data := source.read(block_bytes):
        data = rest + data
        end = _records_end(data, quotes)
        if end == 0 and len(data) > MAX_RECORD_BYTES:
            raise InputError(
                f"no end of the record within {MAX_RECORD_BYTES >> 20} MiB",
                file=source.path,
                line=line,
                fix="look for a quote that is never closed" if quotes else "write one object a line",
            )
        if end:
            yield Block(line, _plain_line_ends(data[:end]))
        line += data.count(b"\n", 0, end)
        rest = data[end:]
    if rest:
        yield Block(line, _plain_line_ends(rest))


def _plain_line_ends(data: bytes) -> bytes:
    """Lines end in a newline alone; a carriage return within a line counts as a space."""
    return data.replace(b"\r\n", b"\n").replace(b"\r", b" ") if b"\r" in data else data


def first_block(blocks: Iterator[Block], lines: int) -> Block:
    """The first block, joined with those after it until it has so many lines that are not blank, if the file has."""
    head = next(blocks)
    while sum(bool(line.strip()) for line in head.data.split(b"\n")) < lines:
        more = next(blocks, None)
        if more is None:
            break
        head = Block(head.line, head.data + more.data)
    return head


def _records_end(data: bytes, quotes: bool) -> int:
    """Bytes up to and with the last newline that ends a record."""
    if not quotes or b'"' not in data:
        return data.rfind(b"\n") + 1
    octets = np.frombuffer(data, np.uint8)
    inside = np.bitwise_xor.accumulate((octets == ord('"')).view(np.uint8))
    ends = np.flatnonzero((octets == ord("\n")) & (inside == 0))
    return int(ends[-1]) + 1 if len(ends) else 0
