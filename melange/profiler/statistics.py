"""Statistics of a run: when it is looked at, its warm-up, and the trend of its queue.

The warm-up is the one that minimises the marginal standard error (MSER-5: White, Cobb and Spratt 2000).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from melange.arrays import FloatArray
from melange.capacity.bounds import Bounds, lag_one

# When a running load is looked at (share of its time) and the risk of a wrong verdict spent at each look. The risks
# sum to 3.5%, so by the union bound stopping at the first look that decides keeps the promised 95%, with something
# left for batches that are not quite independent.
LOOKS: tuple[tuple[float, float], ...] = (
    (1 / 16, 0.0025),
    (1 / 8, 0.0025),
    (1 / 4, 0.005),
    (1 / 2, 0.01),
    (1.0, 0.015),
)

MSER_BATCH = 5


def warm_up_length(values: ArrayLike) -> int:
    """How many leading values, of (n,) in time order, belong to the warm-up, by MSER-5; at most a quarter of them.

    MSER picks the cut d that minimises var(values[d:]) / (n - d): the squared standard error of what remains.
    """
    series = np.asarray(values, float)
    batches = len(series) // MSER_BATCH
    if batches < 4:
        return 0
    means = series[: batches * MSER_BATCH].reshape(batches, MSER_BATCH).mean(axis=1)
    kept = np.arange(batches, 0, -1)
    tail_sum = means[::-1].cumsum()[::-1]
    tail_squares = (means**2)[::-1].cumsum()[::-1]
    error = (tail_squares - tail_sum**2 / kept) / kept**2
    return int(np.argmin(error[: batches // 4 + 1])) * MSER_BATCH


def in_system(sent_s: ArrayLike, left_s: ArrayLike, at_s: ArrayLike) -> FloatArray:
    """Requests in the system at each time: sent by then and not yet gone. ``left_s`` infinite for those in flight."""
    times = np.asarray(at_s, float)
    arrived = np.searchsorted(np.sort(np.asarray(sent_s, float)), times, side="right")
    gone = np.searchsorted(np.sort(np.asarray(left_s, float)), times, side="right")
    return (arrived - gone).astype(float)


def growth_rps(sent_s: ArrayLike, left_s: ArrayLike, start_s: float, end_s: float, confidence: float = 0.95) -> Bounds:
    """Trend of the requests in the system over [start, end] in requests/s, by a line through 12 interval means.

    The error of the slope is widened by the residuals' lag-1 autocorrelation: a queue remembers.
    """
    pieces, inside = 12, 16
    edges = np.linspace(start_s, end_s, pieces * inside + 1)
    level = in_system(sent_s, left_s, (edges[:-1] + edges[1:]) / 2).reshape(pieces, inside).mean(axis=1)
    middle = np.linspace(start_s, end_s, 2 * pieces + 1)[1::2]
    line = stats.linregress(middle, level)
    residuals = level - (line.intercept + line.slope * middle)
    rho = max(0.0, min(0.9, lag_one(residuals)))
    half = float(line.stderr * math.sqrt((1 + rho) / (1 - rho)) * stats.t.ppf(confidence, pieces - 2))
    return Bounds(value=float(line.slope), low=float(line.slope) - half, high=float(line.slope) + half)
