"""The solver's answer held against brute force, and against another formulation."""

from __future__ import annotations

import pytest
from benchmarks.oracles import milp_fleet
from brute_force import cheapest

from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution
from melange.solver.search import default_gap, relaxation_bound, solve


def as_brute_force(problem: Problem) -> Solution:
    """The solution, of the cost that brute force finds."""
    solution, truth = solve(problem), cheapest(problem)
    assert violations(problem, solution) == []
    if truth is None:
        assert solution.status == "infeasible"
        return solution
    assert solution.status == "optimal"
    assert solution.cost_usd_per_hour == pytest.approx(truth[0], abs=1e-6)
    assert relaxation_bound(problem) <= truth[0] + 1e-9
    return solution


def as_milp(problem: Problem, seed: int) -> Solution:
    """The solution, of the cost that scipy's milp finds within the gap; ``seed`` names the problem."""
    ours, theirs = solve(problem), milp_fleet(problem)
    assert violations(problem, ours) == [], seed
    assert theirs is not None
    assert (ours.cost_usd_per_hour is None) == (theirs.cost is None), seed
    if theirs.cost is not None:
        assert ours.status == "optimal", seed
        assert ours.cost_usd_per_hour == pytest.approx(theirs.cost, rel=default_gap(problem), abs=1e-6), seed
        assert ours.bound_usd_per_hour <= theirs.cost + 1e-6, seed
    return ours
