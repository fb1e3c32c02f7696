from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from melange.planning.baselines import single_type_baselines, undercut_by_baselines
from melange.solver.checker import violations
from melange.solver.problem import GroupLimit, Problem
from melange.solver.search import solve


def two_types(load, **changes):
    """Type A at 1 USD/h and B at 3, single-GPU; rows of load are buckets."""
    values = {
        "buckets": tuple(f"b{n}" for n in range(len(load))),
        "configs": ("A", "B"),
        "instances": ("A", "B"),
        "load": np.array(load, dtype=float),
        "config_instance": np.array([0, 1]),
        "gpus_per_replica": np.ones(2, dtype=int),
        "gpus_per_instance": np.ones(2, dtype=int),
        "price_usd_per_hour": np.array([1.0, 3.0]),
    }
    return Problem(**{**values, **changes})


def baselines(problem, unmeasured=None):
    unknown = np.zeros(problem.load.shape, dtype=bool) if unmeasured is None else np.array(unmeasured)
    return single_type_baselines(problem, solve(problem), {"A": {"A"}, "B": {"B"}}, unknown)


def test_each_type_alone_and_what_the_mix_saves_on_it():
    found = baselines(two_types([[2.5, 0.5], [0.4, 1.9]]))
    # By hand: A alone 2.9 -> 3 USD/h; B alone 2.4 -> 3 of them, 9 USD/h; the best is A alone.
    assert [(b.cost_usd_per_hour, dict(b.instances)) for b in found.values()] == [(3.0, {"A": 3}), (9.0, {"B": 3})]
    assert [b.savings for b in found.values()] == pytest.approx([0.0, 1 - 3 / 9])


def test_cannot_is_told_from_not_measured():
    problem = two_types([[math.inf, 0.5], [0.4, 1.9]])
    assert baselines(problem)["A"].reason == "it cannot meet the SLO for sizes b0"
    assert baselines(problem, [[True, False], [False, False]])["A"].reason == "sizes not measured on it: b0"


def test_a_types_own_caps_hold_and_other_floors_and_the_budget_do_not():
    limits = (GroupLimit(name="A", weights={"A": 1}, maximum=2), GroupLimit(name="B", weights={"B": 1}, minimum=1))
    found = baselines(two_types([[2.5, 0.5], [0.4, 1.9]], limits=limits, max_cost_usd_per_hour=6.0))
    assert found["A"].cost_usd_per_hour is None
    assert found["A"].reason == "the limits do not allow enough of it (A <= 2)"
    assert found["B"].cost_usd_per_hour == 9.0


def test_a_type_alone_that_is_cheaper_undercuts_the_solution():
    problem = two_types([[2.5, 0.5], [0.4, 1.9]])
    dear = replace(solve(problem.only_instances({"B"})), instances=np.array([0, 3]), replicas=np.array([0, 3]))
    found = undercut_by_baselines(problem, dear, baselines(problem))
    assert (found.status, found.cost_usd_per_hour, found.instances.tolist()) == ("optimal", 3.0, [3, 0])
    assert violations(problem, found) == []
    # A floor that the type alone does not keep is no contradiction.
    floor = (GroupLimit(name="B", weights={"B": 1}, minimum=1),)
    floored = two_types([[2.5, 0.5], [0.4, 1.9]], limits=floor)
    best = solve(floored)
    assert undercut_by_baselines(floored, best, baselines(floored)) is best
