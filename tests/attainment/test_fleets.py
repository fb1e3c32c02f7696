"""Fleets in order of cost, against plain enumeration."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from melange.attainment.fleets import allowed, arranged, dominates, fleet_cost, fleets_between, maximal
from melange.solver.problem import GroupLimit, Problem


@pytest.fixture
def problem() -> Problem:
    return Problem(
        buckets=("a", "b"),
        configs=("small", "large"),
        instances=("small", "large"),
        load=np.array([[1.5, 0.5], [np.inf, 0.8]]),
        config_instance=np.array([0, 1]),
        gpus_per_replica=np.array([1, 1]),
        gpus_per_instance=np.array([1, 1]),
        price_usd_per_hour=np.array([0.7, 3.0]),
        limits=(GroupLimit(name="small", weights={"small": 1}, maximum=6),),
    )


def test_every_allowed_fleet_of_the_window_comes_once_and_in_order(problem):
    found = list(fleets_between(problem, 2.0, 9.0))
    every = [c for c in product(range(20), range(5)) if 2.0 - 1e-9 <= fleet_cost(problem, c) < 9.0 - 1e-9 and c[0] <= 6]
    assert sorted(found) == sorted(every)
    costs = [fleet_cost(problem, c) for c in found]
    assert costs == sorted(costs)


def test_floors_and_the_budget_are_kept(problem):
    floor = replace(problem, limits=(GroupLimit(name="large", weights={"large": 8}, minimum=16),))
    assert [allowed(floor, (0, n)) for n in (1, 2, 3)] == [False, True, True]
    assert all(counts[1] >= 2 for counts in fleets_between(floor, 2.0, 9.0))
    budget = replace(problem, max_cost_usd_per_hour=3.7)
    assert [allowed(budget, counts) for counts in ((1, 1), (2, 1))] == [True, False]
    assert maximal(budget, (1, 0), 9.0) == (1, 1)


def test_a_maximal_fleet_has_no_room_for_one_more(problem):
    grown = maximal(problem, (1, 0), 7.0)
    assert dominates(grown, (1, 0))
    assert fleet_cost(problem, grown) < 7.0
    for index in range(2):
        more = tuple(n + (k == index) for k, n in enumerate(grown))
        assert fleet_cost(problem, more) >= 7.0 or not allowed(problem, more)


def test_shares_leave_the_most_slack_and_overloaded_fleets_have_none(problem):
    replicas, shares, highest = arranged(problem, (2, 1))
    assert replicas.tolist() == [2, 1]
    # large: 0.8 + 0.5 x, small: 1.5 (1 - x) / 2: even where 0.8 + 0.5 x = 0.75 (1 - x), below 0, so x = 0.
    assert shares[0].tolist() == pytest.approx([1.0, 0.0])
    assert highest == pytest.approx(0.8)
    assert arranged(problem, (3, 0)) is None
    assert arranged(problem, (0, 1)) is None


def test_several_configs_of_one_machine_are_left_to_the_program(problem):
    shared = replace(
        problem,
        instances=("box",),
        config_instance=np.array([0, 0]),
        gpus_per_replica=np.array([1, 2]),
        gpus_per_instance=np.array([4]),
        price_usd_per_hour=np.array([5.0]),
        limits=(),
    )
    replicas, _, highest = arranged(shared, (1,))
    assert replicas @ shared.gpus_per_replica <= 4
    assert highest <= 1
