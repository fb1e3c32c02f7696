"""Additivity and the price of unknown lengths."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.analysis.additivity import additivity
from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.lengths import length_price, problem_of
from melange.simulator.simulate import SimulationOptions
from melange.slo import Slo


@pytest.fixture(scope="module")
def plan():
    return plan_fleet(load_workload("arena-120ms-mean").with_rate(8))


def test_loads_add_up_for_throughput_and_the_error_is_reported(plan):
    rows = additivity(replace(plan, slo=Slo()), requests=800)
    assert set(rows) <= set(plan.replicas)
    for row in rows.values():
        assert row.limit == "a queue that does not grow"
        assert row.worst_error <= row.mean_error
        assert abs(row.mean_error) < 0.3
        assert row.verdict in ("additive", "optimistic", "conservative")


def test_a_limit_on_ttft_makes_additivity_optimistic_for_some_mix(plan):
    # Short prompts keep a tight TTFT alone at a high rate; beside long prompts they wait for them.
    rows = additivity(replace(plan, slo=Slo(ttft_s=0.15, attainment=0.99)), requests=1500)
    assert min(row.worst_error for row in rows.values()) < -0.1
    assert any(row.verdict == "optimistic" for row in rows.values())


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
