"""CSV traces: columns by their header's names, in blocks of lines, with the place of every bad value."""

from __future__ import annotations

import collections
import csv
import io
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melange.errors import InputError
from melange.traces.layout import Layout, Role
from melange.traces.rows import Rows
from melange.traces.source import UTF8_BOM, Block

MOST_COLUMNS = 10_000
DELIMITERS = ",;\t|"
# Fixed-width bytes are read many times faster than text; no ISO time is longer than 35 characters.
TIME_BYTES = "S40"
# A column that plays no role is still tokenised, so that rows of the wrong width are noticed, but hardly stored.
UNUSED_BYTES = "S1"
NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?\s*", re.ASCII)


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """The first record of a CSV file. ``lines`` is the number of lines it takes."""

    names: tuple[str, ...]
    delimiter: str
    lines: int
    size_bytes: int


def read_header(file: Path, block: Block) -> tuple[Header, dict[str, object]]:
    """The header, and the first row by column name; a file without rows raises InputError."""
    lines = block.data.split(b"\n", 1)
    if block.line == 1 and not lines[0].strip():
        raise InputError("the first line is blank", file=file, line=1, fix="start with the column names")
    first = lines[0].decode("utf-8", "replace")
    delimiter = max(DELIMITERS, key=first.count)
    try:
        names = tuple(name.strip() for name in next(csv.reader([first], delimiter=delimiter)))
    except csv.Error as error:
        raise InputError(f"the first line holds no column names: {error}", file=file, line=1) from error
    if len(names) > MOST_COLUMNS:
        raise InputError(f"it has {len(names)} columns", file=file, line=1, fix=f"keep {MOST_COLUMNS} at the most")
    for name, times in collections.Counter(filter(None, names)).items():
        if times > 1:
            raise InputError(f"the column {name[:60]!r} occurs twice", file=file, line=1, fix="keep one of them")
    header = Header(names=names, delimiter=delimiter, lines=1, size_bytes=len(lines[0]) + 1)
    if all(NUMBER.fullmatch(name) for name in names):
        raise InputError(
            "the first line holds numbers, not column names", file=file, line=1, fix="put a line of column names first"
        )
    row = _first_row(block.data[header.size_bytes :], delimiter)
    return header, dict(zip(names, row + [""] * (len(names) - len(row)), strict=False))


def read_rows(file: Path, header: Header, layout: Layout, blocks: Iterator[Block]) -> Iterator[Rows]:
    """The blocks' rows; the first block still has the header."""
    for number, block in enumerate(blocks):
        if number == 0:
            block = Block(block.line + header.lines, block.data[header.size_bytes :])
        rows = _Rows(file=file, header=header, layout=layout, block=block)
        values = rows.read()
        if len(values["input"]):
            yield Rows(values=values, error=rows.error)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """One block of lines, read at full speed, and read again with care where something in it is wrong."""

    file: Path
    header: Header
    layout: Layout
    block: Block

    def read(self) -> dict[Role, NDArray[Any]]:
        # pandas swallows a byte-order mark, which only a file's first bytes may be.
        marked = self.block.data.startswith(UTF8_BOM)
        if marked or len(_first_row(self.block.data, self.header.delimiter)) > len(self.header.names):
            return self._read_with_care()
        dtypes: dict[int, Any] = dict.fromkeys(range(len(self.header.names)), UNUSED_BYTES)
        for role in self.layout.roles:
            dtypes[self._index(role)] = TIME_BYTES if role == "time" else object
        for role in self.layout.number_roles:
            dtypes[self._index(role)] = np.float64
        try:
            frame = pd.read_csv(
                io.BytesIO(self.block.data),
                header=None,
                names=list(dtypes),
                index_col=False,
                dtype=dtypes,
                sep=self.header.delimiter,
                na_filter=False,
                low_memory=False,
            )
        except (ValueError, UnicodeDecodeError):  # pandas' ParserError is a ValueError
            return self._read_with_care()
        return {role: frame[self._index(role)].to_numpy() for role in self.layout.roles}

    def error(self, row: int, role: Role, problem: str) -> InputError:
        """The error of a value in the block's row ``row`` (from 0)."""
        for number, (line, fields) in enumerate(self._numbered()):
            if number == row:
                return self._error(line, fields, role, problem)
        return InputError(f"{self.layout.roles[role]} {problem}", file=self.file, fix="correct or remove the row")

    def _error(self, line: int, fields: Sequence[str], role: Role, problem: str) -> InputError:
        index = self._index(role)
        text = self.block.data.split(b"\n")[line - self.block.line]
        # A character position can only be told where no field is quoted.
        column = None if b'"' in text else 1 + sum(len(field) + 1 for field in fields[:index])
        name = self.layout.roles[role]
        return InputError(
            f"{name} {problem}", file=self.file, line=line, column=column, fix="correct or remove the row"
        )

    def _read_with_care(self) -> dict[Role, NDArray[Any]]:
        """The same columns field by field; raises InputError at the first that is wrong."""
        numbers = self.layout.number_roles
        columns: dict[Role, list[Any]] = {role: [] for role in self.layout.roles}
        width = len(self.header.names)
        for line, fields in self._numbered():
            if len(fields) > width:
                raise InputError(
                    f"{len(fields)} fields where the header has {width}",
                    file=self.file,
                    line=line,
                    fix="quote fields that hold the delimiter",
                )
            for role, column in columns.items():
                index = self._index(role)
                if index >= len(fields):
                    raise self._error(line, fields, role, f"is missing: {len(fields)} of {width} fields are there")
                column.append(self._number(line, fields, role) if role in numbers else fields[index])
        return {role: np.array(column, float if role in numbers else object) for role, column in columns.items()}

    def _number(self, line: int, fields: Sequence[str], role: Role) -> float:
        text = fields[self._index(role)]
        if NUMBER.fullmatch(text) is None:
            problem = f"is {text[:40]!r}, not a number" if text.strip() else "is empty"
            raise self._error(line, fields, role, problem)
        return float(text)

    def _numbered(self) -> Iterator[tuple[int, list[str]]]:
        """Records with the number of the line each begins on, blank ones left out."""
        records = _records(self.block.data, self.header.delimiter)
        line = 0
        try:
            for fields in records:
                if len(fields) > 1 or "".join(fields).strip():
                    yield self.block.line + line, fields
                line = records.line_num
        except csv.Error as error:
            raise InputError(
                f"not CSV: {error}", file=self.file, line=self.block.line + line, fix="check quotes and line ends"
            ) from error

    def _index(self, role: Role) -> int:
        return self.header.names.index(self.layout.roles[role])


def _first_row(data: bytes, delimiter: str) -> list[str]:
    """Fields of the first record; none where there is no record, or none that can be read."""
    try:
        frame = pd.read_csv(io.BytesIO(data), header=None, nrows=1, dtype=object, na_filter=False, sep=delimiter)
    except ValueError:  # pandas' EmptyDataError and ParserError among them
        return []
    return [str(value) for value in frame.iloc[0]]


def _records(data: bytes, delimiter: str) -> Any:
    text = io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", errors="replace", newline="")
    return csv.reader(text, delimiter=delimiter, strict=True)
