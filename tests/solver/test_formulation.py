"""The integer program of a problem: its rows, and what a run of it says."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from solver.builders import problem_of

from melange.solver.formulation import build, light_buckets, run, single_config
from melange.solver.problem import GroupLimit


def shared(**changes):
    """Two configs of 1 and 4 GPUs on an eight-GPU machine, and one alone on a pair of GPUs."""
    return problem_of(
        [[2.9, math.inf, 3.0], [math.inf, 0.9, 2.5]],
        [8.0, 3.0],
        configs=("M/tp1", "M/tp4", "N"),
        instances=("M", "N"),
        config_instance=np.array([0, 0, 1]),
        gpus_per_replica=np.array([1, 4, 1]),
        gpus_per_instance=np.array([8, 2]),
        **changes,
    )


def test_a_config_alone_that_fills_its_machine_needs_no_variable():
    assert single_config(shared()) == {2: 2}
    assert set(build(shared()).program.variablesDict()) == {
        "x_0_0", "x_0_2", "x_1_1", "x_1_2", "n_0", "n_1", "r_0", "r_1"
    }  # fmt: skip
    odd = problem_of([[1.0]], [1.0], gpus_per_replica=np.array([2]), gpus_per_instance=np.array([3]))
    assert single_config(odd) == {}


def test_replicas_share_machines():
    found = run(shared(), {"mip_rel_gap": 0.0})
    # 7 of the 8 GPUs carry both buckets; on N alone they take 6 replicas, three pairs at $9.
    assert found.instances.tolist() == [1, 0]
    assert found.bound_usd_per_hour == pytest.approx(8.0)
    assert found.shares.tolist() == [[1, 0, 0], [0, 1, 0]]


def test_limits_and_budget_are_rows():
    none_of_m = GroupLimit(name="M", weights={"M": 1}, maximum=0)
    assert run(shared(limits=(none_of_m,)), {"mip_rel_gap": 0.0}).instances.tolist() == [0, 3]
    two = GroupLimit(name="M", weights={"M": 1}, minimum=2)
    assert run(shared(limits=(two,)), {"mip_rel_gap": 0.0}).instances.tolist() == [2, 0]
    assert run(shared(max_cost_usd_per_hour=7.9), {}).infeasible
    assert not run(shared(max_cost_usd_per_hour=8.1), {}).infeasible


def test_what_is_known_of_the_cost_cuts_the_search():
    assert run(shared(), {}, at_most_usd_per_hour=7.9).infeasible
    known = run(shared(), {"mip_rel_gap": 0.0}, at_least_usd_per_hour=8.0)
    assert known.bound_usd_per_hour >= 8.0
    assert known.instances.tolist() == [1, 0]


def test_slices_are_whole():
    # A third on A would fill it; of quarters only one fits, and the rest needs a third of B.
    problem = problem_of([[3.0, 3.0]], [1.0, 1.1], limits=(GroupLimit(name="A", weights={"A": 1}, maximum=1),))
    free = run(problem, {"mip_rel_gap": 0.0})
    assert free.shares[0, 0] == pytest.approx(1 / 3, abs=1e-6)
    sliced = run(problem_of([[3.0, 3.0]], [1.0, 1.1], limits=problem.limits, slice_factor=4), {"mip_rel_gap": 0.0})
    assert (sliced.shares * 4 == np.rint(sliced.shares * 4)).all()
    assert problem.price_usd_per_hour @ sliced.instances > problem.price_usd_per_hour @ free.instances


def test_light_buckets_are_linked_to_a_replica():
    problem = problem_of([[1e-9], [0.5]], [1.0])
    assert light_buckets(problem).tolist() == [True, False]
    rows = [len(build(problem, linked=linked).program.constraints()) for linked in (True, False)]
    assert rows[0] == rows[1] + 1
    tiny = problem_of([[1e-13]], [1.0])
    assert run(tiny, {"mip_rel_gap": 0.0}).instances.tolist() == [1]


def test_a_machine_holds_no_more_replicas_than_its_gpus():
    no_n = GroupLimit(name="N", weights={"N": 1}, maximum=0)
    fits, over = (
        replace(shared(limits=(no_n,)), load=np.array([[load, math.inf, 9.0], [math.inf, 0.9, 9.0]]))
        for load in (3.9, 4.1)
    )
    assert run(fits, {"mip_rel_gap": 0.0}).instances.tolist() == [1, 0]
    assert run(over, {"mip_rel_gap": 0.0}).instances.tolist() == [2, 0]
