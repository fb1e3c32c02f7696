"""late: what serving some requests late by design saves a plan, and the sentence that tells it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from melange.plan.lateness import PlanLateness
from melange.plan.plan import Plan
from melange.planning.options import SolveOptions
from melange.solver.problem import Problem, Solution, Status
from melange.solver.search import solve

NAMED = 4


def against_in_time(
    problem: Problem, solution: Solution, options: SolveOptions
) -> tuple[Solution, PlanLateness | None]:
    """A solution, and beside it what the cheapest fleet that serves every request in time costs.

    Where a gap was left to prove, that one may turn out no dearer: then it is the solution. None where the SLO lets
    nothing be late, or there is no fleet.
    """
    if problem.lateness is None or solution.cost_usd_per_hour is None:
        return solution, None
    at_most, share = problem.lateness.at_most, problem.late_share(solution.late_shares)
    if share == 0:
        cost, status = solution.cost_usd_per_hour, solution.status
        return solution, PlanLateness(at_most=at_most, share=0.0, in_time_usd_per_hour=cost, in_time_status=status)
    in_time = solve(replace(problem, lateness=None), gap=options.gap, time_limit_s=options.time_limit_s)
    found = PlanLateness(
        at_most=at_most,
        share=share,
        in_time_usd_per_hour=in_time.cost_usd_per_hour,
        in_time_status=in_time.status,
    )
    if in_time.cost_usd_per_hour is None or in_time.cost_usd_per_hour > solution.cost_usd_per_hour + 1e-9:
        return solution, found
    return _punctual(in_time, solution), replace(found, share=0.0)


def _punctual(in_time: Solution, late: Solution) -> Solution:
    """A solution in time under the bound of the program that lets requests be late."""
    assert in_time.shares is not None
    cost = in_time.cost_usd_per_hour or 0.0
    bound = min(cost, late.bound_usd_per_hour or 0.0)
    gap = (cost - bound) / cost if cost > 0 else 0.0
    proven = Status.OPTIMAL if late.status == Status.OPTIMAL or gap == 0 else Status.FEASIBLE
    none = np.zeros_like(in_time.shares)
    return replace(in_time, late_shares=none, status=proven, bound_usd_per_hour=bound, gap=gap)


def with_lateness(plan: Plan, lateness: PlanLateness | None) -> Plan:
    """The plan with what is late by design, told among its warnings where something is."""
    plan = replace(plan, lateness=lateness)
    if lateness is None or lateness.share == 0:
        return plan
    return replace(plan, warnings=(*plan.warnings, _text(plan, lateness)))


def _text(plan: Plan, lateness: PlanLateness) -> str:
    rate = sum(bucket.rate_rps for bucket in plan.buckets)
    late = [
        (bucket.rate_rps / rate * sum(bucket.late_shares.values()), bucket)
        for bucket in plan.buckets
        if bucket.late_shares
    ]
    late.sort(key=lambda entry: -entry[0])
    names = [
        f"{_percent(sum(bucket.late_shares.values()))} of {bucket.label} on {' and '.join(bucket.late_shares)}"
        for _, bucket in late[:NAMED]
    ]
    names = names or ["in some windows only"]
    more = f" and of {len(late) - NAMED} sizes more" if len(late) > NAMED else ""
    cost, own = lateness.in_time_usd_per_hour, plan.cost_usd_per_hour or 0.0
    if cost is None and lateness.in_time_status == Status.INFEASIBLE:
        beside = "no fleet serves all in time"
    elif cost is None:
        beside = "time ran out before a fleet was found that serves all in time"
    else:
        more_by = f", {_percent(cost / own - 1)} more" if own > 0 else ""
        beside = f"all in time, the cheapest fleet found costs ${cost:.2f} per hour{more_by}"
    return (
        f"{_percent(lateness.share)} of the requests are late by design, of at most {_percent(lateness.at_most)} "
        f"({', '.join(names)}{more}): they are served without the limit and miss it; {beside}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g}%"
