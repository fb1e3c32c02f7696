"""Bounds of means and shares of correlated series, by means of batches.

Latencies of one run are not independent: a request that meets a long queue is followed by others that do. Bounds
therefore come from means of batches long enough to be nearly independent (Law, *Simulation Modeling and Analysis*,
section 9.5.3).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray

BATCHES = 10
MIN_BATCHED = 16
LEVELS = (0.0, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 1.0)  # shares met between which misses cluster alike


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An estimate with its one-sided bounds, each at the same confidence; ``low`` and ``high`` may be infinite."""

    value: float
    low: float
    high: float


def batch_means(values: ArrayLike) -> FloatArray:
    """Means of 10 consecutive batches, (10,): few enough that each outlasts the memory of most queues."""
    series = np.asarray(values, float)
    count = min(BATCHES, len(series))
    size = len(series) // count
    means: FloatArray = series[len(series) - size * count :].reshape(count, size).mean(axis=1)
    return means


def lag_one(series: FloatArray) -> float:
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
    half = _standard_error(series) * student_quantile(confidence, min(BATCHES, len(series)) - 1)
    return Bounds(value=mean, low=mean - half, high=mean + half)


def _standard_error(series: FloatArray) -> float:
    """Of the mean of a correlated series; what correlation the batches still have widens it."""
    means = batch_means(series)
    rho = max(0.0, min(0.9, lag_one(means)))
    return float(means.std(ddof=1) / math.sqrt(len(means)) * math.sqrt((1 + rho) / (1 - rho)))


def independent_mean_bounds(values: ArrayLike, confidence: float = 0.95) -> Bounds:
    """Mean of independent values, such as latencies of requests served one at a time; at least 2 of them."""
    series = np.asarray(values, float)
    if len(series) < 2:
        value = float(series[0]) if len(series) else math.nan
        return Bounds(value=value, low=-math.inf, high=math.inf)
    half = float(series.std(ddof=1) / math.sqrt(len(series)) * student_quantile(confidence, len(series) - 1))
    return Bounds(value=float(series.mean()), low=float(series.mean()) - half, high=float(series.mean()) + half)


def effective_counts(values: ArrayLike) -> FloatArray:
    """How many independent observations a correlated series, (n,), is worth to the share of it under a threshold.

    (levels,), one for thresholds that the share LEVELS[k] to LEVELS[k + 1] keeps: var_independent / var_batches of the
    misses at the middle of those (in the logarithm of the share missed), so that both rare misses and their clustering
    count; all n of them where they are below 16 or all alike. A property of the series, whatever threshold is asked.
    """
    series = np.asarray(values, float)
    missed = 1 - np.array(LEVELS[:-1]), np.append(1 - np.array(LEVELS[1:-1]), (1 - LEVELS[-2]) / 4)
    at = np.quantile(series, 1 - np.sqrt(missed[0] * missed[1])) if len(series) else []
    return np.array([_effective_count((series > level).astype(float)) for level in at])


def _effective_count(series: FloatArray) -> float:
    count = float(len(series))
    error = _standard_error(series) if count >= MIN_BATCHED else 0.0
    return min(count, max(1.0, float(series.var()) / error**2)) if error > 0 else count


def share_bounds(share: float, counts: FloatArray, confidence: float = 0.95) -> Bounds:
    """A share with one-sided bounds at ``confidence`` each, from a series worth ``counts`` (see effective_counts).

    Clopper-Pearson, continued to counts that are not whole. Both bounds rise with the share, also where the counts
    change with it: the lower is the highest that a share no larger would have, the upper the lowest that one no
    smaller would have. Without counts, 0 and 1.
    """
    if not len(counts):
        return Bounds(value=math.nan, low=0.0, high=1.0)
    here = min(int(np.searchsorted(LEVELS, share, side="right")) - 1, len(counts) - 1)
    below = [_low(LEVELS[k + 1], counts[k], confidence) for k in range(here)]
    above = [_high(LEVELS[k], counts[k], confidence) for k in range(here + 1, len(counts))]
    low, high = _low(share, counts[here], confidence), _high(share, counts[here], confidence)
    return Bounds(value=share, low=max([low, *below]), high=min([high, *above]))


def _low(share: float, count: float, confidence: float) -> float:
    hits = share * count
    return _beta_quantile(1 - confidence, hits, count - hits + 1) if hits > 0 else 0.0


def _high(share: float, count: float, confidence: float) -> float:
    hits = share * count
    return _beta_quantile(confidence, hits + 1, count - hits) if hits < count else 1.0


@lru_cache
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # half a second to load, which tables without samples never need

    return float(stdtrit(freedom, probability))


def _beta_quantile(probability: float, a: float, b: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))
