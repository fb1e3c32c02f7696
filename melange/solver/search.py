"""solve: the cheapest fleet for a problem, with a proven bound and an honest status."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.solver import allocation, formulation
from melange.solver.formulation import ProgramResult
from melange.solver.problem import Problem, Solution, Status

SMALL_PROBLEM_SHARES = 100 * 8
SMALL_GAP = 1e-6
LARGE_GAP = 1e-3

# A second try with loads a hair larger, needed only where HiGHS's tolerance hid an overload.
HAIR = 1e-6
LEAST_LOAD = 1e-8
# A gap of 0 is proven when cost and bound differ by rounding only.
ROUNDING = 1e-10
# Pairs kept when only near-best configs are searched: at most this fraction above a bucket's cheapest.
NEAR = (0.03, 0.1, 0.3)
NODES_WHEN_NEAR = 500


@dataclass(frozen=True, slots=True, eq=False)
class _Fleet:
    """A plan that holds: whole instances, their replicas, clean shares, and what the instances cost."""

    instances: IntArray
    replicas: IntArray
    shares: FloatArray
    cost: float


def default_gap(problem: Problem) -> float:
    """1e-6 up to 100 buckets x 8 configs (by their product), 1e-3 above."""
    return SMALL_GAP if problem.load.size <= SMALL_PROBLEM_SHARES else LARGE_GAP


def solve(problem: Problem, *, gap: float | None = None, time_limit_s: float | None = None) -> Solution:
    """The cheapest instances whose replicas carry every bucket, within the problem's limits.

    ``gap`` is relative: (cost - bound) / cost at which a plan counts as optimal; None takes ``default_gap``.
    ``time_limit_s`` None runs until that is proven. Replicas use every GPU that is rented, and continuous shares
    spread the load evenly over them. Raises InputError for a gap or time limit that is not one.
    """
    started = time.monotonic()
    wanted = default_gap(problem) if gap is None else gap
    if not (math.isfinite(wanted) and 0 <= wanted < 1):
        raise InputError(f"gap is {gap}", fix="give a fraction from 0 to below 1, such as 0.001")
    if time_limit_s is not None and not time_limit_s > 0:
        raise InputError(f"time limit is {time_limit_s} s", fix="give a positive number of seconds")
    deadline = None if time_limit_s is None else started + time_limit_s
    # The least load still makes HiGHS provide a replica; below, its tolerances would let a bucket go unserved.
    served = replace(problem, load=np.maximum(problem.load, LEAST_LOAD))
    solution = _Search(served, wanted, deadline).run()
    return replace(solution, solve_s=time.monotonic() - started)


def relaxation_bound(problem: Problem) -> float:
    """Cost if parts of GPUs could be rented: each bucket on the config where it is cheapest; inf if one has none."""
    # Summing in another order may differ in the last digits; a bound must not be above.
    return float(_unit_costs(problem).min(axis=1).sum()) * (1 - 1e-12)


def _unit_costs(problem: Problem) -> FloatArray:
    """(n_buckets, n_configs) USD/h of the GPU time that a whole bucket takes on a config."""
    price = problem.price_usd_per_hour / problem.gpus_per_instance
    costs: FloatArray = problem.load * (price[problem.config_instance] * problem.gpus_per_replica)
    return costs


class _Search:
    """The best plan and bound so far, improved until the gap is proven or the deadline passes."""

    def __init__(self, problem: Problem, gap: float, deadline: float | None) -> None:
        self.problem = problem
        self.gap = gap
        self.deadline = deadline
        self.bound = relaxation_bound(problem)
        self.best: _Fleet | None = None
        self.relaxed: _Fleet | None = None

    def run(self) -> Solution:
        """Cheap searches first: near-best pairs of a large fleet, all pairs with continuous shares, then slices."""
        if math.isinf(self.bound):
            return Solution(status=Status.INFEASIBLE)
        if self.gap * self.bound >= self.problem.price_usd_per_hour.min():
            self._solve_near(NEAR[0])
        if not self._over() and self._solve_relaxed():
            return Solution(status=Status.INFEASIBLE)
        if self.problem.slice_factor is not None and not self._over() and self._solve_slices():
            return Solution(status=Status.INFEASIBLE)
        return self._solution()

    def _solve_near(self, excess: float) -> None:
        """Look for a plan among near-best pairs and those of the relaxed plan. Proves nothing about the others."""
        costs = _unit_costs(self.problem)
        near = costs <= (1 + excess) * costs.min(axis=1, keepdims=True)
        if self.relaxed is not None:
            near |= self.relaxed.shares > 0
        restricted = replace(self.problem, load=np.where(near, self.problem.load, np.inf))
        heuristics = {} if self.problem.slice_factor is None else formulation.NEAR_SLICES
        outcome = self._solve(
            restricted,
            mip_max_nodes=NODES_WHEN_NEAR,
            objective_target=self.bound / (1 - self.gap),
            **heuristics,
        )
        self._learn(replace(outcome, bound_usd_per_hour=-math.inf))

    def _solve_relaxed(self) -> bool:
        """Solve with continuous shares, whose bound holds for slices too; True if that is proven infeasible."""
        relaxed = replace(self.problem, slice_factor=None)
        outcome = self._solve(relaxed)
        if outcome.infeasible:
            return self.best is None
        self.bound = max(self.bound, outcome.bound_usd_per_hour)
        self.relaxed = _fleet(relaxed, outcome)
        if self.problem.slice_factor is not None:
            self._keep(_fleet(self.problem, outcome))
            return False
        self._keep(self.relaxed)
        if self.best is None and not self._over():
            outcome = self._solve(replace(relaxed, load=relaxed.load * (1 + HAIR)))
            self._learn(replace(outcome, bound_usd_per_hour=-math.inf))
        return False

    def _solve_slices(self) -> bool:
        """Look for slices near the relaxed plan, then on its fleet, then everywhere; True if there are none."""
        self._solve_near(NEAR[1])
        if not self._over():
            self._fit_relaxed()
        if not self._over():
            self._solve_near(NEAR[2])
        if self._over():
            return False
        outcome = self._solve(self.problem, at_least_usd_per_hour=self.bound)
        if outcome.infeasible and self.best is None:
            return True
        self._learn(outcome)
        return False

    def _fit_relaxed(self) -> None:
        """Fit slices to the fleet of the relaxed plan, which costs no more than the gap if they do."""
        if self.relaxed is not None:
            fleet, slices = self.relaxed, self.problem.slice_factor or 1
            shares = allocation.even_slices(self.problem, fleet.replicas, slices, all_buckets=True)
            self._learn(
                ProgramResult(infeasible=False, bound_usd_per_hour=0.0, shares=shares, instances=fleet.instances)
            )

    def _solve(self, problem: Problem, *, at_least_usd_per_hour: float = 0.0, **options: Any) -> ProgramResult:
        if self.deadline is not None:
            options["time_limit"] = max(1e-3, self.deadline - time.monotonic())
        return formulation.run(
            problem, options | {"mip_rel_gap": self.gap}, at_least_usd_per_hour=at_least_usd_per_hour
        )

    def _learn(self, outcome: ProgramResult) -> None:
        if not outcome.infeasible:
            self.bound = max(self.bound, outcome.bound_usd_per_hour)
        self._keep(_fleet(self.problem, outcome))

    def _keep(self, fleet: _Fleet | None) -> None:
        if fleet is not None and (self.best is None or fleet.cost < self.best.cost):
            self.best = fleet

    def _proven(self) -> bool:
        return self.best is not None and self.best.cost - self.bound <= max(self.gap, ROUNDING) * self.best.cost

    def _over(self) -> bool:
        return self._proven() or (self.deadline is not None and time.monotonic() >= self.deadline)

    def _solution(self) -> Solution:
        if self.best is None:
            return Solution(status=Status.UNKNOWN, bound_usd_per_hour=self.bound)
        cost, bound = self.best.cost, min(self.bound, self.best.cost)
        return Solution(
            status=Status.OPTIMAL if self._proven() else Status.FEASIBLE,
            shares=self.best.shares,
            replicas=self.best.replicas,
            instances=self.best.instances,
            cost_usd_per_hour=cost,
            bound_usd_per_hour=bound,
            gap=(cost - bound) / cost if cost > 0 else 0.0,
        )


def _fleet(problem: Problem, outcome: ProgramResult) -> _Fleet | None:
    """The outcome's fleet with its shares made exact for the problem, or None if it cannot carry the load so."""
    if outcome.shares is None or outcome.instances is None:
        return None
    shares = allocation.clean_shares(problem, outcome.shares)
    replicas = allocation.whole_replicas(problem, shares)
    instances = _spare(problem, outcome.instances, allocation.whole_instances(problem, replicas))
    replicas = allocation.fill_machines(problem, replicas, instances, shares)
    if problem.slice_factor is None:
        even = allocation.even_shares(problem, replicas)
    else:
        even = allocation.even_slices(problem, replicas, problem.slice_factor)
        if even is None and _in_slices(shares, problem.slice_factor):
            even = np.rint(shares * problem.slice_factor) / problem.slice_factor
    shares = shares if even is None else allocation.clean_shares(problem, even)
    fits = (allocation.loads(problem, shares) <= replicas + allocation.DUST).all() and not shares[
        :, replicas == 0
    ].any()
    whole = problem.slice_factor is None or _in_slices(shares, problem.slice_factor)
    if not (fits and whole and _within_limits(problem, instances)):
        return None
    return _Fleet(instances, replicas, shares, float(problem.price_usd_per_hour @ instances))


def _spare(problem: Problem, instances: IntArray, needed: IntArray) -> IntArray:
    """The instances, at least the needed ones, without those that neither load nor limits ask for."""
    kept = np.maximum(instances, needed)
    for i in np.flatnonzero(kept > needed).tolist():
        fewer = kept.copy()
        fewer[i] = needed[i]
        if _within_limits(problem, fewer):
            kept = fewer
    return kept


def _in_slices(shares: FloatArray, slices: int) -> bool:
    return bool((np.abs(shares * slices - np.rint(shares * slices)) <= 1e-9 * slices).all())


def _within_limits(problem: Problem, instances: IntArray) -> bool:
    counts = dict(zip(problem.instances, instances.tolist(), strict=True))
    for limit in problem.limits:
        total = sum(weight * counts[key] for key, weight in limit.weights.items())
        if total < limit.minimum or (limit.maximum is not None and total > limit.maximum):
            return False
    cost = float(problem.price_usd_per_hour @ instances)
    return problem.max_cost_usd_per_hour is None or cost <= problem.max_cost_usd_per_hour * (1 + 1e-9)
