from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from melange.solver.checker import violations
from melange.solver.problem import GroupLimit, Problem, Solution, Status

PROBLEM = Problem(
    buckets=("small", "large"),
    configs=("A", "M/tp1", "M/tp2"),
    instances=("A", "M"),
    load=np.array([[0.8, 0.4, np.inf], [np.inf, 1.2, 0.5]]),
    config_instance=np.array([0, 1, 1]),
    gpus_per_replica=np.array([1, 1, 2]),
    gpus_per_instance=np.array([1, 4]),
    price_usd_per_hour=np.array([1.0, 5.0]),
    limits=(GroupLimit(name="M", weights={"M": 4}, minimum=4, maximum=8),),
    max_cost_usd_per_hour=12.0,
)
PLAN = Solution(
    status=Status.OPTIMAL,
    shares=np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]]),
    replicas=np.array([1, 2, 1]),
    instances=np.array([1, 1]),
    cost_usd_per_hour=6.0,
    bound_usd_per_hour=6.0,
    gap=0.0,
)


def test_a_sound_plan_has_no_violations() -> None:
    assert violations(PROBLEM, PLAN) == []


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"shares": np.array([[0.9, 0.0, 0.0], [0.0, 0.5, 0.5]])}, "shares of bucket small sum to 0.9"),
        ({"shares": np.array([[1.1, -0.1, 0.0], [0.0, 0.5, 0.5]])}, "bucket small sends a share of"),
        ({"shares": np.array([[0.5, 0.0, 0.5], [0.0, 0.5, 0.5]])}, "to M/tp2, which may not serve it"),
        ({"shares": np.zeros((3, 2))}, "shares have shape"),
        ({"replicas": np.array([0, 2, 1])}, "A carries a load of 0.8 on 0 replicas"),
        ({"replicas": np.array([0, 2, 1])}, "A is sent requests but has no replica"),
        ({"replicas": np.array([1, 3, 1])}, "replicas on M use 5 GPUs, 1 instances have 4"),
        ({"replicas": np.array([1, 2])}, "replicas have shape"),
        ({"instances": np.array([1, 3]), "cost_usd_per_hour": 16.0}, "limit M: 12 is above the maximum 8"),
        ({"instances": np.array([1, 0]), "cost_usd_per_hour": 1.0}, "limit M: 0 is below the minimum 4"),
        ({"instances": np.array([8, 1]), "cost_usd_per_hour": 13.0}, "above the maximum 12"),
        ({"instances": np.array([1])}, "instances have shape"),
        ({"cost_usd_per_hour": 5.0}, "instances cost 6.0 USD/h, the solution says 5.0"),
        ({"bound_usd_per_hour": 6.5}, "bound 6.5 USD/h is above the cost"),
        ({"gap": 0.2}, "gap 0.2 is not that of"),
        ({"bound_usd_per_hour": None}, "without its bound and gap"),
        ({"shares": None}, "comes without a whole plan"),
        ({"status": Status.INFEASIBLE}, "status infeasible comes with a plan"),
    ],
)
def test_each_broken_promise_is_named(change: dict[str, Any], complaint: str) -> None:
    found = violations(PROBLEM, replace(PLAN, **change))
    assert any(complaint in text for text in found), found


def test_shares_must_be_whole_slices_where_the_problem_has_them() -> None:
    assert violations(replace(PROBLEM, slice_factor=2), PLAN) == []
    assert any("1.5 slices" in text for text in violations(replace(PROBLEM, slice_factor=3), PLAN))


def test_no_plan_breaks_nothing() -> None:
    assert violations(PROBLEM, Solution(status=Status.INFEASIBLE)) == []
    assert violations(PROBLEM, Solution(status=Status.UNKNOWN, bound_usd_per_hour=1.0)) == []
