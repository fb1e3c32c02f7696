"""solve: the cheapest fleet for a problem, with a proven bound and an honest status."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.errors import InputError
from melange.solver import allocation, formulation
from melange.solver.fleet import Fleet, carried_by, exact_fleet, is_cheaper, one_config_fleet
from melange.solver.formulation import ProgramResult
from melange.solver.periods import solved_by_few
from melange.solver.problem import GroupLimit, Problem, Solution, Status, split_ways

SMALL_PROBLEM_SHARES = 100 * 8
SMALL_GAP = 1e-6
LARGE_GAP = 1e-3

# Where HiGHS's tolerance hid an overload, loads this much larger give a fleet that holds.
HAIR = 1e-6
# HiGHS's bound comes from duals that are right to its tolerances only: this much is taken off, relative.
BOUND_SLACK = 1e-8
# A gap of 0 is proven when cost and bound differ by no more than that and rounding.
ROUNDING = 2 * BOUND_SLACK
# Prices in whole units this small make every fleet's cost a multiple of their greatest common divisor.
UNITS_PER_USD = 10**6
# Pairs kept when only near-best configs are searched: at most this fraction above a bucket's cheapest.
NEAR = (0.03, 0.1, 0.3)
NODES_WHEN_NEAR = 500
# The settings under which HiGHS is asked again, with other cuts and another tree, whether anything is cheaper.
AGAIN: tuple[Mapping[str, Any], ...] = (
    {"mip_feasibility_tolerance": 1e-6, "mip_heuristic_effort": 0.0, "random_seed": 7},
    {"presolve": "off", "random_seed": 11},
    {"mip_feasibility_tolerance": 1e-6, "mip_allow_restart": True, "random_seed": 13},
)
# Asking again costs as much as the first proof: it is done up to this many pairs, and given up after so many nodes.
MOST_PAIRS_AGAIN = 2_000
MOST_NODES_AGAIN = 5_000
# Prices of lateness that are tried for the closed bound; each halves the bracket around the best one.
PRICES_TRIED = 80
# "Cheaper" is by this much at least, relative: less would be lost in the tolerances.
CHEAPER = 1e-5


def default_gap(problem: Problem) -> float:
    """1e-6 up to 100 buckets x 8 configs (by their product), 1e-3 above."""
    return SMALL_GAP if problem.load.size <= SMALL_PROBLEM_SHARES else LARGE_GAP


def solve(problem: Problem, *, gap: float | None = None, time_limit_s: float | None = None) -> Solution:
    """The cheapest instances whose replicas carry every bucket, within the problem's limits.

    Requests are late by design only where that makes the fleet cheaper, and then as few as its replicas need.

    ``gap`` is relative: (cost - bound) / cost at which a plan counts as optimal; None takes ``default_gap``.
    ``time_limit_s`` None runs until that is proven. Of several periods those that bind are found on the way (see
    periods). Replicas use every GPU that is rented, and continuous shares spread the load evenly over them. Of machines
    that cost nothing as few are taken as the cheapest cost needs, by their GPUs; that they are the fewest is not part
    of the proof. Raises InputError for a gap or time limit that is not one.

    A proof is not taken on trust. HiGHS's bound must not lie above a fleet that is known to hold, and unless the
    problem is large or a wider gap was asked than the default, HiGHS has to prove under other settings, too, that
    nothing is cheaper. What contradicts a proof voids it, and without another one the status is ``feasible``.
    """
    started = time.monotonic()
    wanted = default_gap(problem) if gap is None else gap
    if not (math.isfinite(wanted) and 0 <= wanted < 1):
        raise InputError(f"gap is {gap}", fix="give a fraction from 0 to below 1, such as 0.001")
    if time_limit_s is not None and not time_limit_s > 0:
        raise InputError(f"time limit is {time_limit_s} s", fix="give a positive number of seconds")
    deadline = None if time_limit_s is None else started + time_limit_s

    def alone(part: Problem) -> Solution:
        exact = wanted <= default_gap(problem) and np.isfinite(part.way_load).sum() <= MOST_PAIRS_AGAIN
        return _Search(part, wanted, deadline, prove_again=exact).run()

    if problem.periods == 1:
        solution = alone(problem)
    else:
        heaviest = int(np.argmax(problem.period_sums(_unit_costs(problem).min(axis=1))))
        solution = solved_by_few(problem, heaviest, alone)
    if deadline is None or time.monotonic() < deadline:
        solution = _of_fewest_free(problem, solution, deadline)
    return replace(solution, solve_s=time.monotonic() - started)


def _of_fewest_free(problem: Problem, solution: Solution, deadline: float | None) -> Solution:
    """The solution with as few GPUs of free machines as its paid ones leave need of, as far as a search finds that."""
    free = problem.is_free
    if solution.instances is None or not solution.instances[free].any():
        return solution
    kept = tuple(
        GroupLimit(name=f"as many {key}", weights={key: 1}, minimum=count, maximum=count)
        for key, count, costs_nothing in zip(problem.instances, solution.instances.tolist(), free, strict=True)
        if not costs_nothing
    )
    gpus = np.where(free, problem.gpus_per_instance, 0).astype(float)
    fewest = replace(problem, price_usd_per_hour=gpus, limits=(*problem.limits, *kept), max_cost_usd_per_hour=None)
    found = _Search(fewest, LARGE_GAP, deadline, prove_again=False).run()
    if found.instances is None or gpus @ found.instances >= gpus @ solution.instances:
        return solution
    return replace(
        solution,
        shares=found.shares,
        late_shares=found.late_shares,
        replicas=found.replicas,
        instances=found.instances,
    )


def undercut(
    problem: Problem,
    solution: Solution,
    replicas: IntArray,
    *,
    gap: float | None = None,
    time_limit_s: float | None = None,
) -> Solution:
    """The solution, or one that is cheaper where these replicas (n_configs,) show that it is not the cheapest.

    They do if they carry the load within the problem's limits for less. The proof that failed is then not believed:
    the new solution is ``optimal`` only if HiGHS proves under other settings that nothing is cheaper.
    """
    deadline = None if time_limit_s is None else time.monotonic() + time_limit_s
    search = _Search(problem, default_gap(problem) if gap is None else gap, deadline, prove_again=True)
    fleet = carried_by(problem, replicas)
    if fleet is None or solution.cost_usd_per_hour is None or not is_cheaper(fleet.cost, solution.cost_usd_per_hour):
        return solution
    search.best = fleet
    search.prove_anew()
    return replace(search.solution(), solve_s=solution.solve_s)


def relaxation_bound(problem: Problem) -> float:
    """Cost if parts of GPUs could be rented: each bucket the way that is cheapest; inf where it cannot be served.

    Of lateness the Lagrangian bound at the best price of a late request, which is as good as the linear program's. Of
    several periods that of the dearest, as none needs less than it does alone.
    """
    # Summing in another order may differ in the last digits; a bound must not be above.
    costs = _unit_costs(problem)
    if problem.lateness is None:
        return float(problem.period_sums(costs.min(axis=1)).max()) * (1 - 1e-12)
    allowed = problem.lateness.at_most + allocation.LATE_ROOM
    if problem.must_be_late > allowed:
        return math.inf
    n_c, weight = len(problem.configs), problem.way_weight
    periods = [problem.bucket_period == period for period in range(problem.periods)]
    bounds = [
        _lagrangian(costs[rows, :n_c].min(axis=1), costs[rows, n_c:], weight[rows, n_c:], allowed) for rows in periods
    ]
    return max(bounds) * (1 - 1e-12)


def _lagrangian(in_time: FloatArray, late: FloatArray, weight: FloatArray, allowed: float) -> float:
    """The largest, over prices y >= 0 of lateness, of sum_b min(in time_b, min_c late_bc + y weight_bc) - y allowed.

    Every price gives a bound, so that the search for the best may stop anywhere. ``in_time``: (n_buckets,), the others
    (n_buckets, n_configs).
    """
    rows = np.arange(len(in_time))

    def at(price: float) -> tuple[float, float]:
        """The bound at a price, and the share of requests that is late at it."""
        priced = late + price * weight
        chosen = priced.argmin(axis=1)
        cost = priced[rows, chosen]
        value = float(np.minimum(in_time, cost).sum()) - price * allowed
        return value, float(weight[rows, chosen][cost < in_time].sum())

    low, high = 0.0, 1.0
    best, share = at(low)
    bracketed = share <= allowed
    for _ in range(0 if bracketed else PRICES_TRIED):
        price = (low + high) / 2 if bracketed else high
        value, share = at(price)
        best = max(best, value)
        if share > allowed:
            low, high = price, high if bracketed else 4 * high
        else:
            bracketed, high = True, price
    return best


def _unit_costs(problem: Problem) -> FloatArray:
    """(n_buckets, n_ways) USD/h of the GPU time that a whole bucket takes in each way."""
    price = problem.price_usd_per_hour / problem.gpus_per_instance
    by_config = price[problem.config_instance] * problem.gpus_per_replica
    load = problem.way_load
    way = np.broadcast_to(by_config[problem.way_config], load.shape)
    # A machine that costs nothing still cannot serve what it cannot serve.
    costs: FloatArray = np.full(load.shape, np.inf)
    np.multiply(load, way, out=costs, where=np.isfinite(load))
    return costs


class _Search:
    """The best plan and bound so far, improved until the gap is proven or the deadline passes."""

    def __init__(self, problem: Problem, gap: float, deadline: float | None, *, prove_again: bool) -> None:
        self.problem = problem
        self.gap = gap
        self.deadline = deadline
        self.prove_again = prove_again
        self.bound = relaxation_bound(problem)
        self.best: Fleet | None = None
        self.relaxed: Fleet | None = None
        # The problem whose bound HiGHS gave; None while the bound is the closed form, which needs no trust.
        self.trusted: Problem | None = None
        # HiGHS called infeasible what a known fleet solves.
        self.refuted = False
        self.step = _cost_step(problem)

    def run(self) -> Solution:
        """Cheap searches first: near-best pairs of a large fleet, all pairs with continuous shares, then slices."""
        if math.isinf(self.bound):
            return Solution(status=Status.INFEASIBLE)
        if 0 < self.problem.least_price_usd_per_hour <= self.gap * self.bound:
            self._solve_near(NEAR[0])
        infeasible = not self._over() and self._solve_relaxed()
        if not infeasible and self.problem.slice_factor is not None and not self._over():
            infeasible = self._solve_slices()
        self._doubt(infeasible)
        return Solution(status=Status.INFEASIBLE) if infeasible and self.best is None else self.solution()

    def _doubt(self, infeasible: bool) -> None:
        """Void what HiGHS proved where a known fleet is cheaper; else ask it again whether one is."""
        self._keep(one_config_fleet(self.problem, math.inf if self.best is None else self.best.cost))
        known = self.best is not None and (infeasible or self.refuted or is_cheaper(self.best.cost, self.bound))
        rests_on_highs = infeasible or (self._proven() and self.trusted is not None)
        if known or (self.prove_again and rests_on_highs and self._refuted_again(self.trusted or self.problem)):
            self.prove_anew()

    def _refuted_again(self, problem: Problem) -> bool:
        """Whether other settings find what HiGHS said is not there: any fleet, or one cheaper by the gap."""
        below = None if self.best is None else self.best.cost * (1 - max(self.gap, CHEAPER))
        if below == 0:  # nothing is cheaper than nothing
            return False
        outcome = self._solve(problem, at_most_usd_per_hour=below, mip_max_nodes=MOST_NODES_AGAIN, **AGAIN[0])
        found = exact_fleet(problem, outcome)
        self._keep(exact_fleet(self.problem, outcome))
        return found is not None and (below is None or is_cheaper(found.cost, self.bound))

    def prove_anew(self) -> None:
        """Start over from the best fleet: the lowest bound that two settings agree on, or the closed form."""
        self.bound, self.trusted = relaxation_bound(self.problem), None
        bounds: list[float] = []
        for settings in AGAIN:
            if len(bounds) < 2:
                outcome = self._solve(self.problem, mip_max_nodes=MOST_NODES_AGAIN, **settings)
                self._keep(exact_fleet(self.problem, outcome))
                bounds += [] if outcome.infeasible else [self._safe(outcome.bound_usd_per_hour)]
        bounds = [bound for bound in bounds if self.best is not None and not is_cheaper(self.best.cost, bound)]
        if len(bounds) == 2:
            self.bound = max(self.bound, min(bounds))

    def _solve_near(self, excess: float) -> None:
        """Look for a plan among near-best pairs and those of the relaxed plan. Proves nothing about the others."""
        costs, n_c = _unit_costs(self.problem), len(self.problem.configs)
        # Late ways among themselves, so that the cheapest in time stays.
        parts = [costs[:, at : at + n_c] for at in range(0, costs.shape[1], n_c)]
        near = np.hstack([part <= (1 + excess) * part.min(axis=1, keepdims=True) for part in parts])
        if self.relaxed is not None:
            near |= self.relaxed.shares > 0
        restricted = self.problem.only_ways(near)
        heuristics = {} if self.problem.slice_factor is None else formulation.NEAR_SLICES
        outcome = self._solve(
            restricted,
            mip_max_nodes=NODES_WHEN_NEAR,
            objective_target=self.bound / (1 - self.gap),
            linked=False,
            **heuristics,
        )
        self._learn(replace(outcome, bound_usd_per_hour=-math.inf))

    def _solve_relaxed(self) -> bool:
        """Solve with continuous shares, whose bound holds for slices too; True if that is proven infeasible."""
        relaxed = replace(self.problem, slice_factor=None)
        # The rows of light buckets double the time of a large program, which seldom needs them.
        for linked in (False, True) if formulation.light_buckets(relaxed).any() else (False,):
            outcome = self._solve(relaxed, linked=linked)
            if outcome.infeasible:
                self.refuted = self.best is not None
                return not self.refuted
            self._raise_bound(outcome.bound_usd_per_hour, relaxed)
            self.relaxed = exact_fleet(relaxed, outcome)
            if self.problem.slice_factor is not None:
                self._keep(exact_fleet(self.problem, outcome))
                return False
            self._keep(self.relaxed)
            if self._over():
                return False
        # HiGHS's tolerance hid an overload.
        outcome = self._solve(_tightened(relaxed))
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
        if outcome.infeasible:
            self.refuted = self.best is not None
            return not self.refuted
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

    def _solve(
        self,
        problem: Problem,
        *,
        at_least_usd_per_hour: float = 0.0,
        at_most_usd_per_hour: float | None = None,
        linked: bool = True,
        **options: Any,
    ) -> ProgramResult:
        if self.deadline is not None:
            options["time_limit"] = max(1e-3, self.deadline - time.monotonic())
        return formulation.run(
            problem,
            options | {"mip_rel_gap": self.gap},
            at_least_usd_per_hour=at_least_usd_per_hour,
            at_most_usd_per_hour=at_most_usd_per_hour,
            linked=linked,
        )

    def _learn(self, outcome: ProgramResult) -> None:
        if not outcome.infeasible:
            self._raise_bound(outcome.bound_usd_per_hour, self.problem)
        self._keep(exact_fleet(self.problem, outcome))

    def _raise_bound(self, bound: float, problem: Problem) -> None:
        safe = self._safe(bound)
        if safe > self.bound:
            self.bound, self.trusted = safe, problem

    def _safe(self, bound: float) -> float:
        """HiGHS's bound less its tolerances, then up to the next cost that whole instances can have."""
        low = bound - BOUND_SLACK * max(abs(bound), self.problem.least_price_usd_per_hour)
        if self.step is None or not math.isfinite(low):
            return low
        return max(low, math.ceil(low * UNITS_PER_USD / self.step) * self.step / UNITS_PER_USD)

    def _keep(self, fleet: Fleet | None) -> None:
        if fleet is not None and (self.best is None or fleet.cost < self.best.cost):
            self.best = fleet

    def _proven(self) -> bool:
        return self.best is not None and self.best.cost - self.bound <= max(self.gap, ROUNDING) * self.best.cost

    def _over(self) -> bool:
        return self._proven() or (self.deadline is not None and time.monotonic() >= self.deadline)

    def solution(self) -> Solution:
        """The best fleet with its bound, and what is proven of it."""
        if self.best is None:
            return Solution(status=Status.UNKNOWN, bound_usd_per_hour=self.bound)
        cost, bound = self.best.cost, min(self.bound, self.best.cost)
        shares, late_shares = split_ways(self.problem, self.best.shares)
        return Solution(
            status=Status.OPTIMAL if self._proven() else Status.FEASIBLE,
            shares=shares,
            late_shares=late_shares,
            replicas=self.best.replicas,
            instances=self.best.instances,
            cost_usd_per_hour=cost,
            bound_usd_per_hour=bound,
            gap=(cost - bound) / cost if cost > 0 else 0.0,
        )


def _tightened(problem: Problem) -> Problem:
    """Loads larger by a hair, and as much less that may be late."""
    tight = problem.scaled(1 + HAIR)
    late = tight.lateness
    return tight if late is None else replace(tight, lateness=replace(late, at_most=late.at_most * (1 - HAIR)))


def _cost_step(problem: Problem) -> int | None:
    """In units of price, what every fleet's cost is a multiple of; None where that is no help."""
    with np.errstate(over="ignore"):
        units = problem.price_usd_per_hour * UNITS_PER_USD
    whole = np.rint(units)
    if not np.isfinite(units).all() or (np.abs(units - whole) > 1e-6).any():
        return None
    return math.gcd(*(int(unit) for unit in whole.tolist())) or None
