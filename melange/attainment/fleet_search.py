"""fleet_search: the cheapest fleet that passes, and which cheaper ones are ruled out.

Only three things rule a fleet out: it was simulated and failed, it is contained in a fleet that was simulated and
failed (that a larger fleet does at least as well is an assumption, which a spot check tries), or it cannot carry the
demand at the least time that requests take, so that its queue grows for ever. What the integer program believes under
the SLO is no bound where limits include waiting, and enters the order of simulation alone (see surrogate).

Every fleet below the best cost is contained in a maximal one, which could not hold one machine more: these are
simulated, the likeliest to pass first. One that passes is shrunk while it passes and confirmed, and the search goes on
below its cost, until nothing is left or the budget of simulated requests is spent.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melange.arrays import BoolArray, IntArray
from melange.attainment.fleets import Counts, allowed, dominates, fleet_cost, maximal_fleets
from melange.attainment.ground import Ground, describe
from melange.attainment.surrogate import MissModel
from melange.attainment.trial import TrialResult, Trials
from melange.errors import InfeasibleError
from melange.parallel import run
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.simulator.arrivals import Arrivals
from melange.solver.problem import Problem
from melange.solver.search import solve

Progress = Callable[[str], None]

MOST_MAXIMAL = 50_000
"""Maximal fleets that are listed; where there are more, the search looks around the best fleet and proves nothing."""
BATCH = 4
"""Fleets simulated side by side, whatever the number of jobs, so that the answer does not depend on it."""
HOPE = 1.5
"""Log miss ratio up to which a smaller fleet is worth a try when one that passed is shrunk."""
SCALES = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0, 1.15, 1.35, 1.7, 2.3, 3.5)
"""How many times over the integer program is asked to carry the demand, where it proposes fleets."""
PROPOSAL_GAP = 0.01
CARRIED = 1 - 1e-6
"""How many times over the demand must be carried: once, to the solver's rounding."""
WITHIN_REACH = 0.2
"""By how much a quick look may miss the target for other tensor-parallel degrees to be tried on the machines."""
SPOT_CHECKS = 3
NAMED = 5


