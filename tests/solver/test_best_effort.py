"""Best effort under limits, against brute force."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from brute_force import cheapest, problems
from hypothesis import HealthCheck, given, settings
from solver.builders import problem_of

from melange.solver.best_effort import LEAST, RESOLUTION, best_effort
from melange.solver.checker import violations
from melange.solver.problem import GroupLimit


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(problem=problems())
def test_what_is_carried_is_the_most_that_the_limits_allow(problem):
    found = best_effort(problem)
    if found is None:
        assert cheapest(problem.scaled(LEAST)) is None
        return
    assert violations(problem.scaled(found.share), found.solution) == []
    assert found.share > 1 - RESOLUTION or cheapest(problem.scaled(found.share + 1.5 * RESOLUTION)) is None


def test_a_cap_a_budget_and_both():
    problem = problem_of([[4.0, 2.0]], [1.0, 3.0])
    one = GroupLimit(name="few", weights={"A": 1}, maximum=1)
    none = GroupLimit(name="none", weights={"B": 1}, maximum=0)
    capped = replace(problem, limits=(one, none))
    assert best_effort(capped).share == pytest.approx(0.25, abs=RESOLUTION)
    assert best_effort(replace(problem, max_cost_usd_per_hour=2.0)).share == pytest.approx(0.5, abs=RESOLUTION)
    both = replace(problem, limits=(one,), max_cost_usd_per_hour=3.5)
    assert best_effort(both).share == pytest.approx(0.5, abs=RESOLUTION)
    np.testing.assert_array_equal(best_effort(both).solution.instances, [0, 1])


def test_nothing_is_carried_where_a_bucket_is_served_by_none_or_limits_exclude_one_another():
    assert best_effort(problem_of([[1.0], [math.inf]], [1.0])) is None
    floor = GroupLimit(name="many", weights={"A": 1}, minimum=4)
    assert best_effort(replace(problem_of([[1.0]], [1.0]), limits=(floor,), max_cost_usd_per_hour=2.0)) is None
