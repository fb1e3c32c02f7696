"""JSONL traces: one object a line, columns by the first object's keys, with the place of every bad value."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.traces.layout import Layout, Role
from melange.traces.rows import Rows
from melange.traces.source import Block


def first_object(file: Path, block: Block) -> dict[str, object]:
    """The first line's object, whose keys are the columns."""
    for number, line in enumerate(block.data.split(b"\n")):
        if line.strip():
            return _object(file, block.line + number, line)
    raise InputError("the trace has no rows", file=file, fix="give a file with at least one request")


def read_rows(file: Path, layout: Layout, blocks: Iterator[Block]) -> Iterator[Rows]:
    """The blocks' rows."""
    for block in blocks:
        rows = _Rows(file=file, layout=layout, block=block)
        objects = rows.objects()
        if objects:
            hash_ids = rows.values(objects, "hash_ids") if "hash_ids" in layout.roles else None
            yield Rows(values=rows.columns(objects), error=rows.error, hash_ids=hash_ids)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """One block of lines, parsed as one array of objects, and line by line where something in it is wrong."""

    file: Path
    layout: Layout
    block: Block

    def objects(self) -> list[dict[str, Any]]:
        """The lines' objects, blank lines left out."""
        lines = self.block.data.strip()
        try:
            objects = json.loads(b"[" + lines.replace(b"\n", b",") + b"]")
        except (ValueError, RecursionError):
            return self._objects_with_care()
        if len(objects) != lines.count(b"\n") + 1 or set(map(type, objects)) != {dict}:
            return self._objects_with_care()
        named = [lines.count(json.dumps(name).encode() + b":") for name in self.layout.roles.values()]
        if max(named, default=0) > len(objects):  # in one of them twice, or in something within it
            return self._objects_with_care()
        return objects  # type: ignore[no-any-return]

    def columns(self, objects: list[dict[str, Any]]) -> dict[Role, NDArray[Any]]:
        """The columns that play a role, but for the blocks' ids."""
        numbers = self.layout.number_roles
        columns: dict[Role, NDArray[Any]] = {}
        for role in self.layout.roles:
            if role != "hash_ids":
                values = self.values(objects, role)
                columns[role] = self._floats(values, role) if role in numbers else self._texts(values, role)
        return columns

    def error(self, row: int, role: Role, problem: str) -> InputError:
        """The error of a value in the block's row ``row`` (from 0)."""
        name = self.layout.roles[role]
        line, text = self._numbered()[row]
        column = text.find(json.dumps(name).encode()) + 1
        return InputError(
            f"{name} {problem}", file=self.file, line=line, column=column or None, fix="correct or remove the row"
        )

    def values(self, objects: list[dict[str, Any]], role: Role) -> list[Any]:
        """One column as it stands in the file."""
        name = self.layout.roles[role]
        try:
            return [row[name] for row in objects]
        except KeyError:
            missing = next(row for row, content in enumerate(objects) if name not in content)
            raise self.error(missing, role, "is missing") from None

    def _floats(self, values: list[Any], role: Role) -> FloatArray:
        # type() and not isinstance(): true and false are no numbers.
        if not set(map(type, values)) <= {int, float}:
            row = next(row for row, value in enumerate(values) if type(value) not in (int, float))
            raise self.error(row, role, f"is {json.dumps(values[row])[:40]}, not a number")
        try:
            return np.array(values, np.float64)
        except OverflowError:
            row = next(row for row, value in enumerate(values) if abs(value) > 1e300)
            raise self.error(row, role, "is too large") from None

    def _texts(self, values: list[Any], role: Role) -> NDArray[np.object_]:
        wanted = {str} if role == "time" else {str, int}
        if not set(map(type, values)) <= wanted:
            row = next(row for row, value in enumerate(values) if type(value) not in wanted)
            raise self.error(row, role, f"is {json.dumps(values[row])[:40]}, not text")
        return np.array(values, object)

    def _objects_with_care(self) -> list[dict[str, Any]]:
        return [_object(self.file, line, text) for line, text in self._numbered()]

    def _numbered(self) -> list[tuple[int, bytes]]:
        lines = enumerate(self.block.data.split(b"\n"), self.block.line)
        return [(number, text) for number, text in lines if text.strip()]


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the key {twice!r} is there twice", fix="keep the one that counts")
    return found


def _object(file: Path, line: int, text: bytes) -> dict[str, Any]:
    try:
        content = json.loads(text, object_pairs_hook=_once)
    except InputError as error:
        raise error.located(file, line) from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"not JSON: {error.msg}", file=file, line=line, column=error.colno, fix="write one object a line"
        ) from error
    except UnicodeDecodeError as error:
        raise InputError("not UTF-8", file=file, line=line, column=error.start + 1, fix="save it as UTF-8") from error
    except (ValueError, RecursionError) as error:
        problem = "nested too deeply" if isinstance(error, RecursionError) else "a number has too many digits"
        raise InputError(problem, file=file, line=line, fix="correct or remove the row") from error
    if type(content) is not dict:
        raise InputError(
            f"a {type(content).__name__}, not an object", file=file, line=line, column=1, fix="write one object a line"
        )
    return content
