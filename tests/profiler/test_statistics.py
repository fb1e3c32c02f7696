"""Statistics of a run against processes whose truth is known."""

from __future__ import annotations

import numpy as np
import pytest

from melange.profiler.statistics import growth_rps, in_system, warm_up_length


def test_warm_up_is_cut_and_a_steady_series_is_kept() -> None:
    rng = np.random.default_rng(2)
    steady = rng.normal(10, 1, size=600)
    ramp = np.concatenate([np.linspace(0, 10, 100), steady])
    assert 60 <= warm_up_length(ramp) <= 160
    assert warm_up_length(steady) <= 60


def test_warm_up_takes_at_most_a_quarter() -> None:
    assert warm_up_length(np.linspace(0, 1, 200)) <= 50
    assert warm_up_length([1.0, 2.0]) == 0


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
