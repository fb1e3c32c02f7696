from __future__ import annotations

import csv
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from benchmarks.instances import generate
from brute_force import cheapest, problems
from hypothesis import HealthCheck, given, settings
from solver.builders import problem_of

from melange.errors import InputError
from melange.solver.checker import violations
from melange.solver.problem import GroupLimit, Problem, Solution, Status
from melange.solver.search import default_gap, relaxation_bound, solve

PROPERTY = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


def assert_matches_brute_force(problem: Problem) -> None:
    solution = solve(problem, gap=0.0)
    assert violations(problem, solution) == []
    oracle = cheapest(problem)
    if oracle is None:
        assert solution.status == Status.INFEASIBLE
    else:
        assert solution.status == Status.OPTIMAL
        assert solution.cost_usd_per_hour == pytest.approx(oracle[0], abs=1e-6)
        assert solution.bound_usd_per_hour <= oracle[0] + 1e-6


@PROPERTY
@given(problem=problems())
def test_continuous_cost_equals_brute_force(problem: Problem) -> None:
    assert_matches_brute_force(problem)


@PROPERTY
@given(problem=problems(slices=True))
def test_slice_cost_equals_brute_force(problem: Problem) -> None:
    assert_matches_brute_force(problem)


@PROPERTY
@given(problem=problems(slices=True))
def test_continuous_shares_never_cost_more_than_slices(problem: Problem) -> None:
    sliced, free = solve(problem), solve(replace(problem, slice_factor=None))
    if sliced.cost_usd_per_hour is not None:
        assert free.cost_usd_per_hour <= sliced.cost_usd_per_hour * (1 + 1e-6)
        assert free.bound_usd_per_hour <= sliced.cost_usd_per_hour * (1 + 1e-9)


def shared_machine() -> Problem:
    """An eight-GPU machine for TP 1 and TP 4: three replicas of one and one of the other fit, and one GPU is left."""
    return problem_of(
        [[2.9, math.inf], [math.inf, 0.9]],
        [8.0],
        configs=("M/tp1", "M/tp4"),
        instances=("M",),
        config_instance=np.array([0, 0]),
        gpus_per_replica=np.array([1, 4]),
        gpus_per_instance=np.array([8]),
    )


def test_replicas_share_a_machine_and_use_every_gpu() -> None:
    solution = solve(shared_machine())
    assert solution.instances.tolist() == [1]
    assert solution.replicas.tolist() == [4, 1]


def test_exactly_full_replicas_need_no_extra_one() -> None:
    solution = solve(problem_of([[0.1]] * 10, [1.0]))
    assert solution.instances.tolist() == [1]
    assert solve(problem_of([[0.1]] * 10 + [[1e-6]], [1.0])).instances.tolist() == [2]


def test_however_little_load_takes_a_replica() -> None:
    solution = solve(problem_of([[1e-13], [1e-15]], [1.0]))
    assert solution.instances.tolist() == [1]
    assert solution.replicas.tolist() == [1]


def test_load_is_spread_evenly_over_what_is_rented() -> None:
    floor = GroupLimit(name="B", weights={"B": 1}, minimum=1)
    solution = solve(problem_of([[0.5, 0.5], [0.5, 0.5]], [1.0, 1.0], limits=(floor,)))
    assert solution.instances.tolist() == [0, 1]
    both = solve(
        problem_of(
            [[0.5, 0.5], [0.5, 0.5]],
            [1.0, 1.0],
            limits=(floor, GroupLimit(name="A", weights={"A": 1}, minimum=1)),
        )
    )
    assert (both.shares * 0.5).sum(axis=0) == pytest.approx([0.5, 0.5])


def test_limits_counted_in_gpus_bind() -> None:
    free = problem_of([[3.0, 3.0]], [1.0, 2.0])
    assert solve(free).instances.tolist() == [3, 0]
    capped = replace(free, limits=(GroupLimit(name="A", weights={"A": 2}, maximum=5),))
    assert solve(capped).instances.tolist() == [2, 1]


def test_a_cost_limit_below_the_cheapest_fleet_is_infeasible() -> None:
    problem = problem_of([[3.0]], [1.5])
    assert solve(replace(problem, max_cost_usd_per_hour=4.5)).status == Status.OPTIMAL
    solution = solve(replace(problem, max_cost_usd_per_hour=4.49))
    assert solution.status == Status.INFEASIBLE
    assert solution.cost_usd_per_hour is None


def test_a_bucket_that_nothing_serves_is_infeasible() -> None:
    assert solve(problem_of([[1.0], [math.inf]], [1.0])).status == Status.INFEASIBLE


def test_default_gap_follows_the_size() -> None:
    assert default_gap(generate(100, 8, 20, 0)) == 1e-6
    assert default_gap(generate(101, 8, 20, 0)) == 1e-3


@pytest.mark.parametrize(("gap", "limit"), [(-0.1, None), (1.0, None), (math.nan, None), (None, 0.0), (None, math.nan)])
def test_a_senseless_gap_or_time_limit_is_an_input_error(gap: float | None, limit: float | None) -> None:
    with pytest.raises(InputError):
        solve(problem_of([[1.0]], [1.0]), gap=gap, time_limit_s=limit)


