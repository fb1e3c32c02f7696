"""The price of not knowing output lengths."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.lengths import _solved, length_price, problem_of
from melange.simulator.simulate import SimulationOptions


@pytest.fixture(scope="module")
def plan():
    return plan_fleet(load_workload("arena-120ms-mean").with_rate(8))


@pytest.mark.parametrize("tied", [False, True])
def test_the_plans_own_numbers_give_back_its_program(plan, tied):
    again = plan_fleet(load_workload("arena-120ms-mean").with_rate(8), SolveOptions(tie_outputs=tied))
    from melange.solver.search import solve

    problem, row = problem_of(plan, tied=tied)
    assert solve(problem).cost_usd_per_hour == pytest.approx(again.cost_usd_per_hour)
    assert len(set(row.tolist())) == (6 if tied else len(plan.buckets))


def test_not_knowing_lengths_never_makes_the_program_cheaper(plan):
    price = length_price(plan, None, SimulationOptions(requests=1500, replications=3))
    assert price.price_share >= -1e-9
    assert set(price.attainment) == {f"{a}/{b}" for a in ("by-size", "input-only") for b in ("oracle", "input-only")}
    assert price.to_dict()["price_share"] == price.price_share


@pytest.mark.parametrize("tied", [False, True])
def test_what_is_late_by_design_stays_where_the_plan_has_it(plan, tied):
    heavy = max(range(len(plan.buckets)), key=lambda b: plan.buckets[b].rate_rps)
    bucket = plan.buckets[heavy]
    late = replace(
        bucket,
        shares={name: 0.75 * share for name, share in bucket.shares.items()},
        late_shares={"L4": 0.25},
        late_rate_rps={"L4": bucket.rate_rps / 2},
    )
    changed = replace(plan, buckets=tuple(late if b == heavy else other for b, other in enumerate(plan.buckets)))
    problem, row = problem_of(changed, tied=tied)
    before, _ = problem_of(plan, tied=tied)
    assert problem.buckets[-1] == "late on L4"
    on_l4 = problem.configs.index("L4")
    assert problem.load[-1, on_l4] == pytest.approx(0.5 * (1 + plan.configs["L4"].headroom))
    assert np.isinf(np.delete(problem.load[-1], on_l4)).all()
    if not tied:
        assert problem.load[row[heavy]] == pytest.approx(0.75 * before.load[row[heavy]])
    solved = _solved(changed, tied=tied)
    for bucket in solved.buckets:
        assert sum(bucket.shares.values()) + sum(bucket.late_shares.values()) == pytest.approx(1)
