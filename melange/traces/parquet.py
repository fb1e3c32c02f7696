"""Parquet traces: columns by name, in batches of rows; needs pyarrow."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melange.errors import InputError, MissingExtraError
from melange.traces.layout import Layout, Role
from melange.traces.rows import Rows

BATCH_ROWS = 1 << 18


class ParquetTrace:
    """An open Parquet file. Opening a damaged one raises InputError, without pyarrow MissingExtraError."""

    def __init__(self, path: Path) -> None:
        try:
            import pyarrow as pa
            import pyarrow.parquet as parquet
        except ImportError as error:
            raise MissingExtraError.of("pyarrow", "parquet", "reading a Parquet trace") from error
        self._path = path
        self._damage = (pa.ArrowException, OSError, UnicodeDecodeError)
        try:
            self._file = parquet.ParquetFile(path)
        except self._damage as error:
            raise self._damaged(error) from error
        self.names: tuple[str, ...] = tuple(self._file.schema_arrow.names)

    def first_row(self) -> dict[str, object]:
        """The first row by column name; a file without rows raises InputError."""
        for batch in self._batches(self.names, 1):
            return {name: batch.column(index)[0].as_py() for index, name in enumerate(self.names)}
        raise InputError("the trace has no rows", file=self._path, fix="give a file with at least one request")

    def read_rows(self, layout: Layout) -> Iterator[Rows]:
        """The rows in batches."""
        roles: dict[Role, str] = {role: name for role, name in layout.roles.items() if role != "hash_ids"}
        wanted = list(dict.fromkeys(layout.roles.values()))
        start = 0
        for batch in self._batches(wanted, BATCH_ROWS):
            error = self._error_from(layout, start)
            columns = {name: batch.column(index) for index, name in enumerate(batch.schema.names)}
            values: dict[Role, NDArray[Any]] = {
                role: _column(columns[name], role, layout, error) for role, name in roles.items()
            }
            hash_ids = columns[layout.roles["hash_ids"]].to_pylist() if "hash_ids" in layout.roles else None
            yield Rows(values=values, error=error, hash_ids=hash_ids)
            start += batch.num_rows

    def _batches(self, names: Any, rows: int) -> Iterator[Any]:
        try:
            for batch in self._file.iter_batches(batch_size=rows, columns=list(names)):
                if batch.num_rows:
                    yield batch
        except self._damage as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> InputError:
        return InputError(f"not a readable Parquet file: {error}", file=self._path, fix="copy or fetch it again")

    def _error_from(self, layout: Layout, start: int) -> Any:
        def error(row: int, role: Role, problem: str) -> InputError:
            where = f"row {start + row + 1}: {layout.roles[role]} {problem}"
            return InputError(where, file=self._path, fix="correct or remove the row")

        return error


def _column(column: Any, role: Role, layout: Layout, error: Any) -> NDArray[Any]:
    if column.null_count:
        row = int(np.argmax(column.is_null().to_numpy(zero_copy_only=False)))
        raise error(row, role, "is missing")
    values: NDArray[Any] = column.to_numpy(zero_copy_only=False)
    if role not in layout.number_roles:
        if values.dtype.kind not in "OM" and role == "time":
            raise error(0, role, f"is of type {column.type}, not a time")
        return values
    if values.dtype.kind not in "iuf":
        raise error(0, role, f"is of type {column.type}, not a number")
    return values.astype(np.float64)
