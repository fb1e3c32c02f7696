"""What a problem refuses, and its parts."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from solver.builders import problem_of

from melange.errors import InputError
from melange.solver.problem import GroupLimit, Solution, Status

LOAD = [[1.0, 2.0], [3.0, math.inf]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"load": np.ones((3, 2))}, r"load has shape \(3, 2\), expected \(2, 2\)"),
        ({"price_usd_per_hour": np.ones(3)}, "price_usd_per_hour has shape"),
        ({"buckets": (), "load": np.ones((0, 2))}, "nothing to serve"),
        ({"configs": ("A", "A")}, "a name occurs twice in A, A"),
        ({"load": np.array([[1.0, math.nan], [1.0, 1.0]])}, "negative or NaN"),
        ({"load": np.array([[1.0, -1.0], [1.0, 1.0]])}, "negative or NaN"),
        ({"load": np.full((2, 2), 1e9)}, "takes 2e\\+09 replicas"),
        ({"price_usd_per_hour": np.array([1.0, -0.1])}, "finite and not negative"),
        ({"price_usd_per_hour": np.array([1.0, math.inf])}, "finite and not negative"),
        ({"config_instance": np.array([0, 2])}, "an instance that is not there"),
        ({"config_instance": np.array([0, -1])}, "an instance that is not there"),
        ({"gpus_per_replica": np.array([1, 2])}, "more GPUs than its instance has"),
        ({"slice_factor": 0}, "slice factor is 0"),
        ({"max_cost_usd_per_hour": 0.0}, "maximum cost is 0"),
        ({"max_cost_usd_per_hour": math.nan}, "maximum cost is nan"),
        ({"limits": (GroupLimit(name="x", weights={"Z": 1}),)}, "limit x: instance 'Z'"),
    ],
)
def test_what_is_no_problem(change, message):
    with pytest.raises(InputError, match=message):
        replace(problem_of(LOAD, [1.0, 2.0]), **change)


@pytest.mark.parametrize(("least", "most"), [(-1, None), (0, -1), (3, 2)])
def test_limits_that_cannot_be(least, most):
    with pytest.raises(InputError, match="limit x"):
        GroupLimit(name="x", weights={"A": 1}, minimum=least, maximum=most)


def test_arrays_are_copied_and_cannot_be_written():
    given = np.array(LOAD)
    problem = replace(problem_of(LOAD, [1.0, 2.0]), load=given)
    given[0, 0] = 9.0
    assert problem.load[0, 0] == 1.0
    with pytest.raises(ValueError, match="read-only"):
        problem.load[0, 0] = 5.0


def test_some_instances_alone():
    both = GroupLimit(name="both", weights={"A": 1, "C": 2}, minimum=1, maximum=5)
    problem = problem_of(
        [[1.0, 2.0, 3.0, 4.0]],
        [1.0, 2.0, 3.0],
        configs=("A1", "B1", "C1", "C2"),
        config_instance=np.array([0, 1, 2, 2]),
        gpus_per_replica=np.array([1, 1, 1, 2]),
        gpus_per_instance=np.array([1, 1, 2]),
        limits=(both,),
    )
    alone = problem.only_instances({"C", "B"})
    assert (alone.configs, alone.instances) == (("B1", "C1", "C2"), ("B", "C"))
    assert alone.load.tolist() == [[2.0, 3.0, 4.0]]
    assert alone.config_instance.tolist() == [0, 1, 1]
    assert alone.gpus_per_replica.tolist() == [1, 1, 2]
    assert alone.gpus_per_instance.tolist() == [1, 2]
    assert alone.price_usd_per_hour.tolist() == [2.0, 3.0]
    (limit,) = alone.limits
    assert (dict(limit.weights), limit.minimum, limit.maximum) == ({"C": 2}, 1, 5)
    assert problem.only_instances({"Z"}) is None


def test_they_tell_what_they_are():
    assert repr(problem_of(LOAD, [1.0, 2.0])) == "Problem(2 buckets, 2 configs on 2 instance types, 0 limits: A, B)"
    assert repr(Solution(status=Status.INFEASIBLE)) == "Solution(infeasible)"
    found = Solution(status=Status.OPTIMAL, cost_usd_per_hour=3.5, instances=np.array([1, 2]), gap=0.001)
    assert repr(found) == "Solution(optimal, 3.5000 USD per hour, gap 0.001, instances 1 2)"
