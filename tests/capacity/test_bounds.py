"""Bounds against processes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from melange.capacity.bounds import LEVELS, batch_means, effective_counts, mean_bounds, share_bounds, student_quantile


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
    bounds = share_bounds(1.0, np.full(len(LEVELS) - 1, 299.0))
    assert bounds.value == 1.0
    assert bounds.low == pytest.approx(0.05 ** (1 / 299))
    assert bounds.high == 1.0


def test_misses_that_cluster_count_for_fewer_independent_ones() -> None:
    rng = np.random.default_rng(5)
    slow, quick = effective_counts(correlated(rng, 1000, 0.95)), effective_counts(correlated(rng, 1000, 0.0))
    assert len(slow) == len(LEVELS) - 1
    assert slow[1:4].max() < 200 < quick[1:4].min()
    assert (effective_counts([2.0] * 50) == 50).all()
    assert (effective_counts(range(15)) == 15).all()


def test_both_bounds_of_a_share_rise_with_it_whatever_the_counts() -> None:
    rng = np.random.default_rng(6)
    shares = np.unique([*LEVELS, *rng.uniform(size=60), *(1 - rng.uniform(size=20) / 100)])
    for _ in range(20):
        counts = rng.uniform(1, 400, len(LEVELS) - 1)
        found = [share_bounds(float(share), counts) for share in shares]
        assert (np.diff([b.low for b in found]) >= -1e-12).all()
        assert (np.diff([b.high for b in found]) >= -1e-12).all()
        assert all(b.low <= b.value <= b.high for b in found)


def test_bounds_of_a_share_close_with_the_counts() -> None:
    few, many = (share_bounds(0.9, np.full(len(LEVELS) - 1, count)) for count in (50.0, 500.0))
    assert few.low < many.low < 0.9 < many.high < few.high
    assert np.isnan(share_bounds(0.0, np.array([])).value)


def test_too_few_values_decide_nothing() -> None:
    bounds = mean_bounds([1.0] * 15)
    assert bounds.low == -np.inf
    assert bounds.high == np.inf
    assert np.isnan(mean_bounds([]).value)


def test_batches_cover_the_tail_of_the_series() -> None:
    assert batch_means(np.arange(105.0))[-1] == pytest.approx(np.arange(95, 105).mean())


def test_quantiles_are_those_of_scipy() -> None:
    assert student_quantile(0.985, 9) == pytest.approx(stats.t.ppf(0.985, 9))
    assert share_bounds(14 / 15, np.full(len(LEVELS) - 1, 15.0)).low == pytest.approx(stats.beta.ppf(0.05, 14, 2))