@dataclass(slots=True, kw_only=True)
class FleetSearch:
    """The state of one search.

    ``arrivals`` are those of the first replication. ``failed`` fleets rule out what they contain; ``results`` are all
    that were simulated; ``overloaded`` cannot carry the demand and were not; ``undecided`` reached the target in the
    confirming test, but by too little to promise it, and rule out nothing. ``degrees``: of fleets that do better on
    replicas of one tensor-parallel degree than with the most slack, that degree. ``attempts`` counts the confirmations
    among which the test's error is divided. Once ``spent_requests`` reaches ``most_requests`` or as many as
    ``most_fleets`` were simulated, and some fleet is confirmed, nothing more is begun. ``not_ruled_out``: fleets below
    the best cost that nothing speaks against, cheapest first, once the search has ended.
    """

    ground: Ground
    trials: Trials
    arrivals: Arrivals
    model: MissModel
    progress: Progress
    most_requests: int
    most_fleets: int
    failed: list[Counts] = field(default_factory=list)
    results: dict[Counts, TrialResult] = field(default_factory=dict)
    attempts: int = 0
    spent_requests: int = 0
    cut_off: int = 0
    spot_checked: int = 0
    overloaded: set[Counts] = field(default_factory=set)
    undecided: list[Counts] = field(default_factory=list)
    degrees: dict[Counts, int] = field(default_factory=dict)
    complete: bool = False
    not_ruled_out: tuple[Counts, ...] = ()

    @property
    def problem(self) -> Problem:
        """Instances, prices and limits, and the loads under the SLO."""
        return self.ground.in_time

    @property
    def is_spent(self) -> bool:
        return self.spent_requests >= self.most_requests or len(self.results) >= self.most_fleets

    def cost(self, counts: Counts) -> float:
        """USD per hour."""
        return fleet_cost(self.problem, counts)

    def carries(self, counts: Counts) -> bool:
        """Whether a fleet carries the demand at all; one that does not is never simulated."""
        able = self.model.least.exact(np.array(counts, dtype=np.int64)) >= CARRIED
        if not able:
            self.overloaded.add(counts)
        return able

    def plan(self, counts: Counts, baselines: Mapping[str, Baseline] | None = None) -> Plan | None:
        """The plan under which a fleet is judged: with the most slack, or of the one degree that did better."""
        return self.ground.plan(counts, baselines, degree=self.degrees.get(counts))

    def screen(self, fleets: Sequence[Counts]) -> list[bool]:
        """Quick looks at fleets, side by side; those judged before keep their result, and what has no plan fails."""
        fresh = [counts for counts in dict.fromkeys(fleets) if counts not in self.results]
        plans = [(counts, self.ground.plan(counts)) for counts in fresh]
        played = [(counts, plan) for counts, plan in plans if plan is not None]
        self.overloaded |= {counts for counts, plan in plans if plan is None}
        options = self.trials.options
        alone = replace(self.trials, options=replace(options, jobs=1)) if len(played) > 1 else self.trials
        found = run(
            alone.screen, [(plan,) for _, plan in played], jobs=min(options.jobs, len(played) or 1), threads=True
        )
        for (counts, _), first in zip(played, found, strict=True):
            result = self._of_best_degree(counts, first)
            self._keep(counts, result, len_factor=1)
            self.model.observe(np.array(counts, dtype=np.int64), result.attainment)
        return [counts in self.results and self.results[counts].passed for counts in fleets]

    def _of_best_degree(self, counts: Counts, first: TrialResult) -> TrialResult:
        """A quick look, or that of the fleet on replicas of one degree, where it falls short by little and they do not.

        The most slack is by loads that add up, which waiting does not.
        """
        best = first
        if first.passed or first.attainment < self.trials.target - WITHIN_REACH:
            return best
        for degree in self.ground.other_degrees(counts):
            plan = self.ground.plan(counts, degree=degree)
            if plan is None:
                continue
            look = self.trials.screen(plan)
            self.spent_requests += look.replications * (self.trials.options.requests or 0)
            if look.attainment > best.attainment:
                best, self.degrees[counts] = look, degree
            if best.passed:
                break
        return best

    def confirm(self, counts: Counts) -> bool:
        """Put a fleet that passed its screening to the sequential test."""
        known = self.results.get(counts)
        if known is not None and known.low is not None:
            return known.passed
        plan = self.plan(counts)
        if plan is None:
            return False
        self.attempts += 1
        result = self.trials.confirm(plan, self.attempts)
        self._keep(counts, result, len_factor=2)
        return result.passed

    def _keep(self, counts: Counts, result: TrialResult, *, len_factor: int) -> None:
        self.results[counts] = result
        self.spent_requests += result.replications * len_factor * (self.trials.options.requests or 0)
        if result.undecided and result.low is not None:
            self.undecided.append(counts)
        elif not result.passed and not result.undecided:
            self.failed.append(counts)
        self.progress(f"{describe(self.problem, counts)}: {_judged(result)}, attainment {100 * result.attainment:.2f}%")


def _judged(result: TrialResult) -> str:
    if result.low is None:
        return "passes" if result.passed else "is near" if result.undecided else "fails"
    return "confirmed" if result.passed else "too near to promise" if result.undecided else "fails"


def cheapest(search: FleetSearch, best: Counts | None) -> Counts:
    """The cheapest fleet that passes, from one that does or from the program's proposals; says what is not ruled out.

    InfeasibleError where none does.
    """
    if best is None:
        best = first_passing(search)
    fleets, listed = _below(search, best)
    while len(pool := _left(search, fleets, best)) and not search.is_spent:
        usd = f"${search.cost(best):.2f}/h"
        search.progress(f"{len(pool)} largest fleets below {usd} to rule out" if listed else f"looking below {usd}")
        improved = _try_batch(search, pool)
        if improved is not None:
            best = improved
            fleets, listed = _below(search, best)
    near = _near_below(search, best)
    search.complete = listed and not len(pool) and not near
    pool_counts = {tuple(int(n) for n in row) for row in pool.tolist()}
    search.not_ruled_out = tuple(
        sorted({*near, *pool_counts}, key=lambda counts: (search.cost(counts), counts))[:NAMED]
    )
    return best


