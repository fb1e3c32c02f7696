"""PublicPoint: one public measurement of serving, as its source states it; and the file of them that ships."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Literal, get_args

from melange.catalog.precisions import PRECISIONS
from melange.errors import InputError
from melange.files.shipped import data_path
from melange.files.text import read_text

SHIPPED = "profiles/public/serving-points.csv"
PublicLoad = Literal["batch", "closed", "open", "burst"]

# The version that was current, of sources that date their measurements and name no version.
_CURRENT_VLLM: Mapping[str, str] = {"2024": "0.5", "2024-11": "0.6", "2024-2025": "0.6", "2025-09": "0.10"}
_SIZES = ("input_tokens", "output_tokens")
_FIGURES = ("concurrency", "rate_rps", "output_tokens_per_s", "ttft_s", "tpot_s")
_COUNTS = ("tp", "requests")


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicPoint:
    """Who measured what, on what, under which load; None where the source does not say.

    GPUs, models, precisions and engines go by the catalog's names. ``load`` is ``batch`` (so many requests at once and
    no others), ``closed`` (so many clients), ``open`` (a rate of arrivals) or ``burst`` (all ``requests`` sent at once,
    or as fast as they are taken). ``engine_args`` are what the engine was told that shapes its iterations, in vLLM's
    words. Throughput is that of all GPUs of the engine; ``tpot_s`` is the time between output tokens, and
    ``is_median`` says that latencies are medians rather than means.
    """

    source: str
    url: str
    date: str
    engine: str
    engine_version: str | None
    gpu: str
    model: str
    tp: int
    precision: str
    kv_dtype: str
    engine_args: tuple[str, ...]
    load: PublicLoad
    requests: int
    input_tokens: float
    output_tokens: float
    concurrency: float | None
    rate_rps: float | None
    output_tokens_per_s: float | None
    ttft_s: float | None
    tpot_s: float | None
    is_median: bool

    def __post_init__(self) -> None:
        if self.load not in get_args(PublicLoad):
            raise InputError(f"load is {self.load!r}", fix=f"use one of {', '.join(get_args(PublicLoad))}")
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}", fix=f"use one of {', '.join(PRECISIONS)}")
        for name in (*_SIZES, *_FIGURES, *_COUNTS):
            value = getattr(self, name)
            if value is not None and not (value > 0 and math.isfinite(value)):
                raise InputError(f"{name} is {value}", fix="give a positive number")
        needed = {"batch": "concurrency", "closed": "concurrency", "open": "rate_rps"}.get(self.load)
        if needed is not None and getattr(self, needed) is None:
            raise InputError(f"the load is {self.load} and {needed} is missing", fix=f"give {needed}")

    @property
    def likely_version(self) -> str | None:
        """The engine's version, or of a dated vLLM without one, the version of that time."""
        return self.engine_version or (_CURRENT_VLLM.get(self.date) if self.engine == "vllm" else None)

    def row(self) -> dict[str, str]:
        """The cells of its line in a file; the inverse of :meth:`from_row`, to the last digit."""
        plain = {name: getattr(self, name) for name in COLUMNS}
        plain |= {"engine_args": " ".join(self.engine_args), "is_median": "yes" if self.is_median else ""}
        return {name: _cell(value) for name, value in plain.items()}

    @classmethod
    def from_row(cls, row: Mapping[str, str]) -> PublicPoint:
        """Read what :meth:`row` wrote; what is wrong raises InputError that names the column."""
        return cls(
            source=row["source"],
            url=row["url"],
            date=row["date"],
            engine=row["engine"],
            engine_version=row["engine_version"] or None,
            gpu=row["gpu"],
            model=row["model"],
            tp=int(_number(row, "tp") or 0),
            precision=row["precision"],
            kv_dtype=row["kv_dtype"] or "auto",
            engine_args=tuple(row["engine_args"].split()),
            load=row["load"],  # type: ignore[arg-type]  # checked above
            requests=int(_number(row, "requests") or 0),
            input_tokens=_number(row, "input_tokens") or 0.0,
            output_tokens=_number(row, "output_tokens") or 0.0,
            concurrency=_number(row, "concurrency"),
            rate_rps=_number(row, "rate_rps"),
            output_tokens_per_s=_number(row, "output_tokens_per_s"),
            ttft_s=_number(row, "ttft_s"),
            tpot_s=_number(row, "tpot_s"),
            is_median=row["is_median"] == "yes",
        )


COLUMNS = tuple(item.name for item in fields(PublicPoint))


def _cell(value: object) -> str:
    if value is None or value == "auto":
        return ""
    return f"{value:.0f}" if isinstance(value, float) and value.is_integer() else str(value)


def _number(row: Mapping[str, str], column: str) -> float | None:
    text = row[column]
    if not text:
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise InputError(f"{column} is {text[:60]!r}", fix="give a number, or nothing where it is not stated")
    return value


def read_public_points(file: str | os.PathLike[str]) -> tuple[PublicPoint, ...]:
    """The points of a file, in its order; a bad row raises InputError with file and line."""
    reader = csv.DictReader(io.StringIO(read_text(file)), strict=True)
    points = []
    try:
        missing = [name for name in COLUMNS if name not in (reader.fieldnames or ())]
        if missing:
            raise InputError(f"the column {missing[0]} is missing", file=file, line=1, fix=f"give {', '.join(COLUMNS)}")
        for row in reader:
            if None in row.values():
                raise InputError("a row has fewer cells than the header", file=file, line=reader.line_num)
            try:
                points.append(PublicPoint.from_row(row))
            except InputError as error:
                raise error.located(file, reader.line_num) from error
    except csv.Error as error:
        raise InputError(f"not a CSV file: {error}", file=file, line=reader.line_num) from error
    return tuple(points)


@cache
def shipped_points() -> tuple[PublicPoint, ...]:
    """The public measurements that ship with Mélange."""
    return read_public_points(data_path(SHIPPED))


def points_text(points: tuple[PublicPoint, ...] | list[PublicPoint]) -> str:
    """The content of a file of points."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(point.row() for point in points)
    return text.getvalue()
