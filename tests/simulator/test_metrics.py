"""Attainment by scope, means with requests that were never served, and what a request alone can do."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from simulator.builders import clock

from melange.simulator.metrics import Estimate, Latency, RequestOutcomes, attainment_of, lone_met
from melange.simulator.report import mean_kept, means_of
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


def test_by_bucket_the_worst_with_enough_requests_counts():
    met = [True] * 95 + [False] * 5 + [True] * 15 + [False] * 5 + [False] * 19
    found = outcomes(met, bucket=[0] * 100 + [1] * 20 + [2] * 19)
    assert attainment_of(found, Slo(tpot_s=0.1, attainment=0.9)) == pytest.approx(110 / 139)
    # Nineteen requests say nothing about a share; twenty do.
    assert attainment_of(found, Slo(tpot_s=0.1, attainment=0.9, scope="bucket")) == pytest.approx(0.75)
    few = outcomes([True, False], bucket=[0, 1])
    assert attainment_of(few, Slo(tpot_s=0.1, attainment=0.9, scope="bucket")) == 0.5


def test_means_are_not_kept_where_a_request_was_never_served():
    plan = SimpleNamespace(slo=Slo(tpot_s=0.2))
    assert mean_kept(plan, outcomes([True] * 4)) is True
    assert mean_kept(plan, outcomes([True] * 4, e2e_s=3.0)) is False
    assert mean_kept(plan, outcomes([True, True, False], e2e_s=[1.0, 1.0, np.nan])) is False
    assert mean_kept(SimpleNamespace(slo=Slo(tpot_s=0.2, attainment=0.9)), outcomes([True])) is None


def test_tokens_of_requests_that_were_never_served_cost_nothing_and_earn_nothing():
    plan = SimpleNamespace(slo=Slo(tpot_s=0.2), cost_usd_per_hour=3.6)
    found = outcomes([True, True, False, True], e2e_s=[1.0, 1.0, np.nan, 1.0])
    means = means_of(plan, [SimpleNamespace(outcome=found, span_s=1.5)])
    # 1.5 s at $3.6/h for 3 requests of 10 + 10 tokens.
    assert means.usd_per_million_tokens == pytest.approx(1.5 * 0.001 / 60 * 1e6)
    assert (means.served_rps, means.offered_rps, means.goodput_rps) == pytest.approx((2.0, 4 / 1.5, 2.0))
    assert means.unserved_share == pytest.approx(0.25)


def test_a_request_without_room_does_not_keep_the_slo_even_alone():
    tight, slo = clock(kv_capacity_tokens=160), Slo(e2e_s=1e6)
    assert lone_met(tight, slo, np.array([100, 100]), np.array([61, 62])).tolist() == [True, False]


def test_an_interval_stays_within_what_is_possible():
    estimate = Estimate.of([0.99, 1.0, 1.0, 0.9])
    assert (estimate.low < estimate.mean, estimate.high) == (True, 1.0)
    assert Estimate.of([0.5]).low is None


def test_latencies_of_nobody_are_none():
    assert Latency.of(np.array([np.nan])).p99_s is None
    assert Latency.of(np.array([1.0, np.nan, 3.0])).mean_s == 2.0
