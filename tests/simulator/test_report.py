"""Means over replications, with requests that were never served."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from melange.simulator.metrics import RequestOutcomes
from melange.simulator.report import joined, mean_kept, means_of
from melange.simulator.simulate import SimulationOptions, replications_of, scenario_of
from melange.slo import Slo


def outcomes(met, *, bucket=0, e2e_s=1.0, tokens=10) -> RequestOutcomes:
    met = np.asarray(met, dtype=bool)
    n = len(met)
    e2e = np.broadcast_to(np.asarray(e2e_s, float), (n,)).copy()
    whole = np.full(n, tokens)
    return RequestOutcomes(
        arrival_s=np.arange(n) / 2, input_tokens=whole, output_tokens=whole, ttft_s=e2e / 10, e2e_s=e2e,
        tpot_s=e2e / tokens, met=met, config=np.zeros(n, int), bucket=np.broadcast_to(np.asarray(bucket), (n,)),
        cause=np.where(met, -1, 0), preemptions=np.zeros(n, int), restarts=np.zeros(n, int),
    )  # fmt: skip


def test_means_are_not_kept_where_a_request_was_never_served():
    plan = SimpleNamespace(slo=Slo(tpot_s=0.2))
    assert mean_kept(plan, outcomes([True] * 4)) is True
    assert mean_kept(plan, outcomes([True] * 4, e2e_s=3.0)) is False
    assert mean_kept(plan, outcomes([True, True, False], e2e_s=[1.0, 1.0, np.nan])) is False
    assert mean_kept(SimpleNamespace(slo=Slo(tpot_s=0.2, attainment=0.9)), outcomes([True])) is None
    assert mean_kept(SimpleNamespace(slo=Slo(tpot_s=0.2, tpot_quantile=0.9)), outcomes([True])) is None


def test_tokens_of_requests_that_were_never_served_cost_nothing_and_earn_nothing():
    plan = SimpleNamespace(slo=Slo(tpot_s=0.2), cost_usd_per_hour=3.6)
    found = outcomes([True, True, False, True], e2e_s=[1.0, 1.0, np.nan, 1.0])
    means = means_of(plan, [SimpleNamespace(outcome=found, span_s=1.5)])
    # 1.5 s at $3.6/h for 3 requests of 10 + 10 tokens.
    assert means.usd_per_million_tokens == pytest.approx(1.5 * 0.001 / 60 * 1e6)
    assert (means.served_rps, means.offered_rps, means.goodput_rps) == pytest.approx((2.0, 4 / 1.5, 2.0))
    assert means.unserved_share == pytest.approx(0.25)


def test_outcomes_join_in_order(plan, clocks):
    scenario = scenario_of(plan, None, SimulationOptions(requests=1500), clocks=clocks)
    parts = [r.outcome for r in replications_of(scenario, 0, 2)]
    whole = joined(parts)
    assert len(whole.met) == sum(len(p.met) for p in parts)
    np.testing.assert_array_equal(whole.met[: len(parts[0].met)], parts[0].met)
