"""Statistics of correlated latencies: warm-up, batch means, one-sided bounds, and the trend of a queue.

Latencies of one run are not independent: a request that meets a long queue is followed by others that do. Bounds
therefore come from means of batches long enough to be nearly independent (Law, *Simulation Modeling and Analysis*,
section 9.5.3), after the warm-up that minimises the marginal standard error (MSER-5: White, Cobb and Spratt 2000).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

FloatArray = NDArray[np.float64]

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
BATCHES = 10
MIN_BATCHED = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An estimate with its one-sided bounds, each at the same confidence; ``low`` and ``high`` may be infinite."""

    value: float
    low: float
    high: float


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


def batch_means(values: ArrayLike) -> FloatArray:
    """Means of 10 consecutive batches, (10,): few enough that each outlasts the memory of most queues."""
    series = np.asarray(values, float)
    count = min(BATCHES, len(series))
    size = len(series) // count
    means: FloatArray = series[len(series) - size * count :].reshape(count, size).mean(axis=1)
    return means


def _lag_one(series: FloatArray) -> float:
    """Lag-1 autocorrelation; 0 for a constant series."""
    centred = series - series.mean()
    power = float(centred @ centred)
    return float(centred[:-1] @ centred[1:]) / power if power > 0 else 0.0


def mean_bounds(values: ArrayLike, confidence: float = 0.95) -> Bounds:
    """Stationary mean of a correlated series, (n,), with one-sided bounds at ``confidence`` each.

    Infinite bounds below 16 values: too few to batch.
    """
    series = np.asarray(values, float)
    if len(series) == 0:
        return Bounds(value=math.nan, low=-math.inf, high=math.inf)
    mean = float(series.mean())
    if len(series) < MIN_BATCHED:
        return Bounds(value=mean, low=-math.inf, high=math.inf)
    half = _standard_error(series) * float(stats.t.ppf(confidence, len(batch_means(series)) - 1))
    return Bounds(value=mean, low=mean - half, high=mean + half)


def _standard_error(series: FloatArray) -> float:
    """Of the mean of a correlated series; what correlation the batches still have widens it."""
    means = batch_means(series)
    rho = max(0.0, min(0.9, _lag_one(means)))
    return float(means.std(ddof=1) / math.sqrt(len(means)) * math.sqrt((1 + rho) / (1 - rho)))


def independent_mean_bounds(values: ArrayLike, confidence: float = 0.95) -> Bounds:
    """Mean of independent values, such as latencies of requests served one at a time; at least 2 of them."""
    series = np.asarray(values, float)
    if len(series) < 2:
        value = float(series[0]) if len(series) else math.nan
        return Bounds(value=value, low=-math.inf, high=math.inf)
    half = float(series.std(ddof=1) / math.sqrt(len(series)) * stats.t.ppf(confidence, len(series) - 1))
    return Bounds(value=float(series.mean()), low=float(series.mean()) - half, high=float(series.mean()) + half)


def share_bounds(met: ArrayLike, confidence: float = 0.95) -> Bounds:
    """Stationary share of true values in a correlated 0/1 series, with one-sided bounds at ``confidence`` each.

    Clopper-Pearson on the effective sample size n var_independent / var_batches, so that both rare misses and their
    clustering count.
    """
    series = np.asarray(met, float)
    if len(series) == 0:
        return Bounds(value=math.nan, low=0.0, high=1.0)
    share, count = float(series.mean()), float(len(series))
    if len(series) >= MIN_BATCHED and 0 < share < 1:
        error = _standard_error(series)
        if error > 0:
            count = min(count, max(1.0, share * (1 - share) / error**2))
    hits = share * count
    low = float(stats.beta.ppf(1 - confidence, hits, count - hits + 1)) if hits > 0 else 0.0
    high = float(stats.beta.ppf(confidence, hits + 1, count - hits)) if hits < count else 1.0
    return Bounds(value=share, low=low, high=high)


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
    rho = max(0.0, min(0.9, _lag_one(residuals)))
    half = float(line.stderr * math.sqrt((1 + rho) / (1 - rho)) * stats.t.ppf(confidence, pieces - 2))
    return Bounds(value=float(line.slope), low=float(line.slope) - half, high=float(line.slope) + half)
