"""The price of not knowing output lengths."""

from __future__ import annotations

import pytest

from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.lengths import length_price, problem_of
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
