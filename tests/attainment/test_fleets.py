"""Fleets below a cost, against plain enumeration."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from melange.attainment.fleets import allowed, dominates, fleet_cost, maximal_fleets
from melange.solver.problem import GroupLimit, Problem


def problem_of(prices, limits=(), budget=None):
    names = tuple("abcd"[: len(prices)])
    return Problem(
        buckets=("x",),
        configs=names,
        instances=names,
        load=np.ones((1, len(prices))),
        config_instance=np.arange(len(prices)),
        gpus_per_replica=np.ones(len(prices)),
        gpus_per_instance=np.ones(len(prices)),
        price_usd_per_hour=np.array(prices),
        limits=tuple(limits),
        max_cost_usd_per_hour=budget,
    )


def drawn(seed):
    draw = np.random.default_rng(seed)
    prices = draw.choice([0.5, 0.7, 1.0, 1.35, 2.0, 3.0], size=int(draw.integers(1, 4)))
    limits = [
        GroupLimit(name=name, weights={name: int(draw.integers(1, 4))}, maximum=4)
        for name in "abc"[: len(prices)]
        if draw.random() < 0.4
    ]
    if len(prices) > 1 and draw.random() < 0.6:
        weights = {"a": 1, "b": int(draw.integers(1, 4))}
        low = int(draw.integers(0, 3))
        limits.append(GroupLimit(name="both", weights=weights, minimum=low, maximum=int(draw.integers(low, low + 6))))
    budget = float(draw.uniform(2, 7)) if draw.random() < 0.3 else None
    return problem_of(prices, limits, budget), float(draw.uniform(2, 7))


def every_fleet(problem, below_usd):
    ranges = [range(int(below_usd / price) + 1) for price in problem.price_usd_per_hour]
    for counts in product(*ranges):
        if any(counts) and allowed(problem, counts) and fleet_cost(problem, counts) < below_usd * (1 - 1e-9):
            yield counts


@pytest.mark.parametrize("seed", range(60))
def test_maximal_fleets_are_those_of_brute_force(seed):
    problem, below_usd = drawn(seed)
    every = set(every_fleet(problem, below_usd))
    unit = np.eye(len(problem.instances), dtype=int)
    largest = {c for c in every if not any(tuple(np.array(c) + more) in every for more in unit)}
    found = [tuple(row) for row in maximal_fleets(problem, below_usd, 10_000).tolist()]
    assert len(found) == len(set(found))
    assert set(found) == largest
    assert all(any(dominates(larger, counts) for larger in found) for counts in every)


@pytest.mark.parametrize("seed", range(40))
def test_machines_that_cost_nothing_are_taken_whole_and_no_fleet_is_missed(seed):
    problem, below_usd = drawn(seed)
    prices = problem.price_usd_per_hour.copy()
    prices[0] = 0.0
    owned = int(np.random.default_rng(seed).integers(0, 4))
    cap = GroupLimit(name="owned", weights={"a": 1}, maximum=owned)
    problem = replace(problem, price_usd_per_hour=prices, limits=(*problem.limits, cap))
    ranges = [range(owned + 1), *(range(int(below_usd / price) + 1) for price in prices[1:])]
    every = {
        counts
        for counts in product(*ranges)
        if any(counts) and allowed(problem, counts) and fleet_cost(problem, counts) < below_usd * (1 - 1e-9)
    }
    unit = np.eye(len(prices), dtype=int)
    largest = {c for c in every if not any(tuple(np.array(c) + more) in every for more in unit)}
    assert {tuple(row) for row in maximal_fleets(problem, below_usd, 10_000).tolist()} == largest


def test_nothing_is_below_a_cost_of_nothing():
    free = problem_of([0.0, 1.0], [GroupLimit(name="owned", weights={"a": 1}, maximum=2)])
    assert maximal_fleets(free, 0.0, 10).tolist() == []
    assert maximal_fleets(free, 0.5, 10).tolist() == [[2, 0]]
    assert maximal_fleets(free, 1.5, 10).tolist() == [[2, 1]]


def test_a_fleet_of_just_the_cost_is_not_below_it():
    assert maximal_fleets(problem_of([0.5]), 1.0, 10).tolist() == [[1]]
    assert maximal_fleets(problem_of([0.1, 0.3]), 0.3, 10).tolist() == [[2, 0]]
    assert len(maximal_fleets(problem_of([0.5]), 0.5, 10)) == 0


def test_too_many_are_none():
    problem = problem_of([1.0, 1.01, 1.02])
    assert maximal_fleets(problem, 100.0, 1000) is None
    assert maximal_fleets(problem, 10.0, 1000) is not None


def test_floors_caps_and_the_budget_are_kept():
    floor = problem_of([0.7, 3.0], [GroupLimit(name="b", weights={"b": 8}, minimum=16)])
    assert [allowed(floor, (0, n)) for n in (1, 2, 3)] == [False, True, True]
    budget = problem_of([0.7, 3.0], budget=3.7)
    assert [allowed(budget, counts) for counts in ((1, 1), (2, 1))] == [True, False]
    cap = problem_of([0.7, 3.0], [GroupLimit(name="a", weights={"a": 1}, maximum=6)])
    assert [allowed(cap, (n, 0)) for n in (6, 7)] == [True, False]


def test_a_fleet_contains_another_that_has_no_more_of_anything():
    assert dominates((2, 1), (2, 1))
    assert dominates((2, 1), (0, 1))
    assert not dominates((2, 1), (0, 2))
