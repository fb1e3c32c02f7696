"""Machines that cost nothing: brute force, another solver, and the fewest of them."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.instances import random_problem
from benchmarks.oracles import milp_fleet
from brute_force import carries, problems
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from solver.agreement import as_brute_force
from solver.builders import problem_of

from melange.errors import InputError
from melange.solver.checker import violations
from melange.solver.explain import explain
from melange.solver.problem import GroupLimit, Problem
from melange.solver.search import _Search, default_gap, solve, undercut


def owning(problem: Problem, owned: dict[int, int]) -> Problem:
    """The problem where so many machines of some types, by position, are there anyway; no more of them can be had."""
    prices = problem.price_usd_per_hour.copy()
    prices[list(owned)] = 0.0
    caps = [GroupLimit(name=f"owned {i}", weights={problem.instances[i]: 1}, maximum=n) for i, n in owned.items()]
    return replace(problem, price_usd_per_hour=prices, limits=(*problem.limits, *caps))


def beside(problem: Problem, owned: int) -> Problem:
    """The problem with so many free twins of its first instance type beside the rented ones."""
    twins = [c for c, home in enumerate(problem.config_instance) if home == 0]
    return owning(
        replace(
            problem,
            instances=(*problem.instances, "owned"),
            configs=(*problem.configs, *(f"owned/{problem.configs[c]}" for c in twins)),
            load=np.hstack([problem.load, problem.load[:, twins]]),
            config_instance=np.r_[problem.config_instance, np.full(len(twins), len(problem.instances))],
            gpus_per_replica=np.r_[problem.gpus_per_replica, problem.gpus_per_replica[twins]],
            gpus_per_instance=np.r_[problem.gpus_per_instance, problem.gpus_per_instance[0]],
            price_usd_per_hour=np.r_[problem.price_usd_per_hour, 1.0],
        ),
        {len(problem.instances): owned},
    )


def agrees(problem: Problem) -> None:
    solution = as_brute_force(problem)
    if solution.status == "infeasible":
        return
    assert solution.instances is not None
    assert free_gpus(problem, solution.instances) == fewest_free_gpus(problem, solution.instances)


def free_gpus(problem, instances) -> int:
    return int((problem.gpus_per_instance * instances)[problem.is_free].sum())


def fewest_free_gpus(problem: Problem, instances) -> int:
    """By trying every smaller number of free machines beside the paid ones."""
    most = zip(_most(problem, instances), problem.is_free, strict=True)
    ranges = [range(int(n) + 1) if free else (int(n),) for n, free in most]
    every = [np.array(counts) for counts in itertools.product(*ranges)]
    return min(free_gpus(problem, counts) for counts in every if _within(problem, counts) and carries(problem, counts))


def _most(problem, instances):
    caps = {key: limit.maximum for limit in problem.limits for key in limit.weights if limit.name.startswith("owned")}
    return [caps.get(key, n) for key, n in zip(problem.instances, instances.tolist(), strict=True)]


def _within(problem, counts):
    named = dict(zip(problem.instances, counts, strict=True))
    for limit in problem.limits:
        used = sum(weight * named[key] for key, weight in limit.weights.items())
        if used < limit.minimum or (limit.maximum is not None and used > limit.maximum):
            return False
    return True


FEW = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@FEW
@given(problem=problems(), owned=st.integers(0, 3))
def test_brute_force_agrees_where_some_machines_are_owned(problem: Problem, owned: int) -> None:
    agrees(owning(problem, {0: owned}))


@FEW
@given(problem=problems(limits=False), owned=st.integers(0, 2))
def test_brute_force_agrees_where_more_can_be_rented(problem: Problem, owned: int) -> None:
    agrees(beside(problem, owned))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(slices=True), owned=st.integers(0, 2))
def test_brute_force_agrees_on_slices(problem: Problem, owned: int) -> None:
    agrees(owning(problem, {0: owned}))


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(periods=True), owned=st.integers(0, 2))
def test_brute_force_agrees_on_periods(problem: Problem, owned: int) -> None:
    agrees(owning(problem, {0: owned}))


def test_another_formulation_agrees_on_larger_problems() -> None:
    free = paid = 0
    for seed in range(80_000, 80_080):
        problem = random_problem(seed)
        owned = int(np.random.default_rng(seed).integers(1, 6))
        problem = beside(replace(problem, slice_factor=None), owned)
        ours, theirs = solve(problem), milp_fleet(problem)
        assert violations(problem, ours) == []
        assert theirs is not None
        if theirs.cost is None:
            assert ours.status == "infeasible"
            continue
        assert ours.cost_usd_per_hour == pytest.approx(theirs.cost, rel=default_gap(problem) + 1e-6, abs=1e-6)
        assert ours.bound_usd_per_hour <= theirs.cost + 1e-6
        free += ours.cost_usd_per_hour == 0
        paid += ours.cost_usd_per_hour > 0
    assert free > 5
    assert paid > 5


def test_what_is_owned_is_enough_and_costs_nothing() -> None:
    problem = owning(problem_of([[2.5, 0.4]], [1.0, 8.0]), {0: 5})
    solution = solve(problem)
    assert (solution.status, solution.cost_usd_per_hour, solution.gap) == ("optimal", 0.0, 0.0)
    assert solution.bound_usd_per_hour == 0.0
    assert solution.instances.tolist() == [3, 0]
    explained = explain(problem, solution)
    assert [row.above_best for row in explained.next_best] == [None] * len(explained.next_best)
    assert [row.instance for row in explained.break_even] == ["B"]


def test_too_little_is_owned_and_the_rest_is_rented() -> None:
    solution = solve(owning(problem_of([[2.5, 1.0]], [1.0, 8.0]), {0: 2}))
    assert (solution.status, solution.cost_usd_per_hour) == ("optimal", 8.0)
    # One machine of eight dollars carries it alone: nothing that is owned is needed.
    assert solution.instances.tolist() == [0, 1]


def test_a_budget_is_for_what_is_rented() -> None:
    problem = replace(owning(problem_of([[2.5, 1.0]], [1.0, 8.0]), {0: 3}), max_cost_usd_per_hour=0.5)
    assert solve(problem).instances.tolist() == [3, 0]
    assert solve(replace(problem, load=problem.load * 2)).status == "infeasible"


def test_all_machines_free_and_too_few() -> None:
    problem = owning(problem_of([[2.5, math.inf], [1.0, 1.0]], [1.0, 1.0]), {0: 2, 1: 2})
    assert solve(problem).status == "infeasible"


def test_a_known_fleet_for_nothing_undercuts() -> None:
    problem = owning(problem_of([[0.9, 0.9]], [1.0, 2.0]), {0: 1})
    dear = replace(
        solve(problem),
        instances=np.array([0, 1]),
        replicas=np.array([0, 1]),
        shares=np.array([[0.0, 1.0]]),
        cost_usd_per_hour=2.0,
        bound_usd_per_hour=2.0,
    )
    assert undercut(problem, dear, np.array([1, 0])).cost_usd_per_hour == 0.0


def test_a_price_below_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="not negative"):
        problem_of([[1.0]], [-0.1])


def test_rounding_in_a_bound_near_nothing_is_no_proof_of_a_cost() -> None:
    # Costs are whole steps: a bound of a hair above 0 must not be taken up to the first of them.
    problem = owning(problem_of([[2.5, 0.4]], [1.0, 8.0]), {0: 5})
    search = _Search(problem, 0.0, None, prove_again=False)
    assert search.step == 8_000_000
    assert search._safe(1e-9) <= 0
    assert search._safe(1e-3) == 8.0
