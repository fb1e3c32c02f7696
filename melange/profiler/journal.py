"""Journal: the measurements file while it is being written; one writer, every load point on disk before the next."""

from __future__ import annotations

import errno
import os
from pathlib import Path

from melange.errors import InputError
from melange.measurements.file import Header, read_measurements, record_line
from melange.measurements.measurement import Measurement
from melange.profiler.load import Size
from melange.serving.config import ConfigKey


class Journal:
    """Append-only measurements file of one run, locked against a second one. Use as a context manager.

    Opening it reads what an earlier run left and cuts off a last line that a kill tore. Raises InputError where the
    file is in use, cannot be written, or is damaged elsewhere than at its end.
    """

    def __init__(self, path: str | os.PathLike[str], key: ConfigKey) -> None:
        self.path = Path(path)
        self.key = key
        self._points: list[Measurement] = []
        self._file = -1

    def __enter__(self) -> Journal:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write it: {error.strerror}", file=self.path, fix="choose another file with -o"
            ) from error
        try:
            self._lock()
            self._recover()
        except BaseException:
            os.close(self._file)
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._file)  # which also gives up the lock

    def _lock(self) -> None:
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise InputError(f"cannot lock it: {error.strerror}", file=self.path) from error
            raise InputError(
                "another profile run is writing it", file=self.path, fix="wait for it or choose another file with -o"
            ) from error

    def _recover(self) -> None:
        data = self.path.read_bytes()
        whole = data.rfind(b"\n") + 1
        if whole < len(data):
            os.ftruncate(self._file, whole)
            os.fsync(self._file)
        if whole:
            kept = read_measurements(self.path)
            self._points = [point for point in kept.points if point.key == self.key]

    def points(self, size: Size) -> list[Measurement]:
        """Points of this configuration and size, in file order."""
        wanted = tuple(map(float, size))
        return [p for p in self._points if (p.input_tokens, p.output_tokens, p.cached_tokens) == wanted]

    def append_header(self, header: Header) -> None:
        """Write the provenance of the points that follow."""
        self._append(record_line(header))

    def append(self, point: Measurement) -> None:
        """Write a point and wait until it is on the disk."""
        self._append(record_line(point))
        self._points.append(point)

    def _append(self, line: str) -> None:
        before = os.fstat(self._file).st_size
        try:
            content = line.encode()
            while content:
                content = content[os.write(self._file, content) :]
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, before)  # a full disk must not leave half a line
            raise InputError(
                f"cannot write it: {error.strerror}; the load points before this one are kept",
                file=self.path,
                fix="make room and run the same command again",
            ) from error