@pytest.mark.parametrize("rate_rps", [20.0, 200.0, 2000.0])
def test_generated_instances_pass_the_checker_and_prove_their_gap(rate_rps: float) -> None:
    problem = generate(60, 8, rate_rps, 1)
    solution = solve(problem, gap=1e-3)
    assert violations(problem, solution) == []
    assert solution.status == Status.OPTIMAL
    assert solution.gap <= 1e-3
    # The wider proof must agree with the finer one: neither bound may lie above the other's cost.
    finer = solve(problem, gap=1e-6)
    assert solution.bound_usd_per_hour <= finer.cost_usd_per_hour <= solution.cost_usd_per_hour
    assert relaxation_bound(problem) <= finer.bound_usd_per_hour * (1 + 1e-9)


def test_the_same_problem_gives_the_same_plan() -> None:
    first, second = (solve(generate(40, 6, 50, 3)) for _ in range(2))
    assert (first.shares == second.shares).all()
    assert (first.instances == second.instances).all()
    assert first.bound_usd_per_hour == second.bound_usd_per_hour


@pytest.mark.parametrize("limit_s", [1e-6, 0.05, 0.3])
@pytest.mark.parametrize("slices", [None, 8])
def test_time_limits_end_in_an_honest_status(limit_s: float, slices: int | None) -> None:
    problem = generate(144, 16, 20, 0, slice_factor=slices)
    solution = solve(problem, gap=0.0, time_limit_s=limit_s)
    assert violations(problem, solution) == []
    truth = solve(replace(problem, slice_factor=None), gap=1e-3)
    if solution.status == Status.UNKNOWN:
        assert solution.cost_usd_per_hour is None
        assert 0 < solution.bound_usd_per_hour <= truth.cost_usd_per_hour * 1.2
    else:
        assert solution.status in (Status.FEASIBLE, Status.OPTIMAL)
        assert (solution.status == Status.OPTIMAL) == (solution.gap <= 1e-9)
        assert solution.cost_usd_per_hour >= truth.bound_usd_per_hour - 1e-9
        assert solution.bound_usd_per_hour <= solution.cost_usd_per_hour


def test_a_microsecond_is_not_enough_to_prove_anything() -> None:
    assert solve(generate(144, 16, 20, 0), gap=0.0, time_limit_s=1e-6).status in (Status.UNKNOWN, Status.FEASIBLE)


def test_solving_prints_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    solve(generate(30, 6, 20, 0, slice_factor=4))
    assert capfd.readouterr() == ("", "")


# The reference facts, from the published table and trace by a loader of the test's own.

EDGES = (25, 100, 250, 500, 1000, 2000)
PRICES = {"L4": 0.70, "A10G": 1.01, "A100": 3.67, "H100": 7.516}
SINGLE_TYPE_COUNTS = {
    "L4": [3, 5, 9, 17, 33, 66],
    "A10G": [2, 3, 5, 9, 18, 36],
    "A100": [1, 1, 2, 3, 5, 9],
    "H100": [1, 1, 1, 2, 4, 7],
}
OPTIMA_USD_PER_HOUR = [1.71, 2.72, 4.37, 8.35, 16.06, 32.12]
RATES_RPS = [1, 2, 4, 8, 16, 32]


@pytest.fixture(scope="module")
def arena(shared: Path) -> Problem:
    """The Arena trace up to 2000 x 2000 at one request per second, on the four types' published throughput."""
    with (shared / "reference/melange/throughput_llama2_7b.csv").open() as file:
        capacity = {
            (r["gpu"], int(r["input"]), int(r["output"])): float(r["max_req_per_s"]) for r in csv.DictReader(file)
        }
    counts: Counter[tuple[int, int]] = Counter()
    with (shared / "traces/arena_lmsys_conversations.csv").open() as file:
        for row in csv.DictReader(file):
            tokens = int(row["input_tokens"]), int(row["output_tokens"])
            if max(tokens) <= 2000 and min(tokens) > 0:
                counts[tuple(next(edge for edge in EDGES if t <= edge) for t in tokens)] += 1
    cells, total = sorted(counts), counts.total()
    return problem_of(
        [[counts[cell] / total / capacity[gpu, *cell] for gpu in PRICES] for cell in cells],
        list(PRICES.values()),
        configs=tuple(PRICES),
        instances=tuple(PRICES),
    )


@pytest.mark.parametrize(("position", "rate_rps"), list(enumerate(RATES_RPS)))
def test_arena_reference(arena: Problem, position: int, rate_rps: int) -> None:
    problem = replace(arena, load=arena.load * rate_rps)
    solution = solve(problem)
    assert solution.status == Status.OPTIMAL
    assert violations(problem, solution) == []
    assert round(solution.cost_usd_per_hour, 2) == OPTIMA_USD_PER_HOUR[position]
    for gpu, wanted in SINGLE_TYPE_COUNTS.items():
        alone: Solution = solve(problem.only_instances({gpu}))
        assert alone.instances.tolist() == [wanted[position]]
