"""How much demand fleets can carry: exactly for one fleet, and as an upper bound for thousands at once.

A fleet of n_i machines carries a problem's demand s times over, where s is the optimum of

    maximise    s
    subject to  sum_c y_bc             = s        every bucket b
                sum_b load_bc y_bc    <= r_c      every config c
                sum_{c on i} tp_c r_c <= gpus_i n_i

with replicas in fractions. For any prices mu_c >= 0 of a replica, duality gives s <= sum_i n_i value_i(mu), where
value_i is the dearest way to fill a machine over the cheapest way to serve the demand. The prices that are best for one
fleet bound the others too, and nearly as well for those that resemble it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.optimize import linprog
from scipy.sparse import coo_matrix

from melange.arrays import FloatArray, IntArray
from melange.solver.problem import Problem

ROUNDING = 1e-7
"""Relative slack given to a bound, so that rounding in a solver never rules a fleet out."""


class CarryingCapacity:
    """Upper bounds of the demand that fleets carry, from the prices seen so far.

    ``values``: one row (n_instances,) per set of prices, a fleet carries at most the least of ``values @ counts``.
    """

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.values = np.zeros((0, len(problem.instances)))
        self._holds = np.zeros((len(problem.instances), len(problem.buckets)))
        np.maximum.at(self._holds, problem.config_instance, np.isfinite(problem.load).T.astype(float))

    def bound(self, fleets: IntArray) -> FloatArray:
        """(n_fleets,) how many times over each of the fleets (n_fleets, n_instances) carries the demand at most."""
        most = (fleets @ self.values.T).min(axis=1, initial=np.inf) * (1 + ROUNDING)
        holds = ((fleets > 0) @ self._holds > 0).all(axis=1)
        return np.where(holds, most, 0.0)

    def exact(self, counts: IntArray) -> float:
        """How many times over one fleet carries the demand, replicas in fractions; learns its prices.

        0 where nobody serves some bucket, infinity where the solver gives no answer, which rules nothing out.
        """
        scale, replica_price = _program(self.problem, counts)
        if replica_price is not None:
            self._learn(replica_price, counts)
        return scale

    def _learn(self, replica_price: FloatArray, counts: IntArray) -> None:
        """Keep a row of values for these prices (n_configs,); what is not rented is as dear as changes nothing."""
        problem = self.problem
        load, on = problem.load, problem.config_instance
        rented = counts[on] > 0
        with np.errstate(divide="ignore", invalid="ignore"):
            serving = np.where(np.isfinite(load[:, rented]), load[:, rented] * replica_price[rented], np.inf)
            cheapest = serving.min(axis=1)
            least = np.where(np.isfinite(load), cheapest[:, None] / load, 0.0).max(axis=0)
        price = np.where(rented, replica_price, least)
        values = np.zeros(len(problem.instances))
        np.maximum.at(values, on, price * problem.gpus_per_instance[on] / problem.gpus_per_replica)
        demand = float(cheapest.sum())
        if np.isfinite(demand) and demand > 0:
            self.values = np.vstack([self.values, values / demand])


def _program(problem: Problem, counts: IntArray) -> tuple[float, FloatArray | None]:
    """The optimum s for a fleet (see exact) and the prices of a replica (n_configs,), None where there are none."""
    rented = counts[problem.config_instance] > 0
    usable = np.isfinite(problem.load) & rented
    if not usable.any(axis=1).all():
        return 0.0, None
    buckets, configs = np.nonzero(usable)
    pairs, n_b, n_c, n_i = len(buckets), *problem.load.shape, len(problem.instances)
    # Columns: y of each pair, r of each config, s.
    equal = coo_matrix(
        (
            np.concatenate([np.ones(pairs), -np.ones(n_b)]),
            (np.concatenate([buckets, np.arange(n_b)]), np.concatenate([np.arange(pairs), np.full(n_b, pairs + n_c)])),
        ),
        shape=(n_b, pairs + n_c + 1),
    )
    rows = np.concatenate([configs, np.arange(n_c), n_c + problem.config_instance])
    columns = np.concatenate([np.arange(pairs), pairs + np.arange(n_c), pairs + np.arange(n_c)])
    values = np.concatenate([problem.load[usable], -np.ones(n_c), problem.gpus_per_replica.astype(float)])
    at_most = coo_matrix((values, (rows, columns)), shape=(n_c + n_i, pairs + n_c + 1))
    limits = np.concatenate([np.zeros(n_c), (problem.gpus_per_instance * counts).astype(float)])
    objective = np.zeros(pairs + n_c + 1)
    objective[-1] = -1.0
    solve: Any = linprog  # whose stubs do not know that it takes sparse matrices
    found = solve(objective, A_ub=at_most, b_ub=limits, A_eq=equal, b_eq=np.zeros(n_b), method="highs-ds")
    if found.status != 0:
        return np.inf, None
    return float(found.x[-1]), np.maximum(-found.ineqlin.marginals[:n_c], 0.0)
