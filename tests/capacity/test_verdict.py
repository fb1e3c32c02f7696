"""One verdict for points with samples and for points that only state their statistics."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.capacity.verdict import judge
from melange.measurements.measurement import LatencyStats, Measurement
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject, summarise
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine

SLO = Slo(tpot_s=0.1)


def stated(tpot: float = 0.05, *, mean_upper: float | None = None, **more: object) -> Measurement:
    """A load point as other tools export it: statistics, no samples, no queue trend."""
    stats = LatencyStats(mean=tpot, p50=tpot, p99=2 * tpot, mean_upper=mean_upper)
    values: dict[str, object] = {"offered_rps": 1.0, "achieved_rps": 1.0, "samples": 100, "ttft_s": stats}
    return Measurement(
        model="m", gpu="L4", input_tokens=100, output_tokens=100, tpot_decode_s=stats, e2e_s=stats,
        **{**values, **more},  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture(scope="module")
def sampled() -> Measurement:
    load = Load(size=Size(128, 64), rate_rps=8, max_s=600, min_requests=80)
    run = SimulatedEngine().run(load, lambda run: False)
    return summarise(run, Subject(key=ConfigKey("m", "L4", 1, "bf16", "vllm")))


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        (stated(0.05), "pass"),
        (stated(0.2), "fail"),
        (stated(0.09, mean_upper=0.11), "undecided"),
        (stated(0.09, mean_upper=0.099), "pass"),
        (stated(0.11, mean_upper=0.13), "undecided"),
        (stated(0.11, mean_upper=0.115), "fail"),
        (stated(0.05, achieved_rps=0.98), "pass"),
        (stated(0.05, achieved_rps=0.95), "undecided"),
        (stated(0.05, achieved_rps=0.89), "fail"),
        (stated(0.05, offered_rps=None), "pass"),
        (stated(0.05, saturated=True), "fail"),
        (stated(0.05, failures=1), "pass"),
        (stated(0.05, failures=3), "undecided"),
        (stated(0.5, failures=3), "undecided"),
        (stated(0.5, failures=1), "fail"),
        (stated(0.5, valid=False, saturated=True), "undecided"),
        (stated(0.05, valid=False), "undecided"),
        (replace(stated(0.05), tpot_decode_s=None), "undecided"),
    ],
)
def test_stated_statistics_are_taken_at_their_word(point: Measurement, expected: str) -> None:
    assert judge(point, SLO) == expected


def test_marginal_percentiles_bound_a_joint_attainment_from_both_sides() -> None:
    point = stated(0.05)  # p99 is 0.1: each misses at most 1%, together at most 2%
    for attainment, expected in ((0.9, "pass"), (0.98, "pass"), (0.985, "undecided")):
        assert judge(point, Slo(tpot_s=0.1, ttft_s=0.1, attainment=attainment)) == expected
    assert judge(point, Slo(tpot_s=0.04, ttft_s=0.1, attainment=0.9)) == "fail"  # the median is beyond 40 ms


def test_stated_percentiles_answer_percentiles_one_by_one() -> None:
    point = stated(0.05)  # p50 is 50 ms, p99 100 ms
    for quantile, limit, expected in (
        (0.99, 0.1, "pass"),
        (0.95, 0.1, "pass"),
        (0.95, 0.09, "undecided"),
        (0.99, 0.09, "fail"),
        (0.999, 0.1, "undecided"),
        (0.5, 0.05, "pass"),
        (0.5, 0.04, "fail"),
    ):
        assert judge(point, Slo(ttft_s=limit, ttft_quantile=quantile)) == expected, (quantile, limit)
    each = Slo(ttft_s=0.1, tpot_s=0.1, ttft_quantile=0.99, tpot_quantile=0.99)
    assert judge(point, each) == "pass"
    assert judge(point, Slo(ttft_s=0.1, tpot_s=0.1, attainment=0.99)) == "undecided"  # each may miss another 1%
    assert judge(replace(point, tpot_decode_s=None), each) == "undecided"


def test_samples_answer_percentiles_one_by_one(sampled: Measurement) -> None:
    n = len(sampled.sample_e2e_s or ())
    slow_starts = tuple(9.0 if k % 25 == 0 else t for k, t in enumerate(sampled.sample_ttft_s or ()))
    slow_ends = tuple(99.0 if k % 25 == 12 else t for k, t in enumerate(sampled.sample_e2e_s or ()))
    point = replace(sampled, sample_ttft_s=slow_starts, sample_e2e_s=slow_ends)  # 4% miss each, 8% miss one of them
    limits = {"tpot_s": 0.1, "ttft_s": 1.0}
    assert n > 4000
    assert judge(point, Slo(**limits, tpot_quantile=0.95, ttft_quantile=0.95)) == "pass"
    assert judge(point, Slo(**limits, attainment=0.95)) == "fail"
    assert judge(point, Slo(**limits, tpot_quantile=0.97, ttft_quantile=0.95)) == "fail"
    for share in (0.9, 0.95, 0.96, 0.97):
        assert judge(point, Slo(ttft_s=1.0, ttft_quantile=share)) == judge(point, Slo(ttft_s=1.0, attainment=share))


def test_samples_decide_a_joint_attainment_by_its_bounds(sampled: Measurement) -> None:
    met = Slo(tpot_s=0.1, ttft_s=1.0, attainment=0.9)
    assert judge(sampled, met) == "pass"
    n = len(sampled.sample_e2e_s or ())
    slow = tuple(9.0 if k % 10 == 0 else t for k, t in enumerate(sampled.sample_ttft_s or ()))
    assert judge(replace(sampled, sample_ttft_s=slow), met) == "undecided"  # 90% to the point, not to its bound
    assert judge(replace(sampled, sample_ttft_s=(9.0,) * n), met) == "fail"


def test_failures_are_requests_that_missed(sampled: Measurement) -> None:
    # 10 of some 4,800 requests are few enough to go on with, but in a row they do not rule out that 1% misses.
    failing, slo = replace(sampled, failures=10), Slo(tpot_s=0.1, ttft_s=1.0, attainment=0.99)
    assert judge(sampled, slo) == "pass"
    assert judge(failing, slo) == "undecided"
    assert judge(failing, replace(slo, attainment=0.98)) == "pass"


def test_failures_never_break_an_slo(sampled: Measurement) -> None:
    failing = replace(sampled, failures=45)  # of some 4,800: tolerated, and more than 99.9% lets miss
    for attainment in (0.99, 0.995, 0.999):
        assert judge(failing, Slo(tpot_s=0.1, ttft_s=1.0, attainment=attainment)) == "undecided"
        assert judge(failing, Slo(ttft_s=1.0, ttft_quantile=attainment)) == "undecided"
    assert judge(failing, Slo(tpot_s=0.1)) == "pass"
    for failures in (60, 1000, 10**6):
        for slo in (Slo(tpot_s=0.1), Slo(tpot_s=1e-6), Slo(ttft_s=1e-6, attainment=0.9)):
            assert judge(replace(sampled, failures=failures, saturated=True), slo) == "undecided"


def test_a_trend_that_is_not_ruled_out_is_undecided(sampled: Measurement) -> None:
    assert judge(sampled, Slo(tpot_s=0.1)) == "pass"
    grows = replace(sampled, queue_growth_low_rps=0.01, queue_growth_high_rps=0.02)
    assert judge(grows, Slo(tpot_s=0.1)) == "undecided"
    vague = replace(sampled, queue_growth_high_rps=2.0)
    assert judge(vague, Slo(tpot_s=0.1)) == "undecided"
    behind = replace(sampled, achieved_rps=0.97 * (sampled.offered_rps or 0.0))
    assert judge(behind, Slo(tpot_s=0.1)) == "undecided"


def test_a_single_output_token_meets_any_decode_limit() -> None:
    assert judge(replace(stated(0.5), output_tokens=1, tpot_decode_s=None), SLO) == "pass"


def test_scattered_misses_of_a_tighter_limit_do_not_pass_where_a_looser_limit_s_cluster_does_not(
    sampled: Measurement,
) -> None:
    # a run of 20 slow requests in 1000, and 20 single ones that are a little late
    ttft = [0.9 if 400 <= k < 420 else 0.5 if k % 50 == 7 else 0.1 for k in range(1000)]
    point = replace(
        sampled, sample_ttft_s=tuple(ttft), sample_e2e_s=(1.0,) * 1000, sample_output_tokens=(64,) * 1000, samples=1000
    )
    order = ("fail", "undecided", "pass")
    for attainment in np.arange(0.8, 0.99, 0.0025).tolist():
        loose = judge(point, Slo(ttft_s=0.6, attainment=attainment))
        tight = judge(point, Slo(ttft_s=0.3, attainment=attainment))
        assert order.index(tight) <= order.index(loose), attainment
