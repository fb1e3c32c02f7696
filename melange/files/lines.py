"""LineFile: a file of JSON lines that grows by whole lines only, whatever was done to it before; one writer at a time.

Everything that adds to a file of load points goes through here. A line is on the disk when ``append`` returns, or the
file is as it was.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

from melange.errors import InputError
from melange.files.text import parse_json, write_atomic

Warn = Callable[[str], None]
LOCK_POLL_S = 0.05


class LineFile:
    """One file of JSON lines, open for appending and locked. Use as a context manager.

    Entering makes the file where it is missing and looks at its end: a whole line without a newline gets it, and half a
    line (what a kill or a full disk leaves) is moved to ``<file>.torn-<n>``, which ``warn`` is told and ``torn`` names.
    Leaving takes a file away again that was made and stayed empty. What is no regular file (a pipe, a terminal) is
    written to as it is. InputError: another process is still writing it after ``wait_s`` seconds, or it cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], *, warn: Warn | None = None, wait_s: float = 0.0) -> None:
        self.path = Path(path)
        self.torn: Path | None = None
        self._warn, self._wait_s = warn, wait_s
        self._file = -1
        self._regular = True
        self._made = False

    def __enter__(self) -> LineFile:
        try:
            self._open()
            self._mend()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        if self._made and os.fstat(self._file).st_size == 0 and self._is_still_there():
            self.path.unlink()
        self._close()

    def _close(self) -> None:
        if self._file >= 0:
            os.close(self._file)  # which also gives up the lock
            self._file = -1

    def _open(self) -> None:
        """Open and lock; again where the file was replaced between the two."""
        while True:
            try:
                known = os.stat(self.path) if self.path.exists() else None
                self._made = known is None
                self._regular = known is None or stat.S_ISREG(known.st_mode)
                way = os.O_RDWR | os.O_CREAT if self._regular else os.O_WRONLY
                self._file = os.open(self.path, way | os.O_APPEND | os.O_CLOEXEC, 0o666)
            except OSError as error:
                fix = "choose another file with -o"
                raise InputError(f"cannot write it: {error.strerror}", file=self.path, fix=fix) from error
            if not self._regular:
                return
            lock(self._file, self.path, wait_s=self._wait_s)
            if self._is_still_there():
                return
            self._close()

    def _is_still_there(self) -> bool:
        """Whether the path still names the file that is open."""
        try:
            return os.path.samestat(os.stat(self.path), os.fstat(self._file))
        except OSError:
            return False

    def _mend(self) -> None:
        if not self._regular:
            return
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        tail = data[whole:]
        if not tail:
            return
        if is_whole(tail):
            self._write(b"\n")
        elif tail.strip():
            self.torn = set_aside(self.path, "torn", tail)
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
            if self._warn is not None:
                self._warn(f"{self.path}: its last line was cut short; what was left of it is now in {self.torn}")

    def append(self, lines: str) -> None:
        """Add whole lines, each with its newline, and wait until they are on the disk; all of them or none.

        InputError where they cannot be written, or where the file was deleted or replaced since it was opened: what it
        held is then kept in ``<file>.kept-<n>``, with these lines.
        """
        if self._regular and not self._is_still_there():
            kept = set_aside(self.path, "kept", self._content() + lines.encode())
            raise InputError(
                f"it was deleted or replaced while it was written; all that it held is in {kept}",
                file=self.path,
                fix="put them together with 'melange profile merge' and run the same command again",
            )
        self._write(lines.encode())

    def _content(self) -> bytes:
        size, found = os.fstat(self._file).st_size, b""
        while len(found) < size and (part := os.pread(self._file, size - len(found), len(found))):
            found += part
        return found

    def _write(self, content: bytes) -> None:
        before = os.fstat(self._file).st_size
        try:
            while content:
                content = content[os.write(self._file, content) :]
            if self._regular:
                os.fsync(self._file)
        except OSError as error:
            if self._regular:
                os.ftruncate(self._file, before)  # a full disk must not leave half a line
            raise InputError(
                f"cannot write it: {error.strerror}; what it held before is kept",
                file=self.path,
                fix="make room and run the same command again",
            ) from error


def is_whole(line: bytes) -> bool:
    """Whether a line without a newline is a whole JSON object all the same."""
    try:
        return isinstance(parse_json(line, "line"), dict)
    except InputError:
        return False


def lock(file: int, path: str | os.PathLike[str], *, wait_s: float = 0.0) -> None:
    """Lock an open file for writing, until it is closed; InputError where another process has it for so long."""
    import fcntl

    deadline = time.monotonic() + wait_s
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise InputError(f"cannot lock it: {error.strerror}", file=path) from error
            if time.monotonic() >= deadline:
                fix = "wait for it or choose another file with -o"
                raise InputError("another profile run is writing it", file=path, fix=fix) from error
            time.sleep(LOCK_POLL_S)
        else:
            return


def replace_lines(path: str | os.PathLike[str], content: str) -> None:
    """Replace a whole file of lines in one step; InputError, and nothing done, while another process appends to it."""
    if not os.path.isfile(path):
        write_atomic(path, content)
        return
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise InputError(f"cannot write it: {error.strerror}", file=path, fix="choose another file with -o") from error
    try:
        lock(file, path)
        write_atomic(path, content)
    finally:
        os.close(file)


def set_aside(path: Path, kind: str, data: bytes) -> Path:
    """Keep bytes in a new file beside ``path``, ``<file>.<kind>-<n>`` with the first number that is free."""
    number = 1
    while True:
        place = path.with_name(f"{path.name}.{kind}-{number}")
        try:
            file = os.open(place, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
        except FileExistsError:
            number += 1
            continue
        except OSError as error:
            raise InputError(f"cannot write it: {error.strerror}", file=place, fix="make room") from error
        try:
            with os.fdopen(file, "wb") as kept:
                kept.write(data)
                kept.flush()
                os.fsync(kept.fileno())
        except OSError as error:
            place.unlink(missing_ok=True)
            raise InputError(f"cannot write it: {error.strerror}", file=place, fix="make room") from error
        return place
