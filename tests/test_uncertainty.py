from __future__ import annotations

import numpy as np
import pytest

from melange import InputError, PlanOptions
from melange.planner import prepare
from melange.uncertainty import VARIANCE_SHARES, _errors, assess, solve_with_uncertainty


def test_variance_divides_whole():
    assert sum(VARIANCE_SHARES.values()) == pytest.approx(1)


def test_errors_have_the_stated_size_and_hang_together(small_spec):
    build = prepare(small_spec)
    rng = np.random.default_rng(0)
    draws = np.stack([_errors(build, np.ones(build.max_rate_rps.shape), rng) for _ in range(4000)])
    assert draws.std(axis=0) == pytest.approx(1.0, abs=0.05)
    across_gpus = np.corrcoef(draws[:, 0, 0], draws[:, 0, 1])[0, 1]
    within_gpu = np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]
    assert across_gpus == pytest.approx(VARIANCE_SHARES["common"], abs=0.06)
    assert within_gpu > across_gpus + 0.2


def test_regret_is_never_negative_and_orders_the_fleets(small_spec):
    odds = assess(prepare(small_spec, PlanOptions(rate_rps=12)), draws=20, seed=1)
    regrets = [fleet.mean_regret_usd_per_hour for fleet in odds.fleets]
    assert regrets == sorted(regrets)
    assert regrets[0] >= -1e-6
    assert odds.least_regret is odds.fleets[0]
    assert sum(fleet.share_optimal for fleet in odds.fleets) <= 1 + 1e-9
    for fleet in odds.fleets:
        assert fleet.mean_cost_usd_per_hour >= fleet.cost_usd_per_hour - 1e-9
        assert fleet.p5_cost_usd_per_hour <= fleet.p95_cost_usd_per_hour


def test_same_seed_same_answer(small_spec):
    one, two = (solve_with_uncertainty(small_spec, draws=10, seed=3).to_dict() for _ in range(2))
    assert one == two
    assert one["extra"]["uncertainty"]["draws"] == 10


def test_too_few_draws(small_spec):
    with pytest.raises(InputError, match="too few"):
        assess(prepare(small_spec), draws=3)
