"""merge_measurements: several measurements files as one, every load point once."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

from melange.errors import InputError
from melange.files.lines import replace_lines
from melange.files.places import same_place
from melange.measurements.file import read_measurements, record_line
from melange.serving.config import ConfigKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Merged:
    """How many points were written, how many were repeated, and what is odd about the whole."""

    points: int
    repeated: int
    warnings: tuple[str, ...]


def merge_measurements(output: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]]) -> Merged:
    """Write the headers and points of all files, in order, into ``output``, at once or not at all.

    Warns of a configuration that was measured with several engine versions, whose points need not agree, and of files
    whose last line was cut short. InputError where the output is one of the files (by whatever name), or where another
    process is adding to it.
    """
    _refuse_an_input(output, files)
    warnings: list[str] = []
    lines: dict[str, None] = {}
    points, seen = 0, 0
    versions: dict[ConfigKey, set[str]] = {}
    for file in files:
        measured = read_measurements(file)
        warnings += measured.warnings
        lines.update(dict.fromkeys(record_line(header) for header in measured.headers))
        for point in measured.points:
            line = record_line(point)
            seen += 1
            points += line not in lines
            lines[line] = None
            if point.engine_version is not None:
                versions.setdefault(point.key, set()).add(point.engine_version)
    replace_lines(output, "".join(lines))
    mixed = {key: found for key, found in versions.items() if len(found) > 1}
    warnings += [
        f"{key.describe()} was measured with engine versions {', '.join(sorted(found))}" for key, found in mixed.items()
    ]
    return Merged(points=points, repeated=seen - points, warnings=tuple(warnings))


def _refuse_an_input(output: str | os.PathLike[str], files: Sequence[str | os.PathLike[str]]) -> None:
    for file in files:
        if same_place(output, file):
            raise InputError(f"it is one of the files to merge ({os.fspath(file)})", file=output, fix="name a new file")
