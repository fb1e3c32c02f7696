"""Attainment by scope, means with requests that were never served, and what a request alone can do."""

from __future__ import annotations

import numpy as np
import pytest
from simulator.builders import clock

from melange.simulator.metrics import Estimate, Latency, RequestOutcomes, attainment_of, lone_met
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
