"""Fleets that hold, made of what a run found or of one config alone."""

from __future__ import annotations

import math

import numpy as np
import pytest
from solver.builders import problem_of

from melange.solver.fleet import carried_by, exact_fleet, is_cheaper, one_config_fleet
from melange.solver.formulation import ProgramResult
from melange.solver.problem import GroupLimit


def outcome(shares, instances) -> ProgramResult:
    return ProgramResult(
        infeasible=False, bound_usd_per_hour=0.0, shares=np.array(shares), instances=np.array(instances)
    )


def test_cheaper_is_by_more_than_rounding():
    assert is_cheaper(9.99, 10.0)
    assert not is_cheaper(10.0 - 1e-9, 10.0)
    assert not is_cheaper(10.0, 10.0)


def test_shares_are_made_exact_and_replicas_whole():
    problem = problem_of([[1.5, 1.5]], [1.0, 2.0])
    fleet = exact_fleet(problem, outcome([[0.6666666, 0.3333334]], [1, 1]))
    assert fleet.instances.tolist() == fleet.replicas.tolist() == [1, 1]
    assert fleet.shares.sum() == pytest.approx(1.0, abs=1e-12)
    assert (fleet.shares[0] * 1.5 <= 1.0 + 1e-9).all()
    assert fleet.cost == 3.0


def test_instances_that_nothing_asks_for_are_given_back():
    problem = problem_of([[1.0, 1.0]], [1.0, 2.0])
    assert exact_fleet(problem, outcome([[1.0, 0.0]], [1, 3])).instances.tolist() == [1, 0]
    floor = GroupLimit(name="B", weights={"B": 1}, minimum=3)
    kept = exact_fleet(problem_of([[1.0, 1.0]], [1.0, 2.0], limits=(floor,)), outcome([[1.0, 0.0]], [1, 3]))
    assert kept.instances[1] == 3


def test_a_fleet_outside_the_limits_does_not_hold():
    cap = GroupLimit(name="A", weights={"A": 2}, maximum=3)
    assert exact_fleet(problem_of([[2.0]], [1.0], limits=(cap,)), outcome([[1.0]], [2])) is None
    assert exact_fleet(problem_of([[2.0]], [1.0], max_cost_usd_per_hour=1.9), outcome([[1.0]], [2])) is None
    assert exact_fleet(problem_of([[2.0]], [1.0], max_cost_usd_per_hour=2.0), outcome([[1.0]], [2])) is not None
    nothing = ProgramResult(infeasible=False, bound_usd_per_hour=0.0)
    assert exact_fleet(problem_of([[2.0]], [1.0]), nothing) is None


def test_slices_stay_whole():
    problem = problem_of([[1.5, 1.5]], [1.0, 2.0], slice_factor=4)
    fleet = exact_fleet(problem, outcome([[0.5, 0.5]], [1, 1]))
    assert sorted(fleet.shares[0].tolist()) == [0.5, 0.5]
    assert exact_fleet(problem, outcome([[0.5, 0.5]], [1, 1])).cost == 3.0


def test_the_cheapest_config_alone_below_a_cost():
    problem = problem_of([[2.5, 0.9, math.inf]], [1.0, 2.0, 0.1])
    assert one_config_fleet(problem, 99.0).instances.tolist() == [0, 1, 0]
    assert one_config_fleet(problem, math.inf).instances.tolist() == [0, 1, 0]
    assert one_config_fleet(problem, 2.0) is None
    capped = problem_of([[2.5, 0.9]], [1.0, 2.0], limits=(GroupLimit(name="B", weights={"B": 1}, maximum=0),))
    assert one_config_fleet(capped, 99.0).instances.tolist() == [3, 0]


def test_given_replicas_carry_the_load_or_get_more():
    problem = problem_of([[1.5, 1.5]], [1.0, 2.0])
    assert carried_by(problem, np.array([1, 1])).shares[0] == pytest.approx([0.5, 0.5])
    assert carried_by(problem, np.array([1, 0])).instances.tolist() == [2, 0]
    assert carried_by(problem, np.array([0, 0])) is None
