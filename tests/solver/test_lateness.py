"""Late by design: an honest row of the program, against brute force, another formulation, and its own mutants."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from benchmarks.instances import random_problem, with_lateness
from brute_force import cheapest, problems
from hypothesis import HealthCheck, given, settings
from solver.agreement import as_milp
from solver.builders import problem_of

from melange.errors import InputError
from melange.solver import allocation, formulation
from melange.solver.checker import violations
from melange.solver.explain import infeasibility_reasons
from melange.solver.fleet import one_config_fleet
from melange.solver.problem import GroupLimit, Lateness, Problem, Solution, Status
from melange.solver.search import relaxation_bound, solve
from melange.solver.slack import Arrangement, arrangement, most_slack

INF = math.inf
PROPERTY = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def two_types(at_most: float = 0.05, **changes: Any) -> Problem:
    """A is cheap and serves the second bucket, 4% of the requests, late only; B serves both in time, dearly."""
    late = Lateness(
        load=np.array([[0.8, 0.8], [0.1, 0.1]]), weight=np.array([[0.96, 0.96], [0.04, 0.04]]), at_most=at_most
    )
    return problem_of([[0.9, 0.9], [INF, 0.2]], [1.0, 5.0], lateness=late, **changes)


def assert_matches(problem: Problem) -> None:
    solution = solve(problem, gap=0.0)
    assert violations(problem, solution) == []
    oracle = cheapest(problem)
    if oracle is None:
        assert solution.status == Status.INFEASIBLE
        return
    assert solution.status == Status.OPTIMAL
    assert solution.cost_usd_per_hour == pytest.approx(oracle[0], abs=1e-6)
    assert solution.bound_usd_per_hour <= oracle[0] + 1e-6
    assert relaxation_bound(problem) <= oracle[0] + 1e-6


@PROPERTY
@given(problem=problems(late=True))
def test_the_cost_is_that_of_brute_force(problem: Problem) -> None:
    assert_matches(problem)


@PROPERTY
@given(problem=problems(late=True, slices=True))
def test_slices_are_late_as_a_whole_and_cost_what_brute_force_says(problem: Problem) -> None:
    assert_matches(problem)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems(late=True, periods=True))
def test_each_period_has_its_own_allowance(problem: Problem) -> None:
    assert_matches(problem)


@PROPERTY
@given(problem=problems(late=True))
def test_more_lateness_is_never_dearer_and_none_is_the_plain_program(problem: Problem) -> None:
    late = problem.lateness
    costs = [
        solve(each).cost_usd_per_hour or INF
        for each in (
            replace(problem, lateness=replace(late, at_most=min(1.0, late.at_most + 0.1))),
            problem,
            replace(problem, lateness=None),
        )
    ]
    assert costs == sorted(costs) or costs == pytest.approx(sorted(costs), rel=1e-6)


@pytest.mark.parametrize("first", [300, 700])
def test_another_formulation_agrees(first: int) -> None:
    for seed in range(first, first + 40):
        problem = with_lateness(random_problem(seed), seed)
        as_milp(problem, seed)


def test_what_is_late_is_served_and_loads_a_machine() -> None:
    solution = solve(two_types())
    assert (solution.status, solution.instances.tolist(), solution.cost_usd_per_hour) == ("optimal", [1, 0], 1.0)
    assert solution.shares.tolist() == [[1, 0], [0, 0]]
    assert solution.late_shares.tolist() == [[0, 0], [1, 0]]
    # 0.9 + 0.1 fill the one A; a hair more load takes another machine.
    late = two_types().lateness
    heavier = replace(late, load=np.array([[0.9, 0.9], [0.11, 0.11]]))
    assert solve(replace(two_types(), lateness=heavier)).instances.tolist() == [2, 0]


def test_no_more_is_late_than_may_be_and_than_must_be() -> None:
    assert solve(two_types(at_most=0.039)).instances.tolist() == [1, 1]
    # In time on A takes 0.9 + 0.9; 5% of the requests, late, do not bring that down to one machine.
    both = problem_of(
        [[0.9], [0.9]], [1.0], lateness=Lateness(load=[[0.5], [0.5]], weight=[[0.5], [0.5]], at_most=0.05)
    )
    solution = solve(both)
    assert solution.instances.tolist() == [2]
    assert solution.late_shares.sum() == 0.0
    # Of what may be late no more is than one machine needs: 0.9 (1 - z) + 0.5 z + 0.2 = 1.
    needed = problem_of(
        [[0.9], [0.2]], [1.0], lateness=Lateness(load=[[0.5], [0.2]], weight=[[0.9], [0.1]], at_most=0.5)
    )
    solution = solve(needed)
    assert solution.instances.tolist() == [1]
    assert solution.late_shares.ravel() == pytest.approx([0.25, 0.0], abs=1e-6)


def test_one_row_is_over_all_buckets() -> None:
    # Each of two buckets may be late alone, not both: the row adds them up.
    late = Lateness(load=[[0.1, INF], [0.1, INF]], weight=[[0.03, 0.03], [0.03, 0.03]], at_most=0.05)
    problem = problem_of([[INF, 0.9], [INF, 0.9]], [1.0, 5.0], lateness=late)
    solution = solve(problem)
    assert violations(problem, solution) == []
    assert solution.cost_usd_per_hour == pytest.approx(6.0)
    assert float((solution.late_shares * late.weight).sum()) <= 0.05 + 1e-9


def test_an_allowance_is_of_each_period() -> None:
    # The same requests twice: what may be late of one period is not used up by the other.
    once = two_types()
    late = Lateness(
        load=np.vstack([once.lateness.load] * 2), weight=np.vstack([once.lateness.weight] * 2), at_most=0.05
    )
    twice = replace(
        once,
        buckets=("b0", "b1", "c0", "c1"),
        load=np.vstack([once.load] * 2),
        period=np.array([0, 0, 1, 1]),
        lateness=late,
    )
    solution = solve(twice)
    assert violations(twice, solution) == []
    assert solution.instances.tolist() == [1, 0]
    assert solution.late_shares[:, 0].tolist() == [0, 1, 0, 1]
    # In the second period a tenth of the requests is of the large size: too many.
    worse = replace(late, weight=np.vstack([once.lateness.weight, [[0.9, 0.9], [0.1, 0.1]]]))
    assert solve(replace(twice, lateness=worse)).instances.tolist() != [1, 0]
    found = violations(replace(twice, lateness=worse), solution)
    assert any("0.1 of the requests are late by design, at most 0.05 may be in period 1" in text for text in found)


def test_a_program_without_the_row_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formulation, "_add_lateness", lambda model, problem: None)
    problem = two_types(at_most=0.01)
    outcome = formulation.run(problem, {"mip_rel_gap": 0.0})
    assert outcome.bound_usd_per_hour == pytest.approx(1.0)
    # Its fleet does not hold, so that no plan comes of it.
    assert solve(problem).instances.tolist() != [1, 0]


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"late_shares": np.array([[0.5, 0.0], [1.0, 0.0]])}, "shares of bucket b0 sum to 1.5"),
        ({"late_shares": np.array([[0.0, 0.0], [0.5, 0.5]])}, "B is sent requests but has no replica"),
        ({"late_shares": None}, "late shares are missing"),
        ({"late_shares": np.zeros((1, 2))}, "late shares have shape"),
    ],
)
def test_the_checker_names_what_is_wrong(change: dict[str, Any], complaint: str) -> None:
    problem = two_types()
    sound = solve(problem)
    assert violations(problem, sound) == []
    found = violations(problem, replace(sound, **change))
    assert any(complaint in text for text in found), found


def test_the_checker_adds_up_what_is_late_and_its_load() -> None:
    problem, sound = two_types(), solve(two_types())
    tighter = replace(problem, lateness=replace(problem.lateness, at_most=0.02))
    assert any("0.04 of the requests are late by design, at most 0.02" in text for text in violations(tighter, sound))
    heavier = replace(problem, lateness=replace(problem.lateness, load=np.full((2, 2), 0.7)))
    assert any("A carries a load of 1.6 on 1 replicas" in text for text in violations(heavier, sound))
    unable = replace(problem, lateness=replace(problem.lateness, load=np.full((2, 2), INF)))
    assert any("to A, which may not serve it" in text for text in violations(unable, sound))
    plain = replace(problem, lateness=None)
    assert any("late shares come without lateness" in text for text in violations(plain, sound))
    halves = replace(sound, late_shares=np.array([[0, 0], [0.5, 0]]), shares=np.array([[1.0, 0], [0, 0.5]]))
    assert any("0.5 slices" in text for text in violations(replace(problem, slice_factor=1), halves))


def test_what_is_late_at_no_less_load_is_no_way_of_its_own() -> None:
    late = Lateness(load=[[0.9, 0.5]], weight=[[1.0, 1.0]], at_most=0.1)
    problem = problem_of([[0.9, 0.6]], [1.0, 1.0], lateness=late)
    assert problem.way_load.tolist() == [[0.9, 0.6, INF, 0.5]]
    assert set(formulation.build(problem).program.variablesDict()) == {"x_0_0", "x_0_1", "z_0_1", "n_0", "n_1"}
    assert np.isinf(replace(problem, lateness=replace(late, at_most=0.0)).way_load[:, 2:]).all()


def test_ways_and_instances_can_be_left_out() -> None:
    problem = two_types()
    assert problem.only_instances({"B"}).lateness.load.tolist() == [[0.8], [0.1]]
    kept = problem.only_ways(np.array([[True, False, True, False], [False, True, False, True]]))
    assert kept.way_load.tolist() == [[0.9, INF, 0.8, INF], [INF, 0.2, INF, 0.1]]
    assert problem.scaled(2.0).way_load == pytest.approx(2 * problem.way_load)


def test_what_must_be_late_is_too_much_or_not() -> None:
    problem = two_types(limits=(GroupLimit(name="B", weights={"B": 1}, maximum=0),))
    assert problem.must_be_late == 0.0
    alone = problem.only_instances({"A"})
    assert alone.must_be_late == pytest.approx(0.04)
    tight = replace(alone, lateness=replace(alone.lateness, at_most=0.03))
    assert relaxation_bound(tight) == INF
    assert solve(tight).status == "infeasible"
    (reason,) = infeasibility_reasons(tight)
    assert "no config can serve 1 of 2 buckets: b1 in time: 4% of the requests, where at most 3%" in reason
    unable = replace(alone, lateness=replace(alone.lateness, load=np.full((2, 1), INF)))
    assert unable.must_be_late == INF
    assert infeasibility_reasons(unable) == ("no config can serve 1 of 2 buckets: b1",)


def test_the_closed_bound_is_that_of_the_linear_program() -> None:
    # All on A at $1 a replica: 2 in time, of which a tenth of the requests may be late at half the load.
    late = Lateness(load=[[1.0]], weight=[[1.0]], at_most=0.1)
    problem = problem_of([[2.0]], [1.0], lateness=late)
    assert relaxation_bound(problem) == pytest.approx(1.9, abs=1e-6)
    assert relaxation_bound(problem) <= 1.9
    assert relaxation_bound(replace(problem, lateness=replace(late, at_most=1.0))) == pytest.approx(1.0)


def test_one_config_serves_late_what_it_must() -> None:
    fleet = one_config_fleet(two_types(), 9.0)
    assert (fleet.cost, fleet.shares.tolist()) == (1.0, [[1, 0, 0, 0], [0, 0, 1, 0]])
    assert one_config_fleet(two_types(at_most=0.03), 99.0).instances.tolist() == [0, 2]


def test_even_shares_have_the_fewest_late_then_the_least_utilisation() -> None:
    problem = two_types()
    ways = allocation.even_shares(problem, np.array([2, 0]))
    assert allocation.late_share(problem, ways) == pytest.approx(0.04)
    assert allocation.loads(problem, ways) == pytest.approx([1.0, 0.0])
    both = allocation.even_shares(problem, np.array([1, 1]))
    assert allocation.late_share(problem, both) == 0.0
    # 0.9 x on A, 0.9 (1 - x) + 0.2 on B.
    assert allocation.loads(problem, both) == pytest.approx([0.55, 0.55])
    assert allocation.even_shares(two_types(at_most=0.03), np.array([2, 0])) is None


def test_given_machines_take_the_fewest_late_then_the_most_slack() -> None:
    found = most_slack(two_types(), np.array([2, 0]))
    assert found.late_shares.tolist() == [[0, 0], [1, 0]]
    assert found.highest == pytest.approx(0.5)
    found = most_slack(two_types(), np.array([1, 1]))
    assert found.late_shares.sum() == 0
    assert found.highest == pytest.approx(0.55)
    assert most_slack(two_types(at_most=0.03), np.array([2, 0])) is None


@pytest.mark.parametrize(("tp1_late", "expected"), [(0.5, [0, 1]), (0.1, [2, 0])])
def test_replicas_of_given_machines_are_chosen_for_the_fewest_late(tp1_late: float, expected: list[int]) -> None:
    # TP 2 serves all in time and fills up at 1.1 in the second case; TP 1 serves the second bucket late.
    load = [[0.5, 0.5], [INF, 0.3 if tp1_late == 0.5 else 0.6]]
    late = Lateness(load=[[0.5, 0.5], [tp1_late, 0.6]], weight=[[0.9, 0.9], [0.1, 0.1]], at_most=0.2)
    problem = Problem(
        buckets=("small", "large"),
        configs=("tp1", "tp2"),
        instances=("M",),
        load=np.array(load),
        config_instance=np.array([0, 0]),
        gpus_per_replica=np.array([1, 2]),
        gpus_per_instance=np.array([2]),
        price_usd_per_hour=np.array([1.0]),
        lateness=late,
    )
    found = most_slack(problem, np.array([1]))
    assert found.replicas.tolist() == expected
    assert found.carries


@pytest.mark.parametrize("seed", range(8))
def test_no_replicas_have_fewer_late_or_of_those_more_slack(seed: int) -> None:
    draw = np.random.default_rng(seed)
    base = draw.uniform(0.3, 1.6, (3, 1)) / np.array([[1.0, 2.2, 3.9]])
    load = np.where(draw.random((3, 3)) < 0.25, INF, base * draw.uniform(0.8, 1.2, (3, 3)))
    late = Lateness(load=base * 0.6, weight=np.repeat([[0.9], [0.07], [0.03]], 3, axis=1), at_most=0.1)
    problem = Problem(
        buckets=("a", "b", "c"),
        configs=("tp1", "tp2", "tp4"),
        instances=("M",),
        load=load,
        config_instance=np.array([0, 0, 0]),
        gpus_per_replica=np.array([1, 2, 4]),
        gpus_per_instance=np.array([4]),
        price_usd_per_hour=np.array([1.0]),
        lateness=late,
    )
    cuts = [np.array(r) for r in np.ndindex(5, 3, 2) if 0 < np.dot(r, (1, 2, 4)) <= 4]
    tried = [found for cut in cuts if (found := arrangement(problem, cut)) is not None]

    def rank(found: Arrangement) -> tuple[bool, float, float]:
        missed = float((found.late_shares * late.weight).sum()) if found.carries else 0.0
        return not found.carries, round(missed, 6), found.highest

    best, ours = min(map(rank, tried), default=None), most_slack(problem, np.array([1]))
    assert (ours is None) == (best is None)
    if ours is not None:
        assert rank(ours) == pytest.approx(best, abs=1e-5)


@pytest.mark.parametrize(
    "values",
    [
        {"load": [[-1.0]], "weight": [[0.5]], "at_most": 0.1},
        {"load": [[math.nan]], "weight": [[0.5]], "at_most": 0.1},
        {"load": [[1.0]], "weight": [[1.5]], "at_most": 0.1},
        {"load": [[1.0]], "weight": [[math.nan]], "at_most": 0.1},
        {"load": [[1.0]], "weight": [[0.5]], "at_most": 1.1},
    ],
)
def test_senseless_lateness_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="lateness"):
        Lateness(**values)
    with pytest.raises(InputError, match="lateness load has shape"):
        problem_of([[1.0]], [1.0], lateness=Lateness(load=[[1.0, 1.0]], weight=[[0.5, 0.5]], at_most=0.1))


def test_a_solution_without_lateness_has_no_late_shares() -> None:
    assert solve(problem_of([[0.5]], [1.0])).late_shares is None
    assert Solution(status=Status.INFEASIBLE).late_shares is None
