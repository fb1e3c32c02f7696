"""single_types: every GPU type alone, sized to the promise that the mixed fleet keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import cache

import numpy as np

from melange.attainment.fleet_search import HEADROOMS, FleetSearch, widened
from melange.attainment.fleets import Counts, fleet_cost
from melange.attainment.promise import sized_fleet
from melange.attainment.trial import Trials
from melange.plan.plan import Plan
from melange.plan.promise import SizedFleet
from melange.simulator.metrics import lone_met
from melange.solver.problem import Problem
from melange.solver.search import solve

HEADROOM_STEP = 0.02
SIZES_TESTED = 12


def sized_types(search: FleetSearch, paper: Plan) -> dict[str, SizedFleet]:
    """Every GPU type alone, sized to the same promise: a search of its own, its test at the same error.

    A type's fleets leave out as late what that type cannot serve in time, as any fleet of it does.
    """
    result = {}
    for gpu in dict.fromkeys(offer.gpu for offer in search.offers):
        case = search.case_for([gpu])
        keys = {offer.key for offer in search.offers if offer.gpu == gpu}
        alone = None if case is None else _alone(case.problem, keys)
        if alone is None:
            result[gpu] = SizedFleet(reason="it cannot serve every size in time")
        elif (lone := lone_share(search.trials, paper, alone.configs)) < search.trials.target:
            result[gpu] = SizedFleet(
                reason=f"alone on an idle one, only {100 * lone:.2f}% of the requests keep the SLO"
            )
        else:
            reason = _try_sizes(replace(search, attempts=0), alone)
            result[gpu] = _cheapest_passed(search, keys) or SizedFleet(reason=reason)
    return result


def _cheapest_passed(search: FleetSearch, keys: set[str]) -> SizedFleet | None:
    """The cheapest fleet of these instance types alone that any test has found to keep the promise."""
    others = [i for i, key in enumerate(search.problem.instances) if key not in keys]
    passed = [counts for counts, v in search.verdicts.items() if v.passed and not any(counts[i] for i in others)]
    if not passed:
        return None
    best = min(passed, key=lambda counts: (fleet_cost(search.problem, counts), counts))
    plan = search.plan(best)
    return None if plan is None else sized_fleet(plan, search.verdicts[best])


def _alone(problem: Problem, keys: set[str]) -> Problem | None:
    """The problem with these instance types and their own limits alone; None where they cannot serve some size."""
    own = tuple(limit for limit in problem.limits if set(limit.weights) & keys)
    alone = replace(problem, limits=own, max_cost_usd_per_hour=None).only_instances(keys)
    return alone if alone is not None and np.isfinite(alone.load).any(axis=1).all() else None


def _try_sizes(search: FleetSearch, alone: Problem) -> str:
    """Judge fleets of one type around the smallest that passes; the reason if none does.

    Headroom is raised until a quick look expects the test to be passed, and the gap is halved. The fleet found is put
    to the test and shrunk while it passes, or grown until it does.
    """
    looks: dict[Counts, bool] = {}

    @cache
    def fleet(headroom: float) -> Counts | None:
        solution = solve(replace(alone, load=alone.load * (1 + headroom)))
        return None if solution.instances is None else widened(search.problem, alone, solution)

    def looks_good(headroom: float) -> bool:
        counts = fleet(headroom)
        if counts is not None and counts not in looks:
            plan = search.plan(counts)
            looks[counts] = plan is not None and search.trials.expects(plan)
        return counts is not None and looks[counts]

    low, high = 0.0, next((h for h in HEADROOMS if looks_good(h)), None)
    if high is None:
        return f"no fleet of it alone looked like keeping the promise with up to {HEADROOMS[-1]:g} times headroom"
    while fleet(low) != fleet(high) and high - low > HEADROOM_STEP:
        middle = (low + high) / 2
        low, high = (low, middle) if looks_good(middle) else (middle, high)
    _test_around(search, fleet, high)
    return "no fleet of it alone that looked good stood the test"


def _test_around(search: FleetSearch, fleet: Callable[[float], Counts | None], headroom: float) -> None:
    """Put the fleet of a headroom to the test, then smaller ones until one fails, or larger ones until one passes."""
    step = 0.0
    for _ in range(SIZES_TESTED):
        counts = fleet(headroom) if headroom >= 0 else None
        plan = None if counts is None else search.plan(counts)
        if counts is None or plan is None:
            return
        passed = search.passes(counts, plan)
        if step and passed == (step > 0):
            return
        step = step or (-HEADROOM_STEP if passed else HEADROOM_STEP)
        while headroom >= 0 and fleet(headroom) == counts:
            headroom += step


def lone_share(trials: Trials, plan: Plan, configs: Sequence[str]) -> float:
    """Share of requests that some of these configs keeps within the SLO when it is idle."""
    arrivals = trials.scenario(plan).arrivals(0)
    clocks = [trials.clocks[name].clock for name in configs]
    alone = [lone_met(clock, plan.slo, arrivals.input_tokens, arrivals.output_tokens) for clock in clocks]
    return float(np.any(alone, axis=0).mean())
