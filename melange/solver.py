"""solve: the cheapest fleet for a problem, with a proven bound and an honest status."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace

import numpy as np

from melange import allocation, formulation
from melange.errors import InputError
from melange.formulation import Outcome
from melange.problem import FloatArray, IntArray, Problem, Solution

SMALL_PROBLEM_SHARES = 100 * 8
SMALL_GAP = 1e-6
LARGE_GAP = 1e-3

# Loads are scaled by 1 + margin when the fleet found leaves no room: for slices room to round in, for continuous
# shares (where it is needed only if HiGHS's tolerance hid an overload) a hair.
MARGINS_SLICES = (0.0, 0.002, 0.01)
MARGINS_CONTINUOUS = (0.0, 1e-6)


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
    solution = _Search(problem, wanted, None if time_limit_s is None else started + time_limit_s).run()
    return replace(solution, solve_s=time.monotonic() - started)


def relaxation_bound(problem: Problem) -> float:
    """Cost if parts of GPUs could be rented: each bucket on the config where it is cheapest; inf if one has none."""
    price = problem.price_usd_per_hour / problem.gpus_per_instance
    per_replica = price[problem.config_instance] * problem.gpus_per_replica
    # Summing in another order may differ in the last digits; a bound must not be above.
    return float((problem.load * per_replica).min(axis=1).sum()) * (1 - 1e-12)


class _Search:
    """The best plan and bound so far, until the gap is proven or the deadline passes."""

    def __init__(self, problem: Problem, gap: float, deadline: float | None) -> None:
        self.problem = problem
        self.gap = gap
        self.deadline = deadline
        self.bound = relaxation_bound(problem)
        self.best: _Fleet | None = None

    def run(self) -> Solution:
        if math.isinf(self.bound):
            return Solution(status="infeasible")
        if self._with_margins():
            return Solution(status="infeasible")
        if self.problem.slice_factor is not None and not self._proven() and not self._late():
            outcome = self._solve(self.problem, at_least=self.bound)
            if outcome.infeasible:
                return Solution(status="infeasible")
            self._learn(outcome)
        return self._solution()

    def _with_margins(self) -> bool:
        """Solve with continuous shares, then fit whole ones to the fleet found; True if that is proven impossible."""
        relaxed = replace(self.problem, slice_factor=None)
        for margin in MARGINS_CONTINUOUS if self.problem.slice_factor is None else MARGINS_SLICES:
            scaled = relaxed if margin == 0 else replace(relaxed, load=relaxed.load * (1 + margin))
            outcome = self._solve(scaled)
            if outcome.infeasible:
                return margin == 0
            # With a margin the load is larger than the true one, and so may be the bound.
            self._learn(outcome if margin == 0 else replace(outcome, bound_usd_per_hour=-math.inf))
            if self._proven() or self._late() or (self.problem.slice_factor is None and self.best is not None):
                break
        return False

    def _solve(self, problem: Problem, at_least: float = 0.0) -> Outcome:
        return formulation.run(
            formulation.build(problem),
            problem,
            gap=self.gap,
            time_limit_s=None if self.deadline is None else max(1e-3, self.deadline - time.monotonic()),
            at_least_usd_per_hour=at_least,
        )

    def _learn(self, outcome: Outcome) -> None:
        self.bound = max(self.bound, outcome.bound_usd_per_hour)
        fleet = _fleet(self.problem, outcome)
        if fleet is not None and (self.best is None or fleet.cost < self.best.cost):
            self.best = fleet

    def _proven(self) -> bool:
        return self.best is not None and self.best.cost - self.bound <= self.gap * self.best.cost + 1e-12

    def _late(self) -> bool:
        return self.deadline is not None and time.monotonic() >= self.deadline

    def _solution(self) -> Solution:
        if self.best is None:
            return Solution(status="unknown", bound_usd_per_hour=self.bound)
        cost, bound = self.best.cost, min(self.bound, self.best.cost)
        return Solution(
            status="optimal" if self._proven() else "feasible",
            shares=self.best.shares,
            replicas=self.best.replicas,
            instances=self.best.instances,
            cost_usd_per_hour=cost,
            bound_usd_per_hour=bound,
            gap=(cost - bound) / cost if cost > 0 else 0.0,
        )


def _fleet(problem: Problem, outcome: Outcome) -> _Fleet | None:
    """The outcome's fleet with its shares made exact for the problem, or None if it cannot carry the load so."""
    if outcome.shares is None or outcome.instances is None:
        return None
    shares = allocation.clean_shares(problem, outcome.shares)
    replicas = allocation.whole_replicas(problem, shares)
    instances = np.maximum(outcome.instances, allocation.whole_instances(problem, replicas))
    replicas = allocation.fill_machines(problem, replicas, instances, shares)
    if problem.slice_factor is None:
        even = allocation.even_shares(problem, replicas)
    else:
        even = allocation.even_slices(problem, replicas, problem.slice_factor)
        if even is None and _in_slices(shares, problem.slice_factor):
            even = np.rint(shares * problem.slice_factor) / problem.slice_factor
    shares = shares if even is None else allocation.clean_shares(problem, even)
    fits = (allocation.loads(problem, shares) <= replicas + allocation.DUST).all()
    whole = problem.slice_factor is None or _in_slices(shares, problem.slice_factor)
    if not (fits and whole and _within_limits(problem, instances)):
        return None
    return _Fleet(instances, replicas, shares, float(problem.price_usd_per_hour @ instances))


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
