"""Counting a trace's requests into windows of a span that nobody knows before the last row, in bounded memory."""

from __future__ import annotations

import math

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.workload.windows import MOST_ASKED, Window, WindowRule

MOST_COUNTS = 1 << 20  # bins x buckets, four bytes each
LEAST_BINS = 4 * MOST_ASKED
FINEST = -30  # bins begin at a nanosecond where windows are of equal number, not of a given length


class WindowCounts:
    """Requests per fine bin of time and bucket. Where the span outgrows the bins, two become one, as often as needed.

    Bins are ``unit x 2^power`` seconds long, with the least power whose bins cover every request seen, so that the
    counts hang on the requests alone and not on how the file was cut into stretches. The unit is a window's length
    where the rule gives one (power 0 at least: bins are windows), else a second.
    """

    def __init__(self, rule: WindowRule, shape: tuple[int, int], origin_s: float) -> None:
        self._rule, self._shape, self._origin_s = rule, shape, origin_s
        self._unit_s = 1.0 if rule.length_s is None else rule.length_s
        self._power = FINEST if rule.length_s is None else 0
        cells = math.prod(shape)
        self._most = max(LEAST_BINS, MOST_COUNTS // cells)
        self._low = self._high = 0.0  # in units after the origin
        self._first = 0
        self._counts = np.zeros((1, cells), dtype=np.int32)

    def add(self, arrival_s: FloatArray, buckets: IntArray) -> None:
        """Count requests at these times, each with the flat index of its bucket."""
        if len(arrival_s) == 0:
            return
        units = self._units(arrival_s)
        self._reach(float(units.min()), float(units.max()))
        bins = np.floor(units * math.ldexp(1.0, -self._power))
        rows = np.where(units < 0, np.minimum(bins, -1.0), bins).astype(np.int64) - self._first
        # Flat and of one type, as numpy is 25 times slower otherwise.
        np.add.at(self._counts.reshape(-1), rows * self._counts.shape[1] + buckets, np.int32(1))

    def windows(self, first_s: float, last_s: float) -> tuple[Window, ...]:
        """The windows of the span from the first to the last arrival; empty where it is cut into fewer than two."""
        if not first_s < last_s:
            return ()
        self._reach(*self._units(np.array([first_s, last_s])).tolist())
        inner = self._equal(first_s, last_s) if self._rule.length_s is None else self._of_length(first_s, last_s)
        if not inner:
            return ()
        starts = [0, *(edge - self._first for edge in inner)]
        totals = np.add.reduceat(self._counts, starts, axis=0)
        edges_s = [first_s, *(self._edge_s(edge) for edge in inner), last_s]
        return tuple(
            Window(start_s=start, length_s=end - start, requests=total.reshape(self._shape))
            for start, end, total in zip(edges_s[:-1], edges_s[1:], totals, strict=True)
        )

    def _units(self, times_s: FloatArray) -> FloatArray:
        """Times in units after the origin, elementwise."""
        return (times_s - self._origin_s) / self._unit_s

    def _equal(self, first_s: float, last_s: float) -> list[int]:
        """Bins at which the second and later ones of equally long windows start, to the nearest bin."""
        number = self._rule.number(int(self._counts.sum()))
        ideal = first_s + (last_s - first_s) * np.arange(1, number) / number
        edges = np.unique(np.round((ideal - self._origin_s) / self._bin_s).astype(np.int64))
        return [int(edge) for edge in edges if self._is_inside(int(edge), first_s, last_s)]

    def _of_length(self, first_s: float, last_s: float) -> list[int]:
        """Bins at which windows of the given length start; a rest of under half a length joins its neighbour."""
        low, high = (math.floor((edge - self._origin_s) / self._unit_s) for edge in (first_s, last_s))
        if self._power > 0 or high - low >= MOST_ASKED:
            raise InputError(
                f"a trace of {(last_s - first_s) / 60:,.0f} minutes has more than {MOST_ASKED} windows of "
                f"{self._unit_s / 60:g} minutes",
                fix="make them longer",
            )
        half = self._unit_s / 2
        inside = (edge for edge in range(low + 1, high + 1) if self._is_inside(edge, first_s, last_s))
        return [e for e in inside if self._edge_s(e) - first_s >= half and last_s - self._edge_s(e) >= half]

    def _is_inside(self, edge: int, first_s: float, last_s: float) -> bool:
        return first_s < self._edge_s(edge) < last_s

    @property
    def _bin_s(self) -> float:
        return math.ldexp(self._unit_s, self._power)

    def _edge_s(self, edge: int) -> float:
        return self._origin_s + edge * self._bin_s

    def _bin(self, units: float, power: int) -> int:
        found = math.floor(math.ldexp(units, -power))
        return min(found, -1) if units < 0 else found  # halved, the smallest floats below the origin would be at it

    def _reach(self, low: float, high: float) -> None:
        """Have bins for everything seen and from ``low`` to ``high``, coarser ones where there are too few."""
        self._low, self._high = min(self._low, low), max(self._high, high)
        power = self._power
        while self._bin(self._high, power) - self._bin(self._low, power) >= self._most:
            power += 1
        if power > self._power:
            self._coarsen(power)
        first = self._bin(self._low, power)
        wanted, held = self._bin(self._high, power) - first + 1, len(self._counts)
        if first == self._first and wanted <= held:
            return
        size = min(self._most, max(wanted, 2 * held))
        wider = np.zeros((size, self._counts.shape[1]), dtype=np.int32)
        at = self._first - first
        kept = min(held, size - at)  # what lies beyond is room that no request has come to use
        wider[at : at + kept] = self._counts[:kept]
        self._first, self._counts = first, wider

    def _coarsen(self, power: int) -> None:
        for _ in range(power - self._power):
            before, odd = self._counts, self._first & 1
            self._counts = np.zeros(((len(before) + odd + 1) // 2, before.shape[1]), dtype=np.int32)
            self._counts[: (len(before) + 1) // 2] = before[::2]
            self._counts[odd : odd + len(before) // 2] += before[1::2]
            self._first >>= 1
        self._power = power
