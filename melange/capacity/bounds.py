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
    low = _beta_quantile(1 - confidence, hits, count - hits + 1) if hits > 0 else 0.0
    high = _beta_quantile(confidence, hits + 1, count - hits) if hits < count else 1.0
    return Bounds(value=share, low=low, high=high)


@lru_cache
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t with so many degrees of freedom."""
    from scipy.special import stdtrit  # half a second to load, which tables without samples never need

    return float(stdtrit(freedom, probability))


def _beta_quantile(probability: float, a: float, b: float) -> float:
    from scipy.special import betaincinv

    return float(betaincinv(a, b, probability))
