from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import Slo, plan_fleet
from melange.planning.assemble import _limits, costs_of, counts, per_replica, utilised
from melange.solver.problem import GroupLimit, Problem, Solution
from melange.solver.search import solve


def test_zero_counts_are_left_out():
    assert counts(("L4", "A10G", "H100"), np.array([2, 0, 1])) == {"L4": 2, "H100": 1}


def test_costs_divide_the_whole_by_each_kind_of_token(small_spec):
    workload = small_spec.workload
    costs = costs_of(7.3, workload)
    # By hand: rates (2, 1, 0.5) req/s of means (60, 60, 600) input and (50, 250, 50) output tokens.
    inputs, outputs = 2 * 60 + 1 * 60 + 0.5 * 600, 2 * 50 + 1 * 250 + 0.5 * 50
    assert costs.usd_per_month == pytest.approx(7.3 * 730)
    assert costs.usd_per_million_input_tokens == pytest.approx(7.3 / (inputs * 0.0036))
    assert costs.usd_per_million_output_tokens == pytest.approx(7.3 / (outputs * 0.0036))
    assert costs.usd_per_million_tokens == pytest.approx(7.3 / ((inputs + outputs) * 0.0036))


def test_utilisation_counts_demand_without_headroom():
    shares = np.array([[0.5, 0.5], [1.0, 0.0]])
    load = utilised(shares, np.array([4.0, 3.0]), np.array([[2.0, 8.0], [6.0, np.nan]]))
    assert load.tolist() == [1.5, 0.25]
    solution = Solution(status="optimal", replicas=np.array([2, 1]))
    assert per_replica(("a", "b"), load, solution) == {"a": 0.75, "b": 0.25}


@pytest.mark.parametrize(
    ("limits", "binding"),
    [
        ({"maximum": {"A10G": 0}}, {"A10G": True}),
        ({"maximum": {"A10G": 50}}, {"A10G": False}),
        ({"minimum": {"H100": 1}}, {"H100": True}),
        ({"max_cost_usd_per_hour": 1000.0}, {"cost_usd_per_hour": False}),
    ],
    ids=str,
)
def test_a_limit_binds_where_one_more_unit_would_break_it(small_spec, limits, binding):
    plan = plan_fleet(small_spec.limited(**limits))
    assert {limit.name: limit.binding for limit in plan.limits} == binding


@pytest.mark.parametrize(("cap", "binds"), [(8, True), (12, True), (15, True), (16, False)])
def test_a_cap_on_gpus_binds_where_a_whole_machine_more_would_break_it(cap, binds):
    problem = Problem(
        buckets=("all",),
        configs=("H100x8/tp8",),
        instances=("H100x8",),
        load=np.array([[0.9]]),
        config_instance=np.array([0]),
        gpus_per_replica=np.array([8]),
        gpus_per_instance=np.array([8]),
        price_usd_per_hour=np.array([60.0]),
        limits=(GroupLimit(name="H100", weights={"H100x8": 8}, maximum=cap),),
    )
    (row,) = _limits(problem, solve(problem))
    assert (row.used, row.binding) == (8, binds)


@pytest.mark.parametrize(
    ("slo", "said"),
    [
        (Slo(tpot_s=0.1, tpot_definition="decode"), False),
        (Slo(tpot_s=0.1, tpot_definition="e2e_per_token"), True),
        (Slo(tpot_s=0.1, tpot_definition="decode", ttft_s=1.0), True),
        (Slo(), False),
    ],
)
def test_limits_that_include_waiting_are_said_to_be_optimistic(small_spec, slo, said):
    spec = replace(small_spec, workload=replace(small_spec.workload, slo=slo))
    plan = plan_fleet(spec)
    assert any("added up" in warning for warning in plan.warnings) is said