def first_passing(search: FleetSearch) -> Counts:
    """The cheapest of the program's proposals that passes; InfeasibleError where none does."""
    for counts in sorted(_proposals(search), key=lambda counts: (search.cost(counts), counts)):
        if any(dominates(failed, counts) for failed in search.failed) or not search.carries(counts):
            continue
        if search.screen([counts])[0] and search.confirm(counts):
            return counts
    reached = [result.attainment for result in search.results.values()]
    why = f"the best that was simulated reached {100 * max(reached):.2f}%" if reached else "none can carry the demand"
    raise InfeasibleError(f"no fleet within the limits was confirmed to attain {100 * search.trials.target:g}%: {why}")


def _proposals(search: FleetSearch) -> set[Counts]:
    """What the program rents to carry the demand several times over, under the SLO and half-way to the least."""
    found = set()
    for capacity in search.model.capacities[:2]:
        for scale in SCALES:
            scaled = replace(capacity.problem, load=capacity.problem.load * scale)
            solution = solve(scaled, gap=PROPOSAL_GAP)
            if solution.instances is None:
                break
            found.add(tuple(int(n) for n in solution.instances))
    return found


def _below(search: FleetSearch, best: Counts) -> tuple[IntArray, bool]:
    """(n_fleets, n_instances) maximal fleets below the best cost, and whether all are listed."""
    fleets = maximal_fleets(search.problem, search.cost(best), MOST_MAXIMAL)
    return (_around(search, best), False) if fleets is None else (fleets, True)


def _left(search: FleetSearch, fleets: IntArray, best: Counts) -> IntArray:
    """Those of the fleets that are not ruled out, and what is one machine less than one that is undecided.

    What passed a quick look and was not confirmed yet is not ruled out.
    """
    fleets = _with_smaller(search, fleets, best)
    fleets = fleets[~_contained(fleets, search.failed)]
    fleets = fleets[search.model.least.bound(fleets) >= CARRIED]
    overloaded = np.array([tuple(row) in search.overloaded for row in fleets.tolist()], dtype=bool)
    left: IntArray = fleets[~overloaded]
    return left


def _near_below(search: FleetSearch, best: Counts) -> list[Counts]:
    """The undecided fleets below the best cost."""
    return [counts for counts in search.undecided if search.cost(counts) < search.cost(best) * (1 - 1e-9)]


def _with_smaller(search: FleetSearch, fleets: IntArray, best: Counts) -> IntArray:
    """The fleets without undecided ones, and with what is one machine smaller than those: they rule out nothing."""
    near = _near_below(search, best)
    if not near:
        return fleets
    unit = np.eye(len(best), dtype=np.int64)
    rows = {tuple(row) for row in fleets.tolist()}
    rows |= {tuple((np.array(counts) - unit[i]).tolist()) for counts in near for i in np.flatnonzero(counts)}
    kept = sorted(row for row in rows - set(near) if any(row) and allowed(search.problem, row))
    return np.array(kept, dtype=np.int64).reshape(-1, len(best))


def _contained(fleets: IntArray, failed: Sequence[Counts]) -> BoolArray:
    """(n_fleets,) whether each is contained in a fleet that failed."""
    found = np.zeros(len(fleets), dtype=bool)
    for larger in failed:
        found |= (fleets <= np.array(larger)).all(axis=1)
    return found


