from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from late_workloads import EXACT, profile_of, workload

from melange import InputError, Measurement, Slo, SolveOptions, profile_from
from melange.measurements.measurement import LatencyStats
from melange.planning.case import case_of, cases, redrawn, seen_by_type
from melange.planning.choices import choose
from melange.planning.planner import prepare
from melange.planning.profile_source import load_profile


@pytest.fixture
def profile(small_spec):
    return load_profile(small_spec)


def only_case(spec, profile, options=None):
    (case,) = cases(choose(spec, profile, options))
    return case


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
    shares = tied.expand(np.array([[1.0, 0, 0, 0], [0, 0, 0, 1.0]]))
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


def test_demand_that_no_config_can_meet_has_no_case(small_spec):
    choices = choose(small_spec, slow_above_100(small_spec.slo))
    assert cases(choices) == []
    assert choices.unservable == ("100x500",)


def test_an_attainment_slo_lets_the_allowed_share_be_late(small_spec):
    slo = replace(small_spec.slo, attainment=0.6)
    case = only_case(small_spec.with_slo(slo), slow_above_100(slo))
    assert case.problem.buckets == ("100x100", "1000x100")
    assert case.expand(np.ones((2, 1))).tolist() == [[1], [0], [1]]
    assert case.late_share == pytest.approx(1 / 3.5)
    assert any("29% of the requests (100x500)" in w for w in case.warnings)


def test_sizes_that_nobody_measured_are_refused(small_spec):
    sizes = {"model": "llama-2-7b", "gpu": "L4", "loop": "capacity", "achieved_rps": 1.0}
    points = [Measurement(**sizes, input_tokens=i, output_tokens=o) for i in (50, 100) for o in (50, 100)]
    with pytest.raises(InputError, match=r"not measured: 100x500, 1000x100 \(not measured on L4\)"):
        cases(choose(small_spec, profile_from(points, Slo())))


def test_a_case_for_each_set_of_late_buckets_the_most_late_first():
    # L4 cannot serve the middle size, A10G not the large one; together they would have to serve both.
    spec = workload([9.0, 0.5, 0.5]).limited(only=("L4", "A10G"))
    profile = profile_of({"L4": [10, 0, 10], "A10G": [10, 10, 0]})
    found = cases(choose(spec, profile, EXACT))
    assert [case.late for case in found] == [{1}, {2}, frozenset()]
    assert prepare(spec, EXACT, profile).late == {1}
    assert found[0].able_types == {"A10G"}
    barred = case_of(found[0].choices, found[0].late, found[0].able_types)
    assert np.isinf(barred.problem.load[:, 1]).all()
    assert "A10G could serve the late requests in time" in barred.warnings[-1]
    assert seen_by_type(found[0], "A10G").late == {2}


def test_other_figures_keep_the_late_buckets():
    case = prepare(workload([9.96, 0.04]), EXACT, profile_of({"L4": [5, 0], "H100": [20, 5]}))
    rate, max_rate = case.choices.rate_rps, case.choices.max_rate_rps
    assert case.late == {1}
    assert redrawn(case, rate_rps=rate * 2, max_rate_rps=max_rate).load == pytest.approx(2 * case.problem.load)
    assert redrawn(case, rate_rps=np.array([8.0, 2.0]), max_rate_rps=max_rate) is None
