"""Late by design under an attainment SLO: a decision of the program, told by the plan, never dearer by more choice."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_workloads import EXACT, GPUS, SLO, profile_of, workload

from melange import InputError, Slo, SolveOptions, plan_fleet
from melange.catalog.instances import InstanceType
from melange.plan.lateness import PlanLateness
from melange.planning import late as lateness_module
from melange.planning.case import case_of
from melange.planning.choices import choose
from melange.planning.planner import prepare
from melange.solver.problem import Problem, Solution, Status

# An L4 serves large requests too late, but at 5 a second; an H100 serves all in time.
RATES, FREE = {"L4": [5, 0], "H100": [20, 5]}, {"L4": [8, 5], "H100": [40, 10]}
FEW = [9.96, 0.04]


def late_plan(rates=FEW, slo=SLO, options=EXACT, **limits):
    spec = workload(rates, slo).limited(**limits)
    return plan_fleet(spec, options, profile=profile_of(RATES, slo, FREE))


def test_few_requests_that_a_cheap_gpu_serves_late_rent_no_dear_one():
    plan = late_plan()
    assert dict(plan.instances) == {"L4": 2}
    assert plan.status == "optimal"
    small, large = plan.buckets
    assert (dict(small.shares), dict(small.late_shares)) == ({"L4": 1.0}, {})
    assert (dict(large.shares), dict(large.late_shares)) == ({}, {"L4": 1.0})
    assert large.late_rate_rps["L4"] == pytest.approx(5.0)
    # Served late, but served: 9.96 / 5 and 0.04 / 5 of two replicas.
    assert plan.utilization["L4"] == pytest.approx((9.96 / 5 + 0.04 / 5) / 2)
    in_time = plan.lateness.in_time_usd_per_hour
    assert plan.lateness == PlanLateness(
        at_most=pytest.approx(0.05), share=pytest.approx(0.004), in_time_usd_per_hour=in_time, in_time_status="optimal"
    )
    assert in_time == pytest.approx(7.0)
    assert {gpu: b.cost_usd_per_hour for gpu, b in plan.baselines.items()} == pytest.approx({"L4": 1.4, "H100": 7.0})
    (text,) = [text for text in plan.warnings if "late by design" in text]
    assert "0.4% of the requests are late by design, of at most 5% (100% of 400x100 on L4)" in text
    assert "all in time, the cheapest fleet found costs $7.00 per hour, 400% more" in text


def test_late_requests_load_machines():
    # At 5 a second in time and late alike, 10.1 requests a second are too much for two L4.
    assert dict(late_plan([9.96, 0.14]).instances) == {"L4": 3}


def test_a_config_that_can_serve_a_size_in_time_does_not_serve_it_late():
    # At 8 a second without a limit one L4 more would be saved, but its other requests keep it at 5.
    plan = late_plan([10.1, 0.01])
    assert dict(plan.instances) == {"L4": 3}
    assert not plan.buckets[0].late_shares


def test_the_part_that_may_be_late_is_the_workloads_to_say():
    spec, profile = workload([9.4, 0.6]), profile_of(RATES, unlimited_rps=FREE)
    # 6% of the requests are large, 5% may be late by default.
    assert sum(b.late_shares.get("L4", 0) * b.rate_rps for b in plan_fleet(spec, EXACT, profile=profile).buckets) <= 0.5
    more = plan_fleet(spec.with_late_by_design(0.7), EXACT, profile=profile)
    assert dict(more.instances) == {"L4": 2}
    assert more.lateness.at_most == pytest.approx(0.07)
    none = plan_fleet(spec.with_late_by_design(0.0), EXACT, profile=profile)
    assert none.lateness is None
    assert dict(none.instances) == {"H100": 1}
    for part in (-0.1, 1.1, np.nan):
        with pytest.raises(InputError, match="late_by_design"):
            spec.with_late_by_design(part)


@pytest.mark.parametrize("slo", [Slo(tpot_s=0.1), Slo(tpot_s=0.1, attainment=0.9, scope="bucket"), Slo(attainment=0.9)])
def test_other_promises_let_nothing_be_late(slo):
    plan = late_plan(slo=slo)
    assert dict(plan.instances) == {"H100": 1}
    assert plan.lateness is None
    assert not any(b.late_shares or b.late_rate_rps for b in plan.buckets)
    assert plan.baselines["L4"].cost_usd_per_hour is None


def test_what_fleet_cannot_serve_in_time_and_may_not_be_late_is_said():
    plan = late_plan([8.0, 2.0], only=("L4",))
    assert plan.status == "infeasible"
    assert "for requests of size 400x100" in plan.reasons[0]
    assert plan.reasons[1] == "they are 20% of the requests, of which at most 5% may be late by design"
    both = late_plan([8.0, 2.0])
    assert "cannot meet the SLO for sizes 400x100" in both.baselines["L4"].reason
    with pytest.raises(InputError, match="no config can serve size 400x100"):
        prepare(workload([8.0, 2.0]).limited(only=("L4",)), EXACT, profile_of(RATES, unlimited_rps=FREE))


def test_a_floor_rents_an_able_type_and_then_nothing_is_late():
    plan = late_plan(minimum={"H100": 1})
    assert not any(b.late_shares for b in plan.buckets)
    assert plan.lateness.share == 0
    assert not any("late by design" in text for text in plan.warnings)


def test_a_rate_without_a_limit_that_nobody_knows_is_that_in_time():
    # Bare capacities: where they are 0 nothing is known of a rate without a limit, and the size may not be late there.
    spec, profile = workload(FEW), profile_of(RATES)
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert dict(plan.instances) == {"H100": 1}
    assert [b.late_rate_rps for b in plan.buckets] == [
        pytest.approx({"L4": 5.0, "H100": 20.0}),
        pytest.approx({"H100": 5.0}),
    ]
    assert np.isinf(case_of(choose(spec, profile, EXACT)).problem.lateness.load[1, 0])


def test_what_is_not_measured_is_never_late():
    spec, profile = workload(FEW), profile_of({"L4": [5, np.nan], "A10G": [5, 5]})
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert not any(b.late_shares for b in plan.buckets)
    assert "not measured" in plan.baselines["L4"].reason
    with pytest.raises(InputError, match=r"not measured: 400x100 \(not measured on L4\)"):
        plan_fleet(spec.limited(only=("L4",)), EXACT, profile=profile)


def test_slices_are_late_as_a_whole():
    plan = late_plan(options=SolveOptions(slice_factor=4, gap=0.0))
    assert dict(plan.instances) == {"L4": 2}
    assert all(share * 4 == round(share * 4) for b in plan.buckets for share in b.late_shares.values())
    assert plan.lateness.share == pytest.approx(0.004)


def test_budget_caps_and_explanation_know_of_it():
    plan = late_plan(options=SolveOptions(gap=0.0, explain=True))
    # Of the fleets that do not contain the plan's, the one that serves everything in time is the cheapest.
    assert dict(plan.explanation.next_best[0].instances) == {"H100": 1}
    plan = late_plan(max_cost_usd_per_hour=2.0)
    assert dict(plan.instances) == {"L4": 2}
    assert plan.lateness.in_time_usd_per_hour is None
    assert plan.lateness.in_time_status == "infeasible"
    assert any("no fleet serves all in time" in text for text in plan.warnings)


def test_a_fleet_in_time_that_is_no_dearer_is_taken(monkeypatch):
    case = prepare(workload(FEW), EXACT, profile_of(RATES, unlimited_rps=FREE))
    dear = Solution(
        status=Status.FEASIBLE,
        shares=np.array([[0.0, 1.0], [0.0, 0.0]]),
        late_shares=np.array([[0.0, 0.0], [1.0, 0.0]]),
        replicas=np.array([1, 1]),
        instances=np.array([1, 1]),
        cost_usd_per_hour=7.7,
        bound_usd_per_hour=1.4,
        gap=6.3 / 7.7,
    )
    found, lateness = lateness_module.against_in_time(case.problem, dear, EXACT)
    assert (found.cost_usd_per_hour, found.bound_usd_per_hour, found.status) == (7.0, 1.4, "feasible")
    assert found.late_shares.sum() == lateness.share == 0

    def slow(problem: Problem, **options: object) -> Solution:
        return Solution(status=Status.UNKNOWN)

    monkeypatch.setattr(lateness_module, "solve", slow)
    plan = plan_fleet(workload(FEW), EXACT, profile=profile_of(RATES, unlimited_rps=FREE))
    assert any("time ran out before a fleet was found that serves all in time" in text for text in plan.warnings)


def test_the_case_of_the_issue():
    """0.005% of the requests that only TP 2 serves in time, under a 95% promise, cost nothing."""
    spec, profile = tp_workload(), tp_profile()
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert plan.cost_usd_per_hour == pytest.approx(1.79)
    assert plan.lateness.share == pytest.approx(5e-5)
    assert plan.lateness.in_time_usd_per_hour == pytest.approx(9.55)
    assert plan.baselines["A100-80GB"].cost_usd_per_hour == pytest.approx(1.79)


def tp_workload():
    """Requests of which one in 20,000 is large; one A100, or a dear machine of two."""
    slo = Slo(tpot_s=0.1, attainment=0.95)
    spec = workload([4.0 * 0.99995, 4.0 * 0.00005], slo)
    return spec.with_offers(
        InstanceType(name=name, gpu="A100-80GB", gpus=gpus, price_usd_per_hour=usd, memory_gib=80, price_set="x")
        for name, gpus, usd in (("A100-80GB", 1, 1.79), ("A100-pair", 2, 9.55))
    )


def tp_profile():
    """One A100 serves the large size too late; a replica on two serves both in time."""
    one = profile_of({"A100-80GB": [5, 0]}, Slo(tpot_s=0.1, attainment=0.95), {"A100-80GB": [9, 1]})
    pair = profile_of({"A100-80GB": [8, 2]}, Slo(tpot_s=0.1, attainment=0.95), {"A100-80GB": [15, 3]})
    (key,) = one.configs
    two = key._replace(tp=2)
    return replace(one, configs={key: one.configs[key], two: replace(pair.configs[key], key=two)})


@settings(max_examples=25, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.04, 0.5, 0.9, 9.0]), min_size=2, max_size=3),
    capacities=st.lists(st.lists(st.sampled_from([0, 0, 3, 10]), min_size=3, max_size=3), min_size=3, max_size=3),
    faster=st.lists(st.lists(st.sampled_from([0, 1, 4]), min_size=3, max_size=3), min_size=3, max_size=3),
)
def test_more_choice_never_costs_more(rates, capacities, faster):
    """More GPU types, a looser promise or more lateness; caps and tighter promises never cost less."""
    n = len(rates)
    in_time = {gpu: row[:n] for gpu, row in zip(GPUS, capacities, strict=True)}
    free = {
        gpu: [a + b for a, b in zip(in_time[gpu], row, strict=False)] for gpu, row in zip(GPUS, faster, strict=True)
    }
    spec, profile = workload(rates), profile_of(in_time, unlimited_rps=free)

    def cost(spec):
        plan = plan_fleet(spec, EXACT, profile=profile)
        if not plan.solved:
            return np.inf
        late = sum(b.rate_rps * sum(b.late_shares.values()) for b in plan.buckets)
        assert late <= spec.slo.may_miss * spec.late_by_design * sum(rates) + 1e-6
        for bucket in plan.buckets:
            assert sum(bucket.shares.values()) + sum(bucket.late_shares.values()) == pytest.approx(1.0)
        return plan.cost_usd_per_hour

    costs = {names: cost(spec.limited(only=names)) for k in (1, 2, 3) for names in itertools.combinations(GPUS, k)}
    for fewer, more in itertools.product(costs, costs):
        if set(fewer) < set(more):
            assert costs[more] <= costs[fewer] + 1e-9
    every = costs[GPUS]
    assert plan_fleet(spec, EXACT, profile=profile).baselines.keys() <= set(GPUS)
    for gpu, baseline in plan_fleet(spec, EXACT, profile=profile).baselines.items():
        assert (np.inf if baseline.cost_usd_per_hour is None else baseline.cost_usd_per_hour) == pytest.approx(
            costs[gpu,]
        )
    assert cost(spec.limited(maximum={"L4": 1})) >= every - 1e-9
    assert cost(spec.with_late_by_design(1.0)) <= every + 1e-9
    assert cost(spec.with_late_by_design(0.0)) >= every - 1e-9
    assert cost(spec.with_slo(replace(spec.slo, attainment=0.99))) >= every - 1e-9
