"""Text files: written whole or not at all, read within bounds, and JSON in them with its place."""

from __future__ import annotations

import json
import os
from typing import Any

from melange.errors import InputError
from melange.files.places import read_bytes, write_bytes


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Replace ``path`` by a file with this content in one step; on any failure the old file stays as it was.

    What is no plain file (a pipe, a device, a descriptor, ``-``) is written to; see
    :func:`melange.files.places.write_bytes`.
    """
    write_bytes(path, content.encode() if isinstance(content, str) else content)


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file's content without a byte order mark; a missing, unreadable or binary one raises InputError."""
    try:
        return read_bytes(path).decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError("it is not a text file", file=path, fix="give a UTF-8 text file") from error


def parse_json(text: str | bytes, file: str | os.PathLike[str], line: int = 1) -> Any:
    """A JSON text's value; InputError with its place for what is none. ``line`` is the number of its first line."""
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        problem, place = f"not valid JSON: {error.msg}", (error.lineno + line - 1, error.colno)
        raise InputError(problem, file=file, line=place[0], column=place[1], fix="correct or remove it") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else "a number has too many digits or no text"
        raise InputError(f"not readable JSON: {what}", file=file, line=line, fix="correct or remove it") from error
