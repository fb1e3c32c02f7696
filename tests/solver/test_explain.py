from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from brute_force import cheapest, minimal, problems
from hypothesis import HealthCheck, assume, given, settings

from melange.errors import InputError
from melange.files.records import from_plain, to_plain
from melange.solver.explain import explain, infeasibility_reasons
from melange.solver.explanation import Explanation
from melange.solver.problem import GroupLimit, Problem, Solution, Status
from melange.solver.search import solve

PROPERTY = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
CENT = 0.01


def two_types(*limits: GroupLimit, max_cost: float | None = None) -> Problem:
    """A costs 1 and takes 2.5 replicas, B costs 3.2 and takes 1 for the same load."""
    return Problem(
        buckets=("all",),
        configs=("A", "B"),
        instances=("A", "B"),
        load=np.array([[2.5, 1.0]]),
        config_instance=np.array([0, 1]),
        gpus_per_replica=np.array([1, 1]),
        gpus_per_instance=np.array([1, 1]),
        price_usd_per_hour=np.array([1.0, 3.2]),
        limits=limits,
        max_cost_usd_per_hour=max_cost,
    )


def cap(key: str, maximum: int | None, minimum: int = 0) -> GroupLimit:
    return GroupLimit(name=key, weights={key: 1}, minimum=minimum, maximum=maximum)


def test_value_of_one_more_and_one_fewer() -> None:
    problem = two_types(cap("A", 2), cap("B", 5))
    found = {row.name: row for row in explain(problem, solve(problem)).capped}
    # With two A there must be a B, which then serves everything: A <= 2 costs 3.2, A <= 3 three times 1.
    assert found["A"].cost_usd_per_hour == pytest.approx(3.2)
    assert found["A"].one_more_usd_per_hour == pytest.approx(3.0)
    assert found["A"].one_fewer_usd_per_hour == pytest.approx(3.2)
    assert found["B"].one_more_usd_per_hour == found["B"].one_fewer_usd_per_hour == pytest.approx(3.2)


def test_one_fewer_of_the_last_possible_is_no_fleet() -> None:
    problem = two_types(cap("A", 0), cap("B", 1))
    found = {row.name: row for row in explain(problem, solve(problem)).capped}
    assert found["B"].one_fewer_usd_per_hour is None
    assert found["A"].one_fewer_usd_per_hour is None


def test_break_even_price_of_an_unused_type() -> None:
    problem = two_types()
    (row,) = explain(problem, solve(problem)).break_even
    # One B replaces three A; beside two A it would have to cost at most 1, beside one A at most 2.
    assert row.instance == "B"
    assert row.break_even_usd_per_hour == pytest.approx(3.0, abs=1e-6)


def test_a_type_capped_at_zero_never_enters() -> None:
    problem = two_types(cap("B", 0))
    (row,) = explain(problem, solve(problem)).break_even
    assert row.break_even_usd_per_hour is None


@PROPERTY
@given(problem=problems(limits=False))
def test_break_even_separates_entering_from_not(problem: Problem) -> None:
    solution = solve(problem)
    assume(solution.instances is not None and (solution.instances == 0).any())
    for row in explain(problem, solution, gap=1e-9, fleets=0).break_even:
        i = problem.instances.index(row.instance)
        without = replace(problem, limits=(cap(row.instance, 0),))
        limit = row.break_even_usd_per_hour
        if limit is not None and limit > 2 * CENT:
            assert cheapest(priced(problem, i, limit - CENT))[0] < cheapest(without)[0] - 1e-6
        above = cheapest(priced(problem, i, (limit or 0.0) + CENT))
        assert above[0] == pytest.approx(cheapest(without)[0], abs=1e-6)


def priced(problem: Problem, i: int, price: float) -> Problem:
    prices = problem.price_usd_per_hour.copy()
    prices[i] = price
    return replace(problem, price_usd_per_hour=prices)


@PROPERTY
@given(problem=problems(limits=False))
def test_next_best_fleets_are_those_of_a_brute_force(problem: Problem) -> None:
    solution = solve(problem, gap=0.0)
    assume(solution.instances is not None)
    found = explain(problem, solution, gap=0.0, fleets=2)
    costs = [solution.cost_usd_per_hour, *(row.cost_usd_per_hour for row in found.next_best)]
    assert costs == pytest.approx(minimal(problem, 3), abs=1e-6)


def test_explanation_is_plain_data() -> None:
    problem = two_types(cap("A", 2))
    told = explain(problem, solve(problem))
    data = json.loads(json.dumps(to_plain(told)))
    assert data["capped"][0]["name"] == "A"
    assert data["next_best"] == []
    assert from_plain(Explanation, data, "explanation") == told


def test_a_plan_that_time_ran_out_on_cannot_be_explained() -> None:
    with pytest.raises(InputError):
        explain(two_types(), Solution(status=Status.UNKNOWN))


def test_buckets_that_nothing_serves_are_named() -> None:
    problem = replace(two_types(), load=np.array([[math.inf, math.inf]]))
    assert infeasibility_reasons(problem) == ("no config can serve 1 of 1 buckets: all",)
    assert explain(problem, solve(problem)).reasons == infeasibility_reasons(problem)


def test_caps_that_exclude_one_another_are_named_without_the_innocent() -> None:
    problem = two_types(cap("A", 1), cap("B", 0), GroupLimit(name="many", weights={"A": 1, "B": 1}, maximum=9))
    first, *rest = infeasibility_reasons(problem)
    assert first == "the load cannot be met under A <= 1 and B <= 0"
    assert rest == ["nearest: raise A <= 1 to 3", "nearest: raise B <= 0 to 1"]


def test_the_cost_that_is_needed_is_named() -> None:
    first, second = infeasibility_reasons(two_types(max_cost=2.0))
    assert first == "the load cannot be met under a cost of at most 2 USD/h"
    assert second == "nearest: allow 3.00 USD/h, which is what the cheapest fleet costs"


def test_a_floor_against_the_cost_limit() -> None:
    reasons = infeasibility_reasons(two_types(cap("B", None, minimum=2), max_cost=4.0))
    assert reasons[0] == "the load cannot be met under a cost of at most 4 USD/h and B >= 2"
    assert "nearest: lower B >= 2 to 1" in reasons
    assert "nearest: allow 6.40 USD/h, which is what the cheapest fleet costs" in reasons


def test_two_conflicts_need_two_changes() -> None:
    problem = replace(
        two_types(cap("A", 0), cap("B", 0)),
        buckets=("left", "right"),
        load=np.array([[2.5, math.inf], [math.inf, 1.0]]),
    )
    reasons = infeasibility_reasons(problem)
    assert "the load cannot be met under A <= 0" in reasons
    assert "the load cannot be met under B <= 0" in reasons
    assert reasons[-1] == "nearest: no single change is enough; without all of these a fleet costs 6.20 USD/h"


@PROPERTY
@given(problem=problems())
def test_reasons_are_given_exactly_when_there_is_no_fleet(problem: Problem) -> None:
    assert bool(infeasibility_reasons(problem)) == (cheapest(problem) is None)
