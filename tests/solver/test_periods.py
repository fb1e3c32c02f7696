"""Periods: brute force, another formulation, what need not enter the program, and what the checker sees."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from benchmarks.instances import random_problem
from brute_force import problems
from hypothesis import HealthCheck, given, settings
from solver.agreement import as_brute_force, as_milp
from solver.builders import problem_of
from solver.test_slack import drawn, least_by_brute_force, most_slack

from melange.errors import InputError
from melange.solver import allocation
from melange.solver.checker import violations
from melange.solver.explain import explain
from melange.solver.periods import joined, solved_by_few
from melange.solver.problem import Lateness, Problem, Solution, Status
from melange.solver.search import solve

INF = math.inf


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(periods=True))
def test_brute_force_agrees_on_several_periods(problem: Problem) -> None:
    as_brute_force(problem)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(periods=True, slices=True))
def test_brute_force_agrees_on_slices_in_several_periods(problem: Problem) -> None:
    as_brute_force(problem)


def test_another_formulation_agrees_on_several_periods() -> None:
    several = 0
    for seed in range(70_000, 70_060):
        problem = random_problem(seed)
        draw = np.random.default_rng(seed)
        period = draw.integers(0, 4, len(problem.buckets))
        problem = replace(problem, period=np.unique(period, return_inverse=True)[1])
        ours = as_milp(problem, seed)
        several += ours.cost_usd_per_hour is not None and len(ours.binding) > 1
    assert several > 5


def test_machines_are_common_and_shares_are_free() -> None:
    # Together 2 machines of A, in two periods the same one twice.
    load = [[0.9], [0.8]]
    assert solve(problem_of(load, [1.0])).instances.tolist() == [2]
    assert solve(problem_of(load, [1.0], period=np.array([0, 1]))).instances.tolist() == [1]
    # One period fills A and half of B, the other B and half of A: the same bucket goes elsewhere in each.
    load = [[1.0, INF], [INF, 0.5], [0.4, 0.4], [0.5, INF], [INF, 1.0], [0.4, 0.4]]
    solution = solve(problem_of(load, [1.0, 1.0], period=np.array([0, 0, 0, 1, 1, 1])))
    assert solution.instances.tolist() == [1, 1]
    assert solution.shares[2].tolist() == [0.0, 1.0]
    assert solution.shares[5].tolist() == [1.0, 0.0]


def test_what_other_periods_cover_never_enters_the_program() -> None:
    heavy, light = [[2.5, 3.0], [1.0, 2.0]], [[0.5, 1.0], [1.0, 1.0]]
    mixture = (0.5 * (np.array(heavy) + np.array(light))).tolist()
    period = np.array([0, 0, 1, 1, 2, 2])
    solution = solve(problem_of([*light, *heavy, *mixture], [1.0, 1.5], period=period))
    assert solution.binding == (1,)
    assert solution.status == "optimal"
    # Opposite ones both do.
    opposite = problem_of([[2.0, INF], [INF, 0.1], [0.1, INF], [INF, 2.0]], [1.0, 1.0], period=np.array([0, 0, 1, 1]))
    solution = solve(opposite)
    assert (solution.binding, solution.instances.tolist()) == ((0, 1), [2, 2])


@pytest.mark.parametrize("seed", range(12_100, 12_112))
def test_one_period_is_the_plain_problem_to_the_last_bit(seed: int) -> None:
    plain = random_problem(seed)
    ours, theirs = solve(plain), solve(replace(plain, period=np.zeros(len(plain.buckets), dtype=int)))
    for name in ("status", "cost_usd_per_hour", "bound_usd_per_hour", "gap", "binding"):
        assert getattr(ours, name) == getattr(theirs, name), name
    for name in ("shares", "replicas", "instances"):
        assert np.array_equal(getattr(ours, name), getattr(theirs, name)), name


def test_every_period_has_even_shares_of_its_own() -> None:
    problem = problem_of([[1.0, 1.0], [0.2, 0.2]], [1.0, 1.0], period=np.array([0, 1]))
    shares = allocation.even_shares(problem, np.array([1, 1]))
    assert shares == pytest.approx(np.full((2, 2), 0.5))


def test_the_checker_sees_an_overload_in_one_period_alone() -> None:
    problem = problem_of([[0.9], [1.1]], [1.0], period=np.array([0, 1]))
    wrong = Solution(
        status=Status.OPTIMAL, shares=np.ones((2, 1)), replicas=np.array([1]), instances=np.array([1]),
        cost_usd_per_hour=1.0, bound_usd_per_hour=1.0, gap=0.0,
    )  # fmt: skip
    assert violations(problem, wrong) == ["A carries a load of 1.1 on 1 replicas in period 1"]
    # The sum of both is none of its business.
    assert violations(replace(problem, load=np.array([[0.9], [0.8]])), wrong) == []


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_replicas_have_the_most_slack_over_all_periods(seed: int) -> None:
    problem, instances = drawn(seed)
    n_b = len(problem.buckets)
    twice = replace(
        problem,
        buckets=tuple(f"b{b}" for b in range(2 * n_b)),
        load=np.vstack([problem.load, problem.load[::-1] * 0.8]),
        period=np.repeat([0, 1], n_b),
    )
    found, best = most_slack(twice, instances), least_by_brute_force(twice, instances)
    assert (found is None) == (best == INF)
    if found is not None:
        assert found.highest == pytest.approx(best, rel=1e-6)


def test_slack_is_that_of_the_worst_period_not_of_their_sum() -> None:
    # Two of TP 1 are at most 80% full, one of TP 2 70%; over both periods' sum it would be 50% and 67%.
    problem = problem_of(
        [[1.6, 0.7], [0.4, 0.65]], [1.0], configs=("tp1", "tp2"), config_instance=np.array([0, 0]),
        gpus_per_replica=np.array([1, 2]), gpus_per_instance=np.array([2]), period=np.array([0, 1]),
    )  # fmt: skip
    found = most_slack(problem, np.array([1]))
    assert found is not None
    assert (found.replicas.tolist(), found.highest) == ([0, 1], pytest.approx(0.7))


def test_out_of_time_a_fleet_of_one_config_is_better_than_none() -> None:
    problem = problem_of([[1.4, 2.0], [1.5, 2.0]], [1.0, 5.0], period=np.array([0, 1]))
    out_of_time = Solution(status=Status.UNKNOWN, bound_usd_per_hour=1.5)
    found = solved_by_few(problem, 0, lambda part: out_of_time)
    assert (found.status, found.instances.tolist(), found.bound_usd_per_hour) == ("feasible", [2, 0], 1.5)
    assert violations(problem, found) == []
    nowhere = replace(problem, load=np.array([[1.4, INF], [INF, 2.0]]))
    assert solved_by_few(nowhere, 0, lambda part: out_of_time) is out_of_time


def test_an_infeasible_period_makes_the_whole_infeasible() -> None:
    problem = problem_of([[1.0], [INF]], [1.0], period=np.array([0, 1]))
    assert solve(problem).status == "infeasible"
    assert "b1" in explain(problem, solve(problem)).reasons[0]


def test_periods_are_numbered_without_a_gap() -> None:
    with pytest.raises(InputError, match="periods are not numbered"):
        problem_of([[1.0], [1.0]], [1.0], period=np.array([0, 2]))
    with pytest.raises(InputError, match="shape"):
        problem_of([[1.0], [1.0]], [1.0], period=np.array([0]))


def test_some_periods_alone() -> None:
    problem = problem_of([[1.0], [2.0], [3.0]], [1.0], period=np.array([0, 1, 2]))
    part = problem.of_periods([2, 0])
    assert (part.buckets, part.load.tolist(), part.bucket_period.tolist()) == (("b0", "b2"), [[1.0], [3.0]], [1, 0])


def test_problems_of_several_times_are_joined_without_what_nothing_comes_of() -> None:
    mean = problem_of([[1.0, 2.0], [3.0, INF]], [1.0, 1.0])
    late = Lateness(load=np.array([[0.5, 1.0], [1.0, 2.0]]), weight=np.full((2, 2), 0.5), at_most=0.2)
    mean = replace(mean, lateness=late)
    window = replace(mean, load=np.array([[0.0, 0.0], [9.0, INF]]), lateness=replace(late, load=2 * late.load))
    whole = joined([mean, window, window], ["", "at 5 s", "at 7 s"])
    assert whole.buckets == ("b0", "b1", "b1 at 5 s", "b1 at 7 s")
    assert whole.bucket_period.tolist() == [0, 0, 1, 2]
    assert whole.load.tolist() == [[1.0, 2.0], [3.0, INF], [9.0, INF], [9.0, INF]]
    assert whole.lateness is not None
    assert whole.lateness.load.tolist() == [[0.5, 1.0], [1.0, 2.0], [2.0, 4.0], [2.0, 4.0]]
    assert whole.lateness.weight.shape == (4, 2)
    assert joined([replace(mean, lateness=None)], [""]).lateness is None