def _around(search: FleetSearch, best: Counts) -> IntArray:
    """Fleets below the best cost that resemble it: up to two machines taken, up to two of one other type added."""
    problem, limit = search.problem, search.cost(best) * (1 - 1e-9)
    unit = np.eye(len(best), dtype=np.int64)
    smaller = {tuple(np.array(best) - unit[i]) for i in np.flatnonzero(best)}
    smaller |= {tuple(np.array(s) - unit[i]) for s in smaller for i in np.flatnonzero(s)}
    added = [np.zeros(len(best), dtype=np.int64), *unit, *(2 * unit)]
    tried = {tuple(int(n) for n in np.array(s) + more) for s in smaller for more in added}
    kept = sorted(c for c in tried if any(c) and search.cost(c) < limit and allowed(problem, c))
    return np.array(kept, dtype=np.int64).reshape(-1, len(best))


def _try_batch(search: FleetSearch, pool: IntArray) -> Counts | None:
    """Simulate the likeliest of the candidates; the cheapest that was confirmed, None where none was."""
    order = np.lexsort((pool @ search.problem.price_usd_per_hour, search.model.predict(pool)))
    batch: list[Counts] = []
    # What an overloaded fleet's prices teach rules out many others, so the pool is looked at anew after a few.
    for row in pool[order[: 8 * BATCH]].tolist():
        counts = tuple(int(n) for n in row)
        if search.carries(counts):
            batch.append(counts)
        if len(batch) == BATCH:
            break
    search.screen(batch)
    hopeful = [counts for counts in batch if (look := search.results.get(counts)) and (look.passed or look.undecided)]
    confirmed = [found for counts in hopeful if (found := _settled(search, counts)) is not None]
    return min(confirmed, key=lambda counts: (search.cost(counts), counts), default=None)


def _settled(search: FleetSearch, counts: Counts) -> Counts | None:
    """A fleet that passed its screening, or nearly, made as small as passes, and confirmed; None where nothing is."""
    chain = [counts]
    while not search.is_spent and (smaller := _smaller(search, chain[-1])) is not None:
        chain.append(smaller)
    return next((found for found in reversed(chain) if not search.is_spent and search.confirm(found)), None)


def _smaller(search: FleetSearch, counts: Counts) -> Counts | None:
    """The fleet less one machine, the dearest that can go, or None if it then fails."""
    unit = np.eye(len(counts), dtype=np.int64)
    rows = [np.array(counts) - unit[i] for i in np.argsort(-search.problem.price_usd_per_hour) if counts[i]]
    fleets = np.array([row for row in rows if row.any()], dtype=np.int64).reshape(-1, len(counts))
    hopeful = fleets[search.model.predict(fleets) <= HOPE] if len(fleets) else fleets
    for row in hopeful.tolist():
        smaller = tuple(int(n) for n in row)
        if any(dominates(failed, smaller) for failed in search.failed) or not allowed(search.problem, smaller):
            continue
        if search.carries(smaller) and search.screen([smaller])[0]:
            return smaller
    return None


def spot_check(search: FleetSearch, best: Counts) -> list[Counts]:
    """Simulate a few fleets below the best cost that a failing larger one rules out; counts them and what it rules out.

    Gives those that pass against the assumption. The search is then not complete.
    """
    draw = random.Random(search.trials.options.seed)
    unit = np.eye(len(search.problem.instances), dtype=np.int64)
    smaller = {
        tuple(int(n) for n in np.array(failed) - unit[i]) for failed in search.failed for i in np.flatnonzero(failed)
    }
    limit = search.cost(best) * (1 - 1e-9)
    fleets = sorted(
        counts
        for counts in smaller
        if any(counts) and search.cost(counts) < limit and allowed(search.problem, counts)
        and counts not in search.results and counts not in search.overloaded
    )  # fmt: skip
    search.cut_off = len(fleets)
    draw.shuffle(fleets)
    chosen = [counts for counts in fleets[: 4 * SPOT_CHECKS] if search.carries(counts)][:SPOT_CHECKS]
    looked = search.screen(chosen)
    search.spot_checked = len(chosen)
    passed = [counts for counts, good in zip(chosen, looked, strict=True) if good and search.confirm(counts)]
    search.complete = search.complete and not passed
    return passed
