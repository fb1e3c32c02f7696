"""Attainment by scope, means with requests that were never served, and what a request alone can do."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulator.builders import clock

from melange.simulator.metrics import (
    Estimate,
    Latency,
    RequestOutcomes,
    attained_by,
    attainment_of,
    kept_percentiles,
    lone_met,
)
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


PERCENTILES = Slo(ttft_s=0.1, ttft_quantile=0.95, e2e_s=1.2, e2e_quantile=0.9)


def late(ttft: int, e2e: int, unserved: int = 0) -> RequestOutcomes:
    """A hundred requests, of which so many come with a late first token, so many others late, and some never."""
    e2e_s = np.array([1.0] * (100 - e2e - unserved) + [2.0] * e2e + [np.nan] * unserved)
    found = outcomes([True] * 100, e2e_s=e2e_s)
    ttft_s = np.where(np.isnan(e2e_s), np.nan, np.where(np.arange(100) < ttft, 0.5, 0.05))
    met = PERCENTILES.met(e2e_s=e2e_s, ttft_s=ttft_s, output_tokens=found.output_tokens)
    return replace(found, ttft_s=ttft_s, met=met)


@pytest.mark.parametrize(
    ("found", "ttft", "e2e", "attained"),
    [
        (late(5, 10), True, True, 0.95),
        (late(6, 0), False, True, 0.94),
        (late(0, 11), True, False, 1 - 1.1 * 0.05),
        (late(0, 0, 8), False, True, 0.92),
    ],
)
def test_percentiles_are_kept_one_by_one(found, ttft, e2e, attained):
    kept = {entry.latency: entry for entry in kept_percentiles(found, PERCENTILES)}
    assert (kept["ttft"].kept, kept["e2e"].kept) == (ttft, e2e)
    assert attainment_of(found, PERCENTILES) == pytest.approx(attained)
    assert (attainment_of(found, PERCENTILES) >= 0.95) == (ttft and e2e)


def test_a_percentile_that_nobody_reaches_is_never():
    kept = {entry.latency: entry for entry in kept_percentiles(late(0, 0, 8), PERCENTILES)}
    assert kept["ttft"].measured_s is None
    assert kept["ttft"].describe() == "p95 TTFT never, limit 100 ms: not kept (92.00% within it)"
    assert kept["e2e"].describe() == "p90 E2E 1e+03 ms, limit 1200 ms: kept"
    assert kept_percentiles(late(0, 0), Slo(ttft_s=0.1, attainment=0.9)) == ()


def test_percentiles_within_each_bucket_count_in_the_worst():
    found = replace(late(6, 0), bucket=np.array([0] * 50 + [1] * 50))
    alike = Slo(ttft_s=0.1, ttft_quantile=0.9, e2e_s=1.2, e2e_quantile=0.9, scope="bucket")
    assert attainment_of(found, alike) == pytest.approx(44 / 50)


def test_each_part_of_the_requests_attains_its_own():
    alike = Slo(ttft_s=0.1, ttft_quantile=0.9, e2e_s=1.2, e2e_quantile=0.9)
    part = np.array([0] * 50 + [2] * 50)
    of_each = attained_by(late(6, 5), alike, part, 3)
    assert of_each[[0, 2]].tolist() == [pytest.approx(0.88), pytest.approx(0.9)]
    assert np.isnan(of_each[1])
    jointly = attained_by(late(60, 5), replace(PERCENTILES, ttft_quantile=None, e2e_quantile=None), part, 3)
    assert jointly[[0, 2]].tolist() == [0.0, pytest.approx(0.7)]


def test_one_percentile_is_attained_as_the_joint_promise_of_its_limit():
    found = replace(late(6, 3), met=late(6, 3).ttft_s <= 0.1)
    assert attainment_of(found, Slo(ttft_s=0.1, ttft_quantile=0.9)) == attainment_of(
        found, Slo(ttft_s=0.1, attainment=0.9)
    )
