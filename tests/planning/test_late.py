"""Late buckets under an attainment SLO: judged type by type, so that allowing more never costs more."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from late_workloads import EXACT, GPUS, SLO, profile_of, workload

from melange import InputError, Slo, plan_fleet
from melange.planning.late import late_by_type, late_choices, may_be_late


def test_a_dear_gpu_that_serves_the_rest_does_not_have_to_be_rented():
    spec, profile = workload([9.96, 0.04]), profile_of({"L4": [5, 0], "H100": [20, 5]})
    both, alone = (
        plan_fleet(spec, EXACT, profile=profile),
        plan_fleet(spec.limited(only=("L4",)), EXACT, profile=profile),
    )
    assert dict(both.instances) == dict(alone.instances) == {"L4": 2}
    assert both.status == "optimal"
    assert both.bound_usd_per_hour == pytest.approx(1.4)
    assert {gpu: b.cost_usd_per_hour for gpu, b in both.baselines.items()} == pytest.approx({"L4": 1.4, "H100": 7.0})
    assert [bool(b.shares) for b in both.buckets] == [True, False]
    assert any("0.4% of the requests (400x100) cannot be served in time by L4 and" in w for w in both.warnings)


def test_late_requests_beyond_the_share_that_may_miss_are_sized_for():
    spec, profile = workload([8.0, 2.0]), profile_of({"L4": [5, 0], "H100": [20, 5]})
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert all(b.shares for b in plan.buckets)
    assert "cannot meet the SLO for sizes 400x100" in plan.baselines["L4"].reason


@pytest.mark.parametrize("slo", [Slo(tpot_s=0.1), Slo(tpot_s=0.1, attainment=0.9, scope="bucket")])
def test_other_promises_let_nothing_be_late(slo):
    spec, profile = workload([9.96, 0.04], slo), profile_of({"L4": [5, 0], "H100": [20, 5]}, slo)
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert dict(plan.instances) == {"H100": 1}
    assert plan.baselines["L4"].cost_usd_per_hour is None


def test_the_cheaper_of_two_choices_of_late_buckets_is_taken():
    # L4 cannot serve the middle size, A10G not the large one; together they would have to serve both.
    spec = workload([9.0, 0.5, 0.5])
    profile = profile_of({"L4": [10, 0, 10], "A10G": [10, 10, 0]})
    plan = plan_fleet(spec.limited(only=("L4", "A10G")), EXACT, profile=profile)
    assert dict(plan.instances) == {"L4": 1}
    assert not plan.buckets[1].shares
    # With no L4 to rent the other choice is the one that has a plan.
    other = plan_fleet(spec.limited(maximum={"L4": 0}), EXACT, profile=profile)
    assert dict(other.instances) == {"A10G": 1}
    assert other.status == "optimal"


def test_a_type_that_is_not_rented_excuses_nothing():
    spec, profile = workload([9.0, 0.9]), profile_of({"L4": [1, 1], "A10G": [0.01, 0]})
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert dict(plan.instances) == {"L4": 10}
    assert all(b.shares for b in plan.buckets)
    assert not plan.warnings[1:]
    # Free to rent the A10G for the small requests, the fleet without late buckets would hold it.
    profile = profile_of({"L4": [1, 0], "A10G": [1.5, 0.02]})
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert dict(plan.instances) == {"L4": 9}
    assert "A10G could serve the late requests in time" in plan.warnings[-1]
    # A floor rents the able type whatever the rest: nothing is late beside it.
    spec, profile = workload([9.96, 0.04]), profile_of({"L4": [5, 0], "H100": [20, 5]})
    plan = plan_fleet(spec.limited(minimum={"H100": 1}), EXACT, profile=profile)
    assert all(b.shares for b in plan.buckets)


def test_the_sets_of_late_buckets_that_are_tried():
    rate = np.array([0.9, 0.05, 0.05])
    rates = np.array([[1.0, 1, 0], [0, 1, 0], [0, 0, np.nan]])
    by_type = late_by_type(rates, GPUS)
    assert by_type == {"L4": {1, 2}, "A10G": {2}, "H100": {0, 1}}
    assert late_choices(by_type, rates, rate, SLO) == [{1, 2}, {2}]
    tight = Slo(tpot_s=0.1, attainment=0.94)
    # Beside L4, H100 would only be late for bucket 1, but then bucket 2 is left with no config at all.
    assert late_choices(by_type, rates, rate, tight) == [{2}]
    rates[2, 2] = 1.0
    assert late_choices(by_type, rates, rate, tight) == [{1}, {2}, frozenset()]
    assert may_be_late(frozenset({1, 2}), rate, SLO)
    assert not may_be_late(frozenset({1, 2}), rate, tight)


def test_what_is_not_measured_is_never_late():
    spec, profile = workload([9.96, 0.04]), profile_of({"L4": [5, np.nan], "A10G": [5, 5]})
    plan = plan_fleet(spec, EXACT, profile=profile)
    assert all(b.shares for b in plan.buckets)
    assert "not measured" in plan.baselines["L4"].reason
    with pytest.raises(InputError, match="not measured"):
        plan_fleet(spec.limited(only=("L4",)), EXACT, profile=profile)


def test_a_floor_on_a_type_that_is_not_measured_where_the_others_are_late():
    spec, profile = workload([9.92, 0.04, 0.04]), profile_of({"L4": [5, 0, 0], "H100": [20, 5, np.nan]})
    assert dict(plan_fleet(spec, EXACT, profile=profile).instances) == {"L4": 2}
    plan = plan_fleet(spec.limited(minimum={"H100": 1}), EXACT, profile=profile)
    assert plan.status == "infeasible"
    assert "a minimum asks for a GPU type" in plan.reasons[0]


@settings(max_examples=40, deadline=None)
@given(
    rates=st.lists(st.sampled_from([0.04, 0.5, 0.9, 9.0]), min_size=2, max_size=3),
    capacities=st.lists(st.lists(st.sampled_from([0, 0, 3, 10]), min_size=3, max_size=3), min_size=3, max_size=3),
)
def test_more_types_never_cost_more_and_a_baseline_is_what_only_gives(rates, capacities):
    spec = workload(rates)
    profile = profile_of({gpu: row[: len(rates)] for gpu, row in zip(GPUS, capacities, strict=True)})
    plans = {
        names: plan_fleet(spec.limited(only=names), EXACT, profile=profile)
        for n in (1, 2, 3)
        for names in itertools.combinations(GPUS, n)
    }
    costs = {names: np.inf if p.cost_usd_per_hour is None else p.cost_usd_per_hour for names, p in plans.items()}
    for fewer, more in itertools.product(plans, plans):
        if set(fewer) < set(more):
            assert costs[more] <= costs[fewer] + 1e-9
    for names, plan in plans.items():
        for gpu, baseline in plan.baselines.items():
            alone = np.inf if baseline.cost_usd_per_hour is None else baseline.cost_usd_per_hour
            assert alone == pytest.approx(costs[gpu,]), names
        late = [b for b in plan.buckets if plan.solved and not b.shares]
        assert sum(b.rate_rps for b in late) <= 0.1 * sum(rates) + 1e-9
        assert not any(b.max_rate_rps[gpu] for b in late for gpu in plan.instances)
