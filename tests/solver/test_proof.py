"""Is "proven cheapest" true? Problems that HiGHS got wrong, another formulation's answers, and a HiGHS that lies."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from benchmarks.instances import random_problem
from benchmarks.oracles import cheaper_fleet, milp_fleet, overload
from brute_force import cheapest, problems
from hypothesis import HealthCheck, given, settings
from solver.agreement import as_milp

from melange.catalog.offers import PriceChoice
from melange.planning.planner import plan_fleet, prepare
from melange.planning.workload_file import load_workload
from melange.solver import formulation
from melange.solver.checker import violations
from melange.solver.formulation import ProgramResult
from melange.solver.problem import GroupLimit, Problem, Solution, Status
from melange.solver.search import solve, undercut

INF = math.inf
HONEST = formulation.run


def problem_of(load: list[list[float]], prices: list[float], **changes: Any) -> Problem:
    """Single-GPU types A, B, ... at these prices."""
    names = tuple("ABCDEFGH"[: len(prices)])
    values = {
        "buckets": tuple(f"b{b}" for b in range(len(load))),
        "configs": names,
        "instances": names,
        "load": np.array(load),
        "config_instance": np.arange(len(prices)),
        "gpus_per_replica": np.ones(len(prices), dtype=int),
        "gpus_per_instance": np.ones(len(prices), dtype=int),
        "price_usd_per_hour": np.array(prices),
    }
    return Problem(**{**values, **changes})


def three_buckets() -> Problem:
    """The reproducer of an issue: 29.88 was "proven" with a feasibility tolerance of 1e-9, the optimum is 28.40."""
    return problem_of([[0.29, 1.3, 1.5, 1.6], [INF, 3.3, 8.4, 9.8], [3.5, 20.0, 18.0, INF]], [5.0, 4.0, 2.29, 0.84])


def caps_and_machines() -> Problem:
    """One of 8,000 random problems: 993.85 was "proven", the optimum is 990.47."""
    return problem_of(
        [
            [INF, 119.93496012010768, INF, 83.99706729153662, 78.73910453441187, 60.90153590923159, INF],
            [
                2.00082683293558,
                0.7946814076750602,
                INF,
                1.4689526835865427,
                6.801592946444226,
                4.090211917126888,
                2.7755597860380767,
            ],
            [
                INF,
                INF,
                1.1335002330785227,
                15.057131470435301,
                2.8395715143023943,
                6.224829836584028,
                2.7631504224375725,
            ],
            [
                2.0253661779654655,
                1.3373330017053005,
                INF,
                3.5102649321281105,
                0.730513820665378,
                INF,
                2.8567783232979305,
            ],
        ],
        [1.3, 3.38, 0.9, 31.44, 28.67, 1.75],
        configs=tuple(f"c{c}" for c in range(7)),
        config_instance=np.array([0, 1, 2, 3, 4, 4, 5]),
        gpus_per_replica=np.array([1, 2, 1, 1, 1, 2, 2]),
        gpus_per_instance=np.array([4, 2, 1, 2, 4, 4]),
        limits=tuple(
            GroupLimit(name=key, weights={key: 1}, minimum=low, maximum=top)
            for key, low, top in (("B", 2, 10), ("C", 0, 0), ("E", 0, 7), ("F", 0, 5))
        ),
    )


@pytest.mark.parametrize(("problem", "usd_per_hour"), [(three_buckets(), 28.40), (caps_and_machines(), 990.47)])
def test_what_highs_once_got_wrong_is_right(problem: Problem, usd_per_hour: float) -> None:
    solution = solve(problem)
    assert solution.status == "optimal"
    assert solution.cost_usd_per_hour == pytest.approx(usd_per_hour, abs=1e-9)
    assert solution.bound_usd_per_hour <= usd_per_hour + 1e-9
    assert violations(problem, solution) == []


@pytest.mark.parametrize("file", ["workload.yaml", "azure-code-22.yaml", "mooncake"])
def test_the_reported_workloads_are_answered_right(shared: Path, file: str) -> None:
    if file == "mooncake":
        spec = load_workload("mooncake-conversation")
        spec = spec.with_rate(89.555).with_prices(PriceChoice(price_set="2026-11", spot=True))
        spec = spec.with_serving(precisions=("bf16", "fp8"))
    else:
        spec = load_workload(shared / "cases/false-optimum" / file)
    plan, opinion = plan_fleet(spec), milp_fleet(prepare(spec).problem)
    assert opinion is not None
    assert opinion.cost is not None
    assert plan.status == "optimal"
    assert plan.cost_usd_per_hour == pytest.approx(opinion.cost, rel=1e-6)
    assert plan.bound_usd_per_hour <= opinion.cost * (1 + 1e-9)
    if file == "workload.yaml":
        assert plan.cost_usd_per_hour == pytest.approx(28.40, abs=1e-9)
    assert min(b.savings for b in plan.baselines.values() if b.savings is not None) >= 0


# Among them one that HiGHS got wrong with a tolerance of 1e-9.
@pytest.mark.parametrize("first", [12_100, 40_000])
def test_another_formulation_agrees(first: int) -> None:
    for seed in range(first, first + 50):
        problem = random_problem(seed)
        as_milp(problem, seed)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_the_oracles_agree_with_brute_force(problem: Problem) -> None:
    truth, milp = cheapest(problem), milp_fleet(problem)
    assert milp is not None
    if truth is None:
        assert milp.cost is None
        return
    assert milp.cost == pytest.approx(truth[0], abs=1e-6)
    assert overload(problem, milp.replicas) is not True
    assert cheaper_fleet(problem, truth[0] - 1e-4).cost is None
    assert cheaper_fleet(problem, truth[0] + 1e-4).cost == pytest.approx(truth[0], abs=1e-6)


def test_exact_arithmetic_tells_full_from_too_full() -> None:
    full = problem_of([[0.1]] * 10, [1.0])
    assert overload(full, np.array([1])) is False
    assert overload(problem_of([[0.1]] * 10 + [[1e-8]], [1.0]), np.array([1])) is True


# Two buckets on A (1 USD/h each, three needed) or B (5 USD/h): the optimum is 3 x A, on which all else is measured.
PLAIN = problem_of([[1.4, 0.5], [1.5, 0.4]], [1.0, 5.0])
CHEAPEST, DEAR = 3.0, 5.0


def lying(calls: list[dict[str, Any]], believed: Callable[[int], bool]) -> Callable[..., ProgramResult]:
    """``formulation.run`` that says the fleet of one B is optimal, but for the calls that are ``believed`` not to."""

    def run(problem: Problem, options: Any, **bounds: Any) -> ProgramResult:
        calls.append(dict(options))
        if believed(len(calls)):
            return HONEST(problem, options, **bounds)
        if bounds.get("at_most_usd_per_hour") is not None:
            return ProgramResult(infeasible=True, bound_usd_per_hour=INF)
        return ProgramResult(
            infeasible=False,
            bound_usd_per_hour=DEAR,
            shares=np.array([[0.0, 1.0]] * len(problem.buckets)),
            instances=np.array([0, 1]),
        )

    return run


def test_a_fleet_of_one_config_voids_a_false_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(formulation, "run", lying(calls, lambda _: False))
    solution = solve(PLAIN)
    assert (solution.status, solution.cost_usd_per_hour) == ("feasible", CHEAPEST)
    # What is left is the bound that needs no trust: 2.9 replicas of A.
    assert solution.bound_usd_per_hour == pytest.approx(2.9)
    calls.clear()
    monkeypatch.setattr(formulation, "run", lying(calls, lambda call: call > 1))
    solution = solve(PLAIN)
    assert (solution.status, solution.cost_usd_per_hour) == ("optimal", CHEAPEST)
    # The false proof, and two that agree, each under settings of its own.
    assert len({tuple(sorted(options.items())) for options in calls}) == 3


def test_other_settings_void_a_false_proof(monkeypatch: pytest.MonkeyPatch) -> None:
    # No config serves both buckets alone, so that only asking again can find 2 x A and 1 x C.
    problem = problem_of([[1.4, 0.5, INF], [INF, 0.4, 0.5]], [1.0, 5.0, 1.0])
    calls: list[dict[str, Any]] = []

    def run(asked: Problem, options: Any, **bounds: Any) -> ProgramResult:
        calls.append(dict(options))
        if len(calls) > 1:
            return HONEST(asked, options, **bounds)
        shares = np.array([[0.0, 1.0, 0.0]] * 2)
        return ProgramResult(infeasible=False, bound_usd_per_hour=DEAR, shares=shares, instances=np.array([0, 1, 0]))

    monkeypatch.setattr(formulation, "run", run)
    solution = solve(problem)
    assert (solution.status, solution.cost_usd_per_hour) == ("optimal", 3.0)


def test_a_false_infeasible_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def run(asked: Problem, options: Any, **bounds: Any) -> ProgramResult:
        calls.append(1)
        lie = ProgramResult(infeasible=True, bound_usd_per_hour=INF)
        return lie if len(calls) == 1 else HONEST(asked, options, **bounds)

    monkeypatch.setattr(formulation, "run", run)
    solution = solve(problem_of([[1.4, INF], [INF, 1.4]], [1.0, 1.0]))
    assert (solution.status, solution.cost_usd_per_hour) == ("optimal", 4.0)


def test_replicas_that_hold_for_less_undercut_a_solution() -> None:
    dear = Solution(status=Status.OPTIMAL, cost_usd_per_hour=DEAR, bound_usd_per_hour=DEAR, gap=0.0)
    found = undercut(PLAIN, dear, np.array([3, 0]))
    assert (found.status, found.cost_usd_per_hour) == ("optimal", CHEAPEST)
    assert violations(PLAIN, found) == []
    # Dearer, or against a cap: nothing is shown.
    assert undercut(PLAIN, found, np.array([0, 1])) is found
    capped = problem_of(
        [[1.4, 0.5], [1.5, 0.4]], [1.0, 5.0], limits=(GroupLimit(name="A", weights={"A": 1}, maximum=2),)
    )
    assert undercut(capped, dear, np.array([3, 0])) is dear


@pytest.mark.parametrize("tiny", [1e-6, 1e-8, 1e-12, 0.0])
def test_however_light_a_bucket_it_gets_a_replica_that_can_serve_it(tiny: float) -> None:
    problem = problem_of([[0.9, INF], [INF, tiny]], [1.0, 2.0])
    solution = solve(problem)
    assert (solution.status, solution.instances.tolist()) == ("optimal", [1, 1])
    # And light buckets do not add up to a load that is not there.
    many = problem_of([[1 - 1e-7]] + [[1e-12]] * 200, [1.0])
    assert solve(many).instances.tolist() == [1]
