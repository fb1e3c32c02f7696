"""How much fleets carry: the linear program by hand and in its dual, the bound against it on random fleets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import linprog

from melange.attainment.capacity import CarryingCapacity
from melange.solver.problem import Problem


def problem_of(load, machines=None, degrees=None, gpus=None):
    load = np.array(load, dtype=float)
    n_c = load.shape[1]
    machines = list(range(n_c)) if machines is None else machines
    n_i = max(machines) + 1
    return Problem(
        buckets=tuple(f"b{b}" for b in range(len(load))),
        configs=tuple(f"c{c}" for c in range(n_c)),
        instances=tuple(f"i{i}" for i in range(n_i)),
        load=load,
        config_instance=np.array(machines),
        gpus_per_replica=np.array(degrees or [1] * n_c),
        gpus_per_instance=np.array(gpus or [1] * n_i),
        price_usd_per_hour=np.ones(n_i),
    )


def drawn(seed):
    """Random loads of boxes with several degrees, some sizes held by some configs alone, and random fleets of them."""
    draw = np.random.default_rng(seed)
    gpus = draw.choice([1, 2, 4], size=3)
    configs = [(i, tp) for i in range(3) for tp in (1, 2, 4) if tp <= gpus[i]]
    load = draw.uniform(0.1, 3, size=(4, len(configs)))
    load[draw.random(load.shape) < 0.2] = np.inf
    problem = problem_of(load, [i for i, _ in configs], [tp for _, tp in configs], gpus.tolist())
    return problem, draw.integers(0, 5, size=(40, 3))


def by_the_dual(problem, counts):
    """The least of sum_i gpus_i n_i p_i over prices p of a GPU, v of a bucket: v_b <= load_bc tp_c p, sum v = 1."""
    n_b, n_i = len(problem.buckets), len(problem.instances)
    rows = []
    for b in range(n_b):
        for c, i in enumerate(problem.config_instance):
            if counts[i] and np.isfinite(problem.load[b, c]):
                row = np.zeros(n_b + n_i)
                row[b], row[n_b + i] = 1.0, -problem.load[b, c] * problem.gpus_per_replica[c]
                rows.append(row)
    if not all(any(row[b] for row in rows) for b in range(n_b)):
        return 0.0
    cost = np.concatenate([np.zeros(n_b), problem.gpus_per_instance * counts])
    total = np.concatenate([np.ones(n_b), np.zeros(n_i)])[None, :]
    return float(linprog(cost, A_ub=np.array(rows), b_ub=np.zeros(len(rows)), A_eq=total, b_eq=[1.0]).fun)


def test_one_size_on_one_machine_by_hand():
    assert CarryingCapacity(problem_of([[0.25]])).exact(np.array([3])) == pytest.approx(12)


def test_each_machine_takes_what_it_is_best_at_by_hand():
    # Each carries its own size twice over; the other's way round only half.
    assert CarryingCapacity(problem_of([[0.5, 2.0], [2.0, 0.5]])).exact(np.array([1, 1])) == pytest.approx(2)


@pytest.mark.parametrize("seed", range(8))
def test_exact_is_the_optimum_of_the_dual_and_no_bound_is_below_it(seed):
    problem, fleets = drawn(seed)
    capacity = CarryingCapacity(problem)
    assert (capacity.bound(fleets)[(fleets > 0).all(axis=1)] == np.inf).all()
    for counts in fleets[:10]:
        exact = capacity.exact(counts)
        assert exact == pytest.approx(by_the_dual(problem, counts), rel=1e-6)
        # Its own prices are tight.
        assert exact <= float(capacity.bound(counts[None, :])[0]) <= exact * (1 + 1e-5)
    exact = np.array([CarryingCapacity(problem).exact(counts) for counts in fleets])
    assert (capacity.bound(fleets) >= exact * (1 - 1e-9)).all()


def test_prices_of_one_fleet_bound_its_neighbours_nearly_as_well():
    capacity = CarryingCapacity(problem_of([[0.3, 0.9], [0.8, 0.4]]))
    capacity.exact(np.array([10, 10]))
    near = np.array([[9, 10], [10, 11]])
    exact = np.array([CarryingCapacity(capacity.problem).exact(counts) for counts in near])
    np.testing.assert_allclose(capacity.bound(near), exact, rtol=0.05)


def test_what_cannot_hold_a_size_carries_nothing_and_neither_do_machines_without_configs():
    problem = problem_of([[1.0, 1.0], [np.inf, 1.0]])
    capacity = CarryingCapacity(problem)
    fleets = np.array([[5, 0], [0, 5], [0, 0]])
    assert capacity.bound(fleets).tolist() == [0.0, np.inf, 0.0]
    assert [capacity.exact(counts) for counts in fleets] == pytest.approx([0.0, 2.5, 0.0])
    bare = replace(problem, instances=("i0", "i1", "bare"), gpus_per_instance=np.ones(3), price_usd_per_hour=np.ones(3))
    capacity = CarryingCapacity(bare)
    assert capacity.exact(np.array([0, 0, 3])) == 0
    assert capacity.exact(np.array([0, 2, 3])) == pytest.approx(1)
    assert capacity.bound(np.array([[0, 4, 9]]))[0] == pytest.approx(2)
