"""Writing files so that a reader sees the old one or the new one, never half of one."""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

from melange.errors import InputError


def write_atomic(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Replace ``path`` by a file with this content in one step; on any failure the old file stays as it was."""
    target = Path(path)
    data = content.encode() if isinstance(content, str) else content
    temporary: str | None = None
    try:
        mode = target.stat().st_mode & 0o777 if target.exists() else 0o666 & ~_umask()
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise InputError(
            f"cannot write it: {error.strerror}", file=path, fix="check the folder and the disk"
        ) from error
    finally:
        if temporary is not None:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def check_place(path: str | os.PathLike[str]) -> None:
    """Raise InputError where no file can be written, for commands to ask before their work."""
    target = Path(path)
    if target.is_dir():
        raise InputError("cannot write it: it is a folder", file=path, fix="name a file")
    if not target.parent.is_dir():
        raise InputError("cannot write it: its folder does not exist", file=path, fix="make the folder first")
    if not os.access(target.parent, os.W_OK):
        raise InputError("cannot write it: its folder is read-only", file=path, fix="name another folder")


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current


def read_text(path: str | os.PathLike[str]) -> str:
    """A text file's content without a byte order mark; a missing, unreadable or binary one raises InputError."""
    try:
        return Path(path).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", file=path, fix="check the path") from error
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
