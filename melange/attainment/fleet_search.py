"""fleet_search: fleets in order of cost, each planned for its own GPU types and judged by simulation.

Before a fleet is simulated, it is grown to a maximal one below the best cost so far: if even that fails, it and every
fleet it dominates are cut off together; if it passes, it is the new best. That a larger fleet does at least as well
under these policies is an assumption: some of those cut off are simulated after all, and the report says what they did.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from melange.attainment.fleets import Counts, arranged, dominates, fleet_cost, fleets_between, maximal
from melange.attainment.trial import TrialResult, Trials
from melange.catalog.instances import InstanceType
from melange.errors import InfeasibleError
from melange.plan.costs import Baseline
from melange.plan.plan import Plan
from melange.planning.assemble import plan_of
from melange.planning.case import Case, types_late
from melange.planning.choices import Choices
from melange.planning.late import Late
from melange.planning.options import SolveOptions
from melange.solver.problem import Problem, Solution, Status
from melange.solver.search import solve

Progress = Callable[[str], None]

HEADROOMS = (0.0, 0.1, 0.2, 0.3, 0.45, 0.65, 1.0, 1.5, 2.5, 4.0)
SPOT_CHECKS = 3


@dataclass(slots=True, kw_only=True)
class FleetSearch:
    """The state of one search.

    ``cases`` are the workload's by the buckets that they leave out as late, of which a fleet gets the one of the GPU
    types that it rents; they share ``choices`` and, in ``problem``, instances, prices and limits.
    ``attempts`` counts the confirmations among which the test's error is divided.
    """

    cases: Mapping[Late, Case]
    choices: Choices
    problem: Problem
    trials: Trials
    progress: Progress
    failed: list[Counts] = field(default_factory=list)
    verdicts: dict[Counts, TrialResult] = field(default_factory=dict)
    attempts: int = 0
    cut_off: list[Counts] = field(default_factory=list)
    overloaded: int = 0

    @property
    def offers(self) -> tuple[InstanceType, ...]:
        """What may be rented, in the order of a fleet's counts."""
        return self.choices.offers

    def case_for(self, gpus: Sequence[str]) -> Case | None:
        """The case with what none of these GPU types can serve in time left out; None where that is too much."""
        late = types_late(self.choices)
        return self.cases.get(frozenset.intersection(*(late[gpu] for gpu in gpus)))

    def plan(
        self, counts: Counts, bound_usd: float = 0.0, baselines: Mapping[str, Baseline] | None = None
    ) -> Plan | None:
        """The plan of instance counts with the shares of most slack; None where they cannot carry the mean load."""
        case = self.case_for([offer.gpu for offer, n in zip(self.offers, counts, strict=True) if n])
        if case is None:
            return None
        problem = case.problem
        found = arranged(problem, counts)
        if found is None:
            return None
        replicas, shares, _ = found
        cost = fleet_cost(problem, counts)
        gap = max(0.0, 1 - bound_usd / cost)
        solution = Solution(
            status=Status.OPTIMAL if gap <= 1e-9 else Status.FEASIBLE,
            shares=shares,
            replicas=replicas,
            instances=np.array(counts, dtype=np.int64),
            cost_usd_per_hour=cost,
            bound_usd_per_hour=bound_usd,
            gap=gap,
        )
        return plan_of(case, solution, baselines or {})

    def passes(self, counts: Counts, plan: Plan) -> bool:
        """Screen, then confirm, unless the fleet was judged before."""
        known = self.verdicts.get(counts)
        if known is not None:
            return known.passed
        verdict = self.trials.screen(plan)
        if verdict.passed:
            self.attempts += 1
            verdict = self.trials.confirm(plan, self.attempts)
        self.verdicts[counts] = verdict
        self.progress(f"{_describe(self.problem, counts)}: attainment {100 * verdict.attainment:.2f}%")
        return verdict.passed


