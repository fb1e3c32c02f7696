from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from late_workloads import EXACT, profile_of, workload

from melange import InputError, Measurement, Slo, SolveOptions, profile_from
from melange.measurements.measurement import LatencyStats
from melange.planning.case import case_of, redrawn, refuse_unmeasured
from melange.planning.choices import choose
from melange.planning.planner import prepare
from melange.planning.profile_source import load_profile


@pytest.fixture
def profile(small_spec):
    return load_profile(small_spec)


def only_case(spec, profile, options=None):
    return case_of(choose(spec, profile, options))


def test_load_is_rate_over_max_rate_and_headroom_scales_the_rate(small_spec, profile):
    plain = only_case(small_spec, profile)
    padded = only_case(small_spec.with_headroom(0.25), profile)
    assert plain.problem.load == pytest.approx(plain.choices.rate_rps[:, None] / plain.choices.max_rate_rps)
    assert padded.problem.load == pytest.approx(1.25 * plain.problem.load)


def test_empty_buckets_are_left_out(small_spec, profile):
    assert only_case(small_spec, profile).problem.buckets == ("100x100", "100x500", "1000x100")


def test_headroom_of_one_config(small_spec, profile):
    some = only_case(small_spec.with_headroom(0.0, {"L4": 1.0}), profile).problem
    ratio = some.load / only_case(small_spec, profile).problem.load
    assert ratio[:, some.configs.index("L4")] == pytest.approx(2.0)
    assert ratio[:, some.configs.index("H100")] == pytest.approx(1.0)


def test_tied_outputs_sum_their_loads_and_share_their_shares(small_spec, profile):
    tied = only_case(small_spec, profile, SolveOptions(tie_outputs=True))
    free = only_case(small_spec, profile)
    assert tied.problem.buckets == ("100x100+100x500", "1000x100")
    assert tied.problem.load[0] == pytest.approx(free.problem.load[0] + free.problem.load[1])
    shares, late = tied.expand(np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]), None)
    assert not late.any()
    assert shares.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 1]]


def test_the_budget_and_the_slices_reach_the_problem(small_spec, profile):
    problem = only_case(small_spec.limited(max_cost_usd_per_hour=9), profile, SolveOptions(slice_factor=4)).problem
    assert (problem.max_cost_usd_per_hour, problem.slice_factor) == (9, 4)


def slow_above_100(slo):
    """An L4 that meets the SLO for short outputs only."""
    points = []
    for i in (50, 1000):
        for o, tpot in ((50, 0.05), (100, 0.05), (500, 0.3)):
            stats = LatencyStats(mean=tpot, p50=tpot, p99=tpot)
            points.append(
                Measurement(
                    model="llama-2-7b", gpu="L4", input_tokens=i, output_tokens=o, loop="closed", concurrency=1,
                    achieved_rps=1.0, tpot_e2e_per_token_s=stats,
                )
            )  # fmt: skip
    return profile_from(points, slo)


def test_demand_that_no_config_can_meet_is_named(small_spec):
    case = case_of(choose(small_spec, slow_above_100(small_spec.slo)))
    assert case.unservable == ("100x500",)
    assert case.problem.lateness is None
    refuse_unmeasured(case)  # they were measured, and are too slow


def test_an_attainment_slo_lets_a_part_of_what_it_lets_miss_be_late(small_spec):
    slo = replace(small_spec.slo, attainment=0.6)
    profile = slow_above_100(slo)
    # 29% of the requests are of the size that is not in time; 40% may miss, of which half be late by design.
    tight = case_of(choose(small_spec.with_slo(slo), profile))
    assert tight.unservable == ("100x500",)
    case = case_of(choose(small_spec.with_slo(slo).with_late_by_design(0.8), profile))
    assert case.unservable == ()
    late = case.problem.lateness
    assert late.at_most == pytest.approx(0.32)
    # What is in time on a config is not late there; of the other size the same load points show a request a second.
    assert late.weight[:, 0] == pytest.approx([0, case.choices.rate_rps[1] / 3.5, 0])
    assert late.load[:, 0] == pytest.approx([np.inf, case.choices.rate_rps[1], np.inf])


def test_tied_outputs_are_late_only_in_the_sizes_that_a_config_does_not_serve_in_time(small_spec):
    slo = replace(small_spec.slo, attainment=0.6)
    spec = small_spec.with_slo(slo).with_late_by_design(0.8)
    case = case_of(choose(spec, slow_above_100(slo), SolveOptions(tie_outputs=True)))
    assert case.problem.buckets == ("100x100+100x500", "1000x100")
    assert np.isinf(case.problem.load[0, 0])
    assert case.problem.lateness.weight[:, 0] == pytest.approx([1 / 3.5, 0])
    assert np.isfinite(case.problem.lateness.load[:, 0]).tolist() == [True, False]
    in_time, late = case.expand(np.array([[0.0], [1.0]]), np.array([[1.0], [0.0]]))
    assert in_time.tolist() == [[1], [0], [1]]
    assert late.tolist() == [[0], [1], [0]]


def test_sizes_that_nobody_measured_are_refused(small_spec):
    sizes = {"model": "llama-2-7b", "gpu": "L4", "loop": "capacity", "achieved_rps": 1.0}
    points = [Measurement(**sizes, input_tokens=i, output_tokens=o) for i in (50, 100) for o in (50, 100)]
    with pytest.raises(InputError, match=r"not measured: 100x500, 1000x100 \(not measured on L4\)"):
        refuse_unmeasured(case_of(choose(small_spec, profile_from(points, Slo()))))


def test_other_figures_keep_what_may_be_late():
    profile = profile_of({"L4": [5, 0], "H100": [20, 5]}, unlimited_rps={"L4": [8, 5], "H100": [40, 10]})
    case = prepare(workload([9.96, 0.04]), EXACT, profile)
    rate, ones = case.choices.rate_rps, np.ones((2, 2))
    twice = redrawn(case, rate_rps=rate * 2, factor=ones)
    assert twice.way_load == pytest.approx(2 * case.problem.way_load)
    assert twice.way_weight == pytest.approx(case.problem.way_weight)
    assert redrawn(case, rate_rps=rate, factor=2 * ones).way_load == pytest.approx(case.problem.way_load / 2)
    heavy = redrawn(case, rate_rps=np.array([8.0, 2.0]), factor=ones)
    assert heavy.lateness.weight.max(axis=1) == pytest.approx([0, 0.2])
