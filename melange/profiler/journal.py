"""Journal: the measurements file while it is being written; one writer, every load point on disk before the next."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from melange.files.lines import LineFile, Warn
from melange.measurements.file import Header, read_measurements, record_line
from melange.measurements.measurement import Measurement
from melange.profiler.load import Size
from melange.serving.config import ConfigKey


class Journal:
    """Append-only measurements file of one run, locked against a second one. Use as a context manager.

    Opening it reads what an earlier run left; a last line that a kill tore is set aside, which ``warn`` is told. Load
    points that earlier runs called invalid are left in the file and else forgotten: what they were to show is measured
    again. Raises InputError where the file is in use, cannot be written, or is damaged elsewhere than at its end.
    """

    def __init__(self, path: str | os.PathLike[str], key: ConfigKey, *, warn: Warn | None = None) -> None:
        self.path = Path(path)
        self.key = key
        self._points: list[Measurement] = []
        self._file = LineFile(path, warn=warn)

    def __enter__(self) -> Journal:
        self._file.__enter__()
        try:
            if self.path.is_file() and self.path.stat().st_size:
                self._points = known_points(read_measurements(self.path).points, self.key)
        except BaseException:
            self._file.__exit__()
            raise
        return self

    def __exit__(self, *exc: object) -> None:
        self._file.__exit__()

    def points(self, size: Size) -> list[Measurement]:
        """Points of this configuration and size, in file order."""
        wanted = tuple(map(float, size))
        return [p for p in self._points if (p.input_tokens, p.output_tokens, p.cached_tokens) == wanted]

    def append_header(self, header: Header) -> None:
        """Write the provenance of the points that follow."""
        self._file.append(record_line(header))

    def append(self, point: Measurement) -> None:
        """Write a point and wait until it is on the disk; InputError where the file is no longer there."""
        self._file.append(record_line(point))
        self._points.append(point)


def known_points(points: Iterable[Measurement], key: ConfigKey) -> list[Measurement]:
    """What earlier runs found out about a configuration: its valid points."""
    return [point for point in points if point.key == key and point.valid]
