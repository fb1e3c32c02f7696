"""The append-only JSONL file that keeps load points, and what their headers say."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from melange.errors import InputError
from melange.files.text import parse_json
from melange.measurements.measurement import Measurement
from melange.notebook import short_repr

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """Provenance of the points that follow it in a file: free-form facts, JSON-ready."""

    facts: Mapping[str, object]

    def to_dict(self) -> dict[str, object]:
        return {"record": "header", "schema_version": SCHEMA_VERSION, **self.facts}


@dataclass(frozen=True, slots=True, kw_only=True)
class MeasurementFile:
    """What a measurements file holds: its headers and its points, in file order."""

    path: str
    headers: tuple[Header, ...]
    points: tuple[Measurement, ...]
    torn_tail: bool = False

    def __repr__(self) -> str:
        of = ", ".join(dict.fromkeys(point.key.describe() for point in self.points))
        return short_repr("MeasurementFile", f"{Path(self.path).name}: {len(self.points)} load points; {of}")

    def to_frame(self) -> DataFrame:
        """One row a load point, in file order (index 0, 1, ...).

        Columns are the fields of :class:`Measurement` that some point has, latencies one column a statistic
        (``ttft_mean_s``, ``tpot_decode_p99_s``, ...); per-request samples and ``extra`` are left out. NaN or None where
        a point does not know.
        """
        import pandas as pd

        return pd.DataFrame([_flat(point) for point in self.points])


def _flat(point: Measurement) -> dict[str, object]:
    row: dict[str, object] = {}
    for name, value in point.to_dict().items():
        if name == "extra" or name.startswith("sample_"):
            continue
        if isinstance(value, Mapping):
            row |= {f"{name.removesuffix('_s')}_{statistic}_s": seconds for statistic, seconds in value.items()}
        else:
            row[name] = value
    return row


def read_measurements(path: str | os.PathLike[str]) -> MeasurementFile:
    """Read a measurements file.

    A last line that a kill cut short (no newline, not JSON) is left out and reported as ``torn_tail``; any other
    damage raises InputError with its line.
    """
    headers: list[Header] = []
    points: list[Measurement] = []
    torn = False
    for number, line, ended in _lines(path):
        try:
            record = parse_json(line, path, number)
        except InputError:
            if not ended:
                torn = True
                break
            raise
        try:
            _take(record, headers, points)
        except InputError as error:
            raise error.located(path, number) from error
    if not headers and not points:
        raise InputError("no measurements in it", file=path, fix="see 'melange schema measurements'")
    return MeasurementFile(path=os.fspath(path), headers=tuple(headers), points=tuple(points), torn_tail=torn)


def _lines(path: str | os.PathLike[str]) -> Iterator[tuple[int, bytes, bool]]:
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"cannot read it: {error.strerror}", file=path, fix="check the path") from error
    for number, line in enumerate(data.splitlines(keepends=True), start=1):
        if line.strip():
            yield number, line.strip(), line.endswith(b"\n")


def _take(record: object, headers: list[Header], points: list[Measurement]) -> None:
    if not isinstance(record, dict):
        raise InputError(f"a record is a {type(record).__name__}", fix="every line is a JSON object")
    kind = record.pop("record", None)
    if kind == "header":
        version = record.pop("schema_version", None)
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise InputError(
                f"measurements schema version is {version}", fix=f"this Mélange reads up to version {SCHEMA_VERSION}"
            )
        headers.append(Header(facts=record))
    elif kind == "point":
        points.append(Measurement.from_dict(record))
    else:
        raise InputError(f"record is {kind!r}", fix="use header or point")


def record_line(record: Header | Measurement) -> str:
    """One line of the file, newline included; NaN and infinity are refused."""
    row = record.to_dict() if isinstance(record, Header) else {"record": "point", **record.to_dict()}
    return json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n"


def append_measurements(path: str | os.PathLike[str], header: Header | None, points: Iterable[Measurement]) -> None:
    """Append a header, if given, and points, flushed to the disk; raises InputError when the file cannot be written."""
    lines = [record_line(header)] if header is not None else []
    lines += [record_line(point) for point in points]
    try:
        with open(path, "ab") as file:
            file.write("".join(lines).encode())
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"cannot write it: {error.strerror}", file=path, fix="check the folder and the disk"
        ) from error
