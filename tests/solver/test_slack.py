"""Replicas with the most slack: brute force over all replicas, ties, machines that cannot serve or carry."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from melange.solver.problem import Problem
from melange.solver.slack import arrangement, most_slack

DEGREES = (1, 2, 4, 8)


def problem_of(load, machine_gpus, configs):
    return Problem(
        buckets=tuple(f"b{b}" for b in range(len(load))),
        configs=tuple(f"c{c}" for c in range(len(configs))),
        instances=tuple(f"i{i}" for i in range(len(machine_gpus))),
        load=np.array(load),
        config_instance=np.array([i for i, _ in configs]),
        gpus_per_replica=np.array([tp for _, tp in configs]),
        gpus_per_instance=np.array(machine_gpus),
        price_usd_per_hour=np.ones(len(machine_gpus)),
    )


def drawn(seed):
    draw = np.random.default_rng(seed)
    machines = draw.choice(DEGREES, size=int(draw.integers(1, 3))).tolist()
    configs = [(i, tp) for i, gpus in enumerate(machines) for tp in DEGREES if tp <= gpus]
    whole = draw.uniform(0.2, 3, size=int(draw.integers(1, 5)))
    load = [[w / tp ** draw.uniform(0.6, 1.3) if draw.random() > 0.15 else np.inf for _, tp in configs] for w in whole]
    return problem_of(load, machines, configs), draw.integers(1, 3, size=len(machines))


def least_by_brute_force(problem, instances):
    room = problem.gpus_per_instance * instances
    ranges = [
        range(int(room[i]) // int(tp) + 1)
        for i, tp in zip(problem.config_instance, problem.gpus_per_replica, strict=True)
    ]
    best = np.inf
    for counts in itertools.product(*ranges):
        replicas = np.array(counts)
        used = np.bincount(
            problem.config_instance, weights=replicas * problem.gpus_per_replica, minlength=len(instances)
        )
        if (used <= room).all() and (found := arrangement(problem, replicas)) is not None:
            best = min(best, found.highest)
    return best


@pytest.mark.parametrize("seed", range(12))
def test_no_replicas_have_more_slack(seed):
    problem, instances = drawn(seed)
    found = most_slack(problem, instances)
    best = least_by_brute_force(problem, instances)
    if found is None:
        assert best == np.inf
        return
    assert found.highest == pytest.approx(best, rel=1e-6)
    used = np.bincount(
        problem.config_instance, weights=found.replicas * problem.gpus_per_replica, minlength=len(instances)
    )
    assert (used <= problem.gpus_per_instance * instances).all()
    np.testing.assert_allclose(found.shares.sum(axis=1), 1)


def test_two_halves_of_a_machine_beat_the_whole_where_they_are_faster():
    problem = problem_of([[0.51, 0.78]], [8], [(0, 8), (0, 4)])
    found = most_slack(problem, np.array([1]))
    assert found.replicas.tolist() == [0, 2]
    assert found.highest == pytest.approx(0.39)


def test_among_equals_one_kind_of_replica():
    # One of TP 2 does what two of TP 1 do, so any mix has the same slack.
    problem = problem_of([[0.5, 1.0], [0.25, 0.5]], [4], [(0, 2), (0, 1)])
    found = most_slack(problem, np.array([1]))
    assert np.count_nonzero(found.replicas) == 1
    assert found.highest == pytest.approx(0.375)


def test_what_cannot_be_carried_is_said_and_what_cannot_be_served_is_none():
    problem = problem_of([[3.0], [1.0]], [1], [(0, 1)])
    found = most_slack(problem, np.array([2]))
    assert found.highest == pytest.approx(2.0)
    assert not found.carries
    assert most_slack(problem_of([[3.0], [np.inf]], [1], [(0, 1)]), np.array([2])) is None
    assert most_slack(problem, np.array([0])) is None
