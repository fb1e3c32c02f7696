"""Statistics against processes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from melange.profiler.statistics import (
    batch_means,
    growth_rps,
    in_system,
    mean_bounds,
    share_bounds,
    warm_up_length,
)


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


def test_warm_up_is_cut_and_a_steady_series_is_kept() -> None:
    rng = np.random.default_rng(2)
    steady = rng.normal(10, 1, size=600)
    ramp = np.concatenate([np.linspace(0, 10, 100), steady])
    assert 60 <= warm_up_length(ramp) <= 160
    assert warm_up_length(steady) <= 60


def test_warm_up_takes_at_most_a_quarter() -> None:
    assert warm_up_length(np.linspace(0, 1, 200)) <= 50
    assert warm_up_length([1.0, 2.0]) == 0


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


def test_in_system_counts_those_that_arrived_and_have_not_left() -> None:
    assert in_system([0.0, 1.0, 2.0], [1.5, np.inf, 2.5], [0.5, 1.2, 2.2, 3.0]).tolist() == [1, 2, 2, 1]


def test_growth_of_an_overloaded_and_of_a_stable_queue() -> None:
    sent = np.arange(0, 100, 0.1)
    stable = growth_rps(sent, sent + 0.5, 10, 100)
    assert stable.value == pytest.approx(0, abs=0.02)
    assert stable.low <= 0 or stable.value < 0.02
    overloaded = growth_rps(sent, sent * 1.25 + 0.5, 10, 100)
    assert overloaded.low > 1.5
    assert overloaded.value == pytest.approx(2.0, rel=0.1)


def test_batches_cover_the_tail_of_the_series() -> None:
    assert batch_means(np.arange(105.0))[-1] == pytest.approx(np.arange(95, 105).mean())
