"""Text files: written whole or not at all, read within bounds, and JSON in them with its place."""

from __future__ import annotations

import json
import math
import os
from typing import Any

from melange.errors import InputError
from melange.files.places import read_bytes, write_bytes

MOST_INTEGER = 10**18  # beyond it, sums and products overflow


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Replace ``path`` by a file with this content in one step; on any failure the old file stays as it was.

    What is no plain file (a pipe, a device, a descriptor, ``-``) is written to; see
    :func:`melange.files.places.write_bytes`.
    """
    write_bytes(path, content.encode() if isinstance(content, str) else content)


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file's content without a byte order mark; a missing, unreadable or binary one raises InputError."""
    return decode_text(read_bytes(path), path)


def decode_text(content: bytes, file: str | os.PathLike[str]) -> str:
    """A text file's bytes as text, as :func:`read_text` gives it; ``file`` is the place that an InputError names."""
    try:
        return content.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise InputError("it is not a text file", file=file, fix="give a UTF-8 text file") from error


def parse_json(text: str | bytes, file: str | os.PathLike[str], line: int = 1) -> Any:
    """A JSON text's value; InputError with its place for what is none. ``line`` is the number of its first line."""
    return _parsed(text, file, line)


def _parsed(text: str | bytes, file: str | os.PathLike[str], line: int, **hooks: Any) -> Any:
    try:
        return json.loads(text, **hooks)
    except json.JSONDecodeError as error:
        problem, place = f"not valid JSON: {error.msg}", (error.lineno + line - 1, error.colno)
        raise InputError(problem, file=file, line=place[0], column=place[1], fix="correct or remove it") from error
    except (ValueError, RecursionError) as error:
        what = "nested too deep" if isinstance(error, RecursionError) else "a number is too large, or it is no text"
        raise InputError(f"not readable JSON: {what}", file=file, line=line, fix="correct or remove it") from error


def read_json_object(path: str | os.PathLike[str], fix: str) -> dict[str, Any]:
    """The JSON object that a file holds; InputError where it holds no JSON or something else.

    Whole numbers beyond ``MOST_INTEGER`` and numbers beyond all floats are refused.
    """
    content = _parsed(read_text(path), path, 1, parse_int=_whole, parse_float=_number)
    if not isinstance(content, dict):
        raise InputError(f"it holds no JSON object but a {type(content).__name__}", file=path, fix=fix)
    return content


def _whole(digits: str) -> int:
    value = int(digits) if len(digits) <= 20 else MOST_INTEGER + 1
    if abs(value) > MOST_INTEGER:
        raise ValueError(digits)
    return value


def _number(text: str) -> float:
    value = float(text)
    if math.isinf(value):
        raise ValueError(text)
    return value