def fleet_search(cases: Sequence[Case], trials: Trials, progress: Progress) -> FleetSearch:
    """A search over the fleets of a workload's cases, at least one, nothing judged yet; shares are continuous."""
    first = cases[0]
    return FleetSearch(
        cases={case.late: case for case in cases},
        choices=first.choices,
        problem=first.problem,
        trials=trials,
        progress=progress,
    )


def first_passing(search: FleetSearch) -> Counts:
    """A fleet that passes, to start from: the cheapest of those that the program gives with more and more headroom.

    It is asked for mixed fleets and for every instance type alone: the cheapest capacity may be too slow for a promise
    that a dearer GPU keeps with room to spare.
    """
    found: set[Counts] = set()
    for case in search.cases.values():
        found.update(_proposals(case.problem, search.choices.options))
    for counts in sorted(found, key=lambda counts: (fleet_cost(search.problem, counts), counts)):
        if any(dominates(f, counts) for f in search.failed):
            continue
        plan = search.plan(counts)
        if plan is None:
            continue
        if search.passes(counts, plan):
            return counts
        search.failed.append(counts)
    reached = max((v.attainment for v in search.verdicts.values()), default=0.0)
    raise InfeasibleError(
        f"no fleet within the limits was confirmed to attain {100 * search.trials.target:g}%: "
        f"the best that was simulated reached {100 * reached:.2f}%"
    )


def _proposals(problem: Problem, options: SolveOptions) -> set[Counts]:
    """Fleets for growing headrooms, of all types and of each alone."""
    alone = [problem.only_instances({key}) for key in problem.instances]
    found = set()
    for part in (problem, *(p for p in alone if p is not None and np.isfinite(p.load).any(axis=1).all())):
        for headroom in HEADROOMS:
            scaled = replace(part, load=part.load * (1 + headroom))
            solution = solve(scaled, gap=options.gap, time_limit_s=options.time_limit_s)
            if solution.instances is None:
                break
            found.add(widened(problem, part, solution))
    return found


def widened(whole: Problem, part: Problem, solution: Solution) -> Counts:
    """The instance counts of a solution for some instance types alone, in the order of all."""
    assert solution.instances is not None
    number = dict(zip(part.instances, solution.instances, strict=True))
    return tuple(int(number.get(key, 0)) for key in whole.instances)


def cheapest(search: FleetSearch, best: Counts, bound: float, max_fleets: int) -> tuple[Counts, bool]:
    """The cheapest fleet that passes, and whether all cheaper ones were ruled out."""
    problem = search.problem
    low = bound
    while True:
        cost = fleet_cost(problem, best)
        for counts in fleets_between(problem, low, cost):
            if any(dominates(f, counts) for f in search.failed):
                search.cut_off.append(counts)
                continue
            if len(search.verdicts) >= max_fleets:
                return best, False
            plan = search.plan(counts)
            if plan is None:
                search.overloaded += 1
                continue
            grown = maximal(problem, counts, cost)
            larger = search.plan(grown)
            if larger is None:
                # It rents a type for which what the smaller one may serve late is not late.
                grown, larger = counts, plan
            if search.passes(grown, larger):
                best, low = grown, fleet_cost(problem, counts)
                break
            search.failed.append(grown)
            if grown != counts:
                search.cut_off.append(counts)
        else:
            return best, True


def spot_check(search: FleetSearch) -> tuple[int, int]:
    """Simulate a few of the fleets that were cut off; (how many, how many pass against the assumption)."""
    draw = random.Random(search.trials.options.seed)
    distinct = sorted({counts for counts in search.cut_off if counts not in search.verdicts})
    draw.shuffle(distinct)
    checked, passed = 0, 0
    for counts in distinct:
        plan = search.plan(counts)
        if plan is None:
            continue
        verdict = search.trials.screen(plan)
        if verdict.passed:
            verdict = search.trials.confirm(plan, search.attempts + 1)
        checked += 1
        passed += verdict.passed
        if checked == SPOT_CHECKS:
            break
    return checked, passed


def _describe(problem: Problem, counts: Counts) -> str:
    return " + ".join(f"{n} x {key}" for key, n in zip(problem.instances, counts, strict=True) if n)
