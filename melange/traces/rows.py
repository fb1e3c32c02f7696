"""Rows: raw columns on their way from a file's reader to a Trace, and the checks that all formats share."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.traces.layout import Layout, Role
from melange.traces.prefixes import PrefixCache
from melange.traces.trace import Trace

UNITS_PER_S = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
MAX_TOKENS = 2.0**53
MAX_TIME_S = 1e12
# Times without a zone, as numpy itself reads them: digits, colons and a point after the date.
NAIVE_TIME = np.isin(np.arange(256), [0, *b"0123456789:."])
# The years that are taken for times, all of which fit 64 bits of ns, and how they begin.
YEARS = range(1900, 2200)
CENTURIES = np.frombuffer(b"192021", dtype=">u2")
DATE = re.compile(rb"\d{4}-\d{2}-\d{2}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Columns of consecutive rows, each of shape (rows,).

    Numbers are float64; times are numbers, bytes, str objects or datetime64; ``hash_ids`` is what each
    row holds, unchecked.
    ``error(row, role, problem)`` makes the InputError that names the value's place in the file.
    """

    values: Mapping[Role, NDArray[Any]]
    error: Callable[[int, Role, str], InputError]
    hash_ids: list[Any] | None = None

    def __len__(self) -> int:
        return len(self.values["input"])


@dataclass(slots=True)
class Assembler:
    """Makes checked Traces of one file's rows, in order: its memory is the first time, the sessions, the prefixes."""

    layout: Layout
    prefixes: PrefixCache
    _origin: float | int | None = None
    _sessions: dict[object, int] = field(default_factory=dict)

    def trace(self, rows: Rows) -> Trace:
        """The rows as a Trace; a value that cannot be what its column says raises InputError."""
        inputs, outputs = _tokens(rows, "input"), _tokens(rows, "output")
        cached = _tokens(rows, "cached") if "cached" in rows.values else None
        if cached is not None and (cached > inputs).any():
            row = int(np.argmax(cached > inputs))
            raise rows.error(row, "cached", f"is {cached[row]} for {inputs[row]} input tokens")
        simulated = rows.hash_ids is not None and cached is None
        if rows.hash_ids is not None and cached is None:
            cached = self._prefix_hits(rows, rows.hash_ids, inputs)
        return Trace(
            input_tokens=inputs,
            output_tokens=outputs,
            arrival_s=self._arrivals(rows),
            cached_tokens=cached,
            session=self._session_codes(rows),
            cached_upper_bound=simulated,
        )

    def _prefix_hits(self, rows: Rows, hash_ids: list[Any], inputs: IntArray) -> IntArray:
        if set(map(type, hash_ids)) != {list} or not set(map(type, chain.from_iterable(hash_ids))) <= {int, str}:
            row = next(row for row, ids in enumerate(hash_ids) if not _are_ids(ids))
            raise rows.error(row, "hash_ids", "is not a list of whole numbers or texts")
        if not self.prefixes.fits(hash_ids, inputs):
            held = f"holds, here and below, far more blocks of {self.prefixes.block_tokens} tokens than the inputs fill"
            place = rows.error(0, "hash_ids", held)
            raise InputError(
                place.problem, file=place.file, line=place.line, fix="say the trace's block size: --block-tokens"
            )
        return self.prefixes.hit_tokens(hash_ids, inputs)

    def _arrivals(self, rows: Rows) -> FloatArray | None:
        if "time" not in rows.values or len(rows) == 0:
            return None
        raw, unit = rows.values["time"], self.layout.time_unit
        if unit is None:
            _check_marker(rows, raw, self.layout.no_time or "")
            return None
        if unit == "iso":
            ticks = iso_ns(raw)
            bad = ticks == np.iinfo(np.int64).min
            if bad.any():
                row = int(np.argmax(bad))
                raise rows.error(row, "time", f"is {_text(raw[row])!r}, not an ISO 8601 time")
            self._origin = int(ticks[0]) if self._origin is None else self._origin
            return np.asarray((ticks - self._origin) / 1e9, np.float64)
        good = np.abs(raw) / UNITS_PER_S[unit] <= MAX_TIME_S
        if not good.all():
            row = int(np.argmin(good))
            raise rows.error(row, "time", f"is {raw[row]:g}, not a time in {unit}")
        self._origin = float(raw[0]) if self._origin is None else self._origin
        return np.asarray((raw - self._origin) / UNITS_PER_S[unit], np.float64)

    def _session_codes(self, rows: Rows) -> IntArray | None:
        if "session" not in rows.values:
            return None
        codes = self._sessions
        return np.array([codes.setdefault(value, len(codes)) for value in rows.values["session"]], np.int64)


def iso_ns(values: NDArray[Any]) -> IntArray:
    """ISO 8601 times (bytes, str objects or datetime64) in ns since 1970, UTC where no zone is given.

    What is not such a time, or not between 1900 and 2199, becomes the smallest int64 (numpy's NaT). Fractions beyond
    ns are cut.
    """
    if values.dtype.kind == "S" and DATE.match(values[0]):
        octets = values.view(np.uint8).reshape(len(values), -1)
        # numpy wraps years that do not fit 64 bits of ns without a word; pandas does not.
        near_now = np.isin(octets[:, :2].view(">u2"), CENTURIES).all()
        if near_now and NAIVE_TIME[octets[:, 11:]].all():
            try:
                return values.astype("datetime64[ns]").view(np.int64)
            except ValueError:
                pass
    texts = np.char.decode(values, "utf-8", "replace").astype(object) if values.dtype.kind == "S" else values
    stamps = pd.to_datetime(pd.Series(texts), format="ISO8601", utc=True, errors="coerce")
    stamps = stamps.where(stamps.dt.year.between(YEARS[0], YEARS[-1]))
    return stamps.dt.as_unit("ns").dt.tz_localize(None).to_numpy("datetime64[ns]").view(np.int64)


def _tokens(rows: Rows, role: Role) -> IntArray:
    values = rows.values[role]
    good = (values >= 0) & (values < MAX_TOKENS) & (values == np.floor(values))
    if not good.all():
        row = int(np.argmin(good))
        raise rows.error(row, role, f"is {values[row]:g}, not a count of tokens")
    return values.astype(np.int64)


def _are_ids(value: object) -> bool:
    return type(value) is list and set(map(type, value)) <= {int, str}


def _check_marker(rows: Rows, raw: NDArray[Any], marker: str) -> None:
    same = raw == (marker.encode() if raw.dtype.kind == "S" else marker)
    if not np.all(same):
        row = int(np.argmin(same))
        raise rows.error(row, "time", f"is {_text(raw[row])!r} while the first row's is {marker!r} (no time)")


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
