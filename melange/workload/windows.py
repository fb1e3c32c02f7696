"""Windows: the stretches of time of a trace, each with how many requests of which sizes it held."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError

REQUESTS_PER_WINDOW = 1000
MOST_WINDOWS = 168  # the hours of a week
MOST_ASKED = 2048


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Window:
    """A stretch of a trace and the requests that it held.

    ``start_s`` is in seconds after the trace's first row, ``length_s`` positive. ``requests``: (n_input, n_output),
    how many were counted in each bucket of the workload's grid; all zero in a stretch without any. Counts, not rates:
    they do not change with the workload's rate, and say how far a window's histogram can be trusted.
    """

    start_s: float
    length_s: float
    requests: FloatArray

    def __post_init__(self) -> None:
        array = np.array(self.requests, dtype=float)
        if not (math.isfinite(self.start_s) and math.isfinite(self.length_s) and self.length_s > 0):
            raise InputError(
                f"a window starts at {self.start_s} s and is {self.length_s} s long", fix="give it a positive length"
            )
        if not np.all(np.isfinite(array) & (array >= 0)):
            bad = array[~(np.isfinite(array) & (array >= 0))][0]
            raise InputError(f"a window holds {bad} requests", fix="counts are finite and at least 0")
        array.setflags(write=False)
        object.__setattr__(self, "requests", array)

    @property
    def end_s(self) -> float:
        return self.start_s + self.length_s

    @property
    def count(self) -> float:
        """Requests in the window, of all sizes."""
        return float(self.requests.sum())


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowRule:
    """How the span of a trace is cut into windows, at most one of the two given.

    ``count`` windows of equal length, or windows of ``length_s`` from the first row on, the last being what is left.
    Neither: as many equal windows as hold ``REQUESTS_PER_WINDOW`` kept requests each in the mean, at most
    ``MOST_WINDOWS``. Fewer than two windows are none, as one would repeat the whole.
    """

    count: int | None = None
    length_s: float | None = None

    def __post_init__(self) -> None:
        if self.count is not None and self.length_s is not None:
            raise InputError("both a number and a length of windows are given", fix="keep one of them")
        if self.count is not None and not 1 <= self.count <= MOST_ASKED:
            raise InputError(f"{self.count} windows are asked for", fix=f"give 1 to {MOST_ASKED}")
        if self.length_s is not None and not (math.isfinite(self.length_s) and self.length_s > 0):
            raise InputError(f"windows are {self.length_s / 60:g} minutes long", fix="give a positive length")

    def number(self, requests: int) -> int:
        """How many equal windows a trace of so many kept requests is cut into."""
        return self.count or min(MOST_WINDOWS, requests // REQUESTS_PER_WINDOW)


def check_windows(windows: Sequence[Window], shape: tuple[int, int]) -> None:
    """Raise InputError unless the windows are of this shape, in order of time, apart, and hold a request."""
    for window in windows:
        if window.requests.shape != shape:
            raise InputError(
                f"a window's requests have shape {window.requests.shape}, the grid {shape}",
                fix="give one count per bucket",
            )
    for before, after in pairwise(windows):
        check_order(before, after)
    if windows and not any(window.count for window in windows):
        raise InputError("no window holds a request", fix="leave the windows out")


def check_order(before: Window, after: Window) -> None:
    """Raise InputError unless one window ends before the next starts, to the rounding of a file's ten digits."""
    if after.start_s < before.end_s - 1e-9 * max(1.0, abs(before.end_s)):
        raise InputError(
            f"the window at {after.start_s:g} s starts before the one above it ends ({before.end_s:g} s)",
            fix="give windows in order of time, without overlap",
        )


def window_paces(windows: Sequence[Window]) -> FloatArray:
    """(n_windows, n_input, n_output): each bucket's rate in a window over its mean rate in all of them.

    1 throughout for a bucket that no window saw: nothing is known of when its requests come.
    """
    requests = np.stack([window.requests for window in windows])
    lengths = np.array([window.length_s for window in windows])
    mean = requests.sum(axis=0) / lengths.sum()
    paces = np.ones_like(requests)
    np.divide(requests / lengths[:, None, None], mean, out=paces, where=np.broadcast_to(mean > 0, requests.shape))
    return paces
