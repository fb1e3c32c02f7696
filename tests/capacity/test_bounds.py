"""Bounds against processes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from melange.capacity.bounds import batch_means, mean_bounds, share_bounds, student_quantile


def correlated(rng: np.random.Generator, n: int, rho: float) -> np.ndarray:
    """AR(1) with mean 0 and unit marginal variance."""
    noise = rng.normal(size=n) * np.sqrt(1 - rho**2)
    series = np.empty(n)
    series[0] = rng.normal()
    for i in range(1, n):
        series[i] = rho * series[i - 1] + noise[i]
    return series


def test_batch_means_cover_a_correlated_mean_where_independent_samples_do_not() -> None:
    rng = np.random.default_rng(1)
    batched = independent = 0
    for _ in range(400):
        series = correlated(rng, 1000, 0.9)
        batched += mean_bounds(series).high >= 0
        independent += series.mean() + 1.645 * series.std(ddof=1) / np.sqrt(len(series)) >= 0
    assert batched / 400 >= 0.92
    assert independent / 400 <= 0.75


def test_share_bounds_of_all_met_are_exact() -> None:
    bounds = share_bounds(np.ones(299))
    assert bounds.value == 1.0
    assert bounds.low == pytest.approx(0.05 ** (1 / 299))
    assert bounds.high == 1.0


def test_share_bounds_widen_where_misses_cluster() -> None:
    scattered = np.ones(1000)
    scattered[::20] = 0
    clustered = np.ones(1000)
    clustered[:50] = 0
    assert share_bounds(clustered).low < share_bounds(scattered).low - 0.02


def test_too_few_values_decide_nothing() -> None:
    bounds = mean_bounds([1.0] * 15)
    assert bounds.low == -np.inf
    assert bounds.high == np.inf
    assert np.isnan(mean_bounds([]).value)


def test_batches_cover_the_tail_of_the_series() -> None:
    assert batch_means(np.arange(105.0))[-1] == pytest.approx(np.arange(95, 105).mean())


def test_quantiles_are_those_of_scipy() -> None:
    assert student_quantile(0.985, 9) == pytest.approx(stats.t.ppf(0.985, 9))
    met = np.ones(50)
    met[[3, 20, 41]] = 0
    assert share_bounds(met[:15]).low == pytest.approx(stats.beta.ppf(0.05, 14, 2))
