"""Why this fleet: what caps are worth, at what price unused types enter, the next-best fleets, or why there is none.

Everything comes from solving changed problems again. An integer program has no duals that could answer instead.
"""

from __future__ import annotations

import heapq
import itertools
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from melange.arrays import FloatArray
from melange.errors import InputError
from melange.solver.allocation import LATE_ROOM
from melange.solver.explanation import BreakEven, CapValue, Explanation, NextFleet
from melange.solver.problem import GroupLimit, Problem, Solution, Status
from melange.solver.search import default_gap, solve

# Looking for any plan at all: the first one found will do.
ANY_PLAN_GAP = 0.99
NAMED_BUCKETS = 5
NEXT_TO_NOTHING = 1e-6


def explain(
    problem: Problem,
    solution: Solution,
    *,
    gap: float | None = None,
    time_limit_s: float | None = None,
    fleets: int = 3,
) -> Explanation:
    """Explain a problem's solution by exact re-solving, each solve to ``gap`` (None: the default one).

    ``time_limit_s`` bounds each re-solve; ``fleets`` is how many next-best fleets to name. A solution without a plan
    is explained by its reasons. Raises InputError for a solution that time ran out on.
    """
    wanted = default_gap(problem) if gap is None else gap
    if solution.status == Status.INFEASIBLE:
        return Explanation(gap=wanted, reasons=infeasibility_reasons(problem, time_limit_s=time_limit_s))
    if solution.instances is None or solution.cost_usd_per_hour is None:
        raise InputError("there is no plan to explain", fix="give the solver more time")
    again = _Again(gap=wanted, time_limit_s=time_limit_s)
    return Explanation(
        gap=wanted,
        capped=tuple(
            _cap_value(problem, solution, index, again)
            for index, limit in enumerate(problem.limits)
            if limit.maximum is not None
        ),
        break_even=tuple(
            found
            for i in np.flatnonzero((solution.instances == 0) & ~problem.is_free).tolist()
            if (found := _break_even(problem, solution, i, again)) is not None
        ),
        next_best=_next_best(problem, solution, fleets, again),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Again:
    """How to solve again."""

    gap: float
    time_limit_s: float | None

    def __call__(self, problem: Problem) -> Solution:
        """The solution, or ``unknown`` where time ran out before it was proven to the gap."""
        found = solve(problem, gap=self.gap, time_limit_s=self.time_limit_s)
        if found.status == Status.FEASIBLE and self.gap < ANY_PLAN_GAP:
            return Solution(status=Status.UNKNOWN, bound_usd_per_hour=found.bound_usd_per_hour)
        return found


def _used(problem: Problem, solution: Solution, limit: GroupLimit) -> int:
    assert solution.instances is not None
    counts = dict(zip(problem.instances, solution.instances.tolist(), strict=True))
    return sum(weight * counts[key] for key, weight in limit.weights.items())


def _with_limit(problem: Problem, index: int, **changes: Any) -> Problem:
    limits = list(problem.limits)
    limits[index] = replace(limits[index], **changes)
    return replace(problem, limits=tuple(limits))


def _cap_value(problem: Problem, solution: Solution, index: int, again: _Again) -> CapValue:
    limit, cost = problem.limits[index], solution.cost_usd_per_hour
    assert limit.maximum is not None
    assert cost is not None
    more = again(_with_limit(problem, index, maximum=limit.maximum + 1)).cost_usd_per_hour
    used, fewer = _used(problem, solution, limit), None
    if used < limit.maximum:
        fewer = cost
    elif limit.maximum > limit.minimum:
        fewer = again(_with_limit(problem, index, maximum=limit.maximum - 1)).cost_usd_per_hour
    return CapValue(
        name=limit.name,
        maximum=limit.maximum,
        used=used,
        cost_usd_per_hour=cost,
        # Within the gap a re-solve may come out on the wrong side of the plan at hand, which stays allowed (or best).
        one_more_usd_per_hour=None if more is None else min(more, cost),
        one_fewer_usd_per_hour=None if fewer is None else max(fewer, cost),
    )


def _break_even(problem: Problem, solution: Solution, i: int, again: _Again) -> BreakEven | None:
    """Largest (cost - rest) / n over fleets with n >= 1 of type i whose other instances cost ``rest``.

    Dinkelbach's method: the fleet that is cheapest at one price gives the next, higher price, until none gains.
    None where time ran out.
    """
    key, today = problem.instances[i], float(problem.price_usd_per_hour[i])
    cost = solution.cost_usd_per_hour
    assert cost is not None
    joined = GroupLimit(name=f"at least one {key}", weights={key: 1}, minimum=1)
    # No fleet of interest costs more than today's, so the cost limit holds by itself.
    asked = replace(problem, limits=(*problem.limits, joined), max_cost_usd_per_hour=None)
    found = _join_ratio(asked, i, cost, today, again)
    if found is not None and found[0] <= 0:
        found = _join_ratio(asked, i, cost, NEXT_TO_NOTHING * today, again)
    best, count = found or (0.0, 1)
    while found is not None and best > 0:
        found = _join_ratio(asked, i, cost, best, again)
        if found is not None and found[0] <= best * (1 + 1e-9):
            break
        best, count = found or (best, count)
    if found is None:
        return None
    return BreakEven(
        instance=key,
        price_usd_per_hour=today,
        break_even_usd_per_hour=best if best > NEXT_TO_NOTHING * today else None,
        tolerance_usd_per_hour=again.gap * cost / count,
    )


def _join_ratio(problem: Problem, i: int, cost: float, price: float, again: _Again) -> tuple[float, int] | None:
    """(cost - rest) / n and n of the fleet that is cheapest when type i costs ``price``; 0 if there is none.

    None where time ran out before that was proven.
    """
    found = again(_repriced(problem, i, price))
    if found.status == Status.UNKNOWN:
        return None
    if found.instances is None or found.cost_usd_per_hour is None:
        return 0.0, 1
    n = int(found.instances[i])
    return (cost - (found.cost_usd_per_hour - price * n)) / n, n


def _repriced(problem: Problem, i: int, price_usd_per_hour: float) -> Problem:
    prices = problem.price_usd_per_hour.copy()
    prices[i] = price_usd_per_hour
    return replace(problem, price_usd_per_hour=prices)


def _next_best(problem: Problem, solution: Solution, wanted: int, again: _Again) -> tuple[NextFleet, ...]:
    """The fleets that do not contain a cheaper one, by splitting: fewer of one of the types that the best one uses."""
    assert solution.instances is not None
    best = solution.cost_usd_per_hour
    assert best is not None
    tie = itertools.count()
    seen = {tuple(solution.instances.tolist())}
    heap: list[tuple[float, int, tuple[int, ...], Problem]] = []
    _split(problem, tuple(solution.instances.tolist()), heap, tie, again)
    found: list[NextFleet] = []
    while heap and len(found) < wanted:
        cost, _, fleet, region = heapq.heappop(heap)
        if fleet not in seen:
            seen.add(fleet)
            named = {key: n for key, n in zip(problem.instances, fleet, strict=True) if n}
            found.append(
                NextFleet(instances=named, cost_usd_per_hour=cost, above_best=cost / best - 1 if best > 0 else None)
            )
        if len(found) < wanted:
            _split(region, fleet, heap, tie, again)
    return tuple(found)


def _split(
    region: Problem,
    fleet: tuple[int, ...],
    heap: list[tuple[float, int, tuple[int, ...], Problem]],
    tie: itertools.count[int],
    again: _Again,
) -> None:
    """Push the best fleet of every part of the region that has fewer of one type than ``fleet``."""
    for key, count in zip(region.instances, fleet, strict=True):
        if count == 0:
            continue
        fewer = GroupLimit(name=f"below {count} {key}", weights={key: 1}, maximum=count - 1)
        part = replace(region, limits=(*region.limits, fewer))
        answer = again(part)
        if answer.instances is not None and answer.cost_usd_per_hour is not None:
            counts = tuple(answer.instances.tolist())
            heapq.heappush(heap, (answer.cost_usd_per_hour, next(tie), counts, part))


def infeasibility_reasons(problem: Problem, *, time_limit_s: float | None = None) -> tuple[str, ...]:
    """Why no fleet exists, one sentence each: buckets, limits that exclude one another, the nearest change.

    The limits named are irreducible: without any one of them the others could be met (unless ``time_limit_s``, which
    bounds each re-solve, passed before that was proven). Empty for a problem that has a plan.
    """
    unserved = _named(problem, problem.way_load)
    if unserved:
        return (f"no config can serve {unserved}",)
    late = problem.lateness
    if late is not None and problem.must_be_late > late.at_most + LATE_ROOM:
        share, stuck = problem.must_be_late, _named(problem, problem.load)
        return (
            f"no config can serve {stuck} in time: {100 * share:.3g}% of the requests, where at most "
            f"{100 * late.at_most:.3g}% may be late by design",
        )
    again = _Again(gap=ANY_PLAN_GAP, time_limit_s=time_limit_s)
    reasons: list[str] = []
    remaining = problem
    while again(remaining).status == Status.INFEASIBLE:
        conflict = _conflict(remaining, again)
        if not conflict:
            return (*reasons, "no fleet carries the load, and no limit is to blame")
        kept = " and ".join(_described(problem, part) for part in conflict)
        reasons.append(f"the load cannot be met under {kept}")
        reasons += [text for part in conflict if (text := _nearest(problem, part, again)) is not None]
        for part in conflict:
            remaining = _without(remaining, part)
    if reasons and not any(text.startswith("nearest") for text in reasons):
        cost = solve(remaining, time_limit_s=time_limit_s).cost_usd_per_hour
        if cost is not None:
            reasons.append(f"nearest: no single change is enough; without all of these a fleet costs {cost:.2f} USD/h")
    return tuple(reasons)


def _named(problem: Problem, load: FloatArray) -> str:
    """``2 of 9 buckets: a, b``: those without a finite load (n_buckets, n), empty where there are none."""
    stuck = [name for name, row in zip(problem.buckets, load, strict=True) if not np.isfinite(row).any()]
    names = ", ".join(stuck[:NAMED_BUCKETS]) + (" ..." if len(stuck) > NAMED_BUCKETS else "")
    return f"{len(stuck)} of {len(problem.buckets)} buckets: {names}" if stuck else ""


# A part of a problem that can be dropped: (position of a limit or None for the cost limit, which side of it).
_Part = tuple[int | None, str]


def _parts(problem: Problem) -> list[_Part]:
    parts: list[_Part] = [] if problem.max_cost_usd_per_hour is None else [(None, "cost")]
    for index, limit in enumerate(problem.limits):
        parts += [(index, "maximum")] if limit.maximum is not None else []
        parts += [(index, "minimum")] if limit.minimum > 0 else []
    return parts


def _without(problem: Problem, part: _Part) -> Problem:
    index, side = part
    if index is None:
        return replace(problem, max_cost_usd_per_hour=None)
    return _with_limit(problem, index, **({"maximum": None} if side == "maximum" else {"minimum": 0}))


def _conflict(problem: Problem, again: _Again) -> list[_Part]:
    """Deletion filter: drop every part without which the rest stays infeasible; what stays is irreducible."""
    kept = []
    for part in _parts(problem):
        relaxed = _without(problem, part)
        if again(relaxed).status == Status.INFEASIBLE:
            problem = relaxed
        else:
            kept.append(part)
    return kept


def _described(problem: Problem, part: _Part) -> str:
    index, side = part
    if index is None:
        return f"a cost of at most {problem.max_cost_usd_per_hour:g} USD/h"
    limit = problem.limits[index]
    return f"{limit.name} <= {limit.maximum}" if side == "maximum" else f"{limit.name} >= {limit.minimum}"


def _nearest(problem: Problem, part: _Part, again: _Again) -> str | None:
    """The smallest change of this part alone that makes the whole problem feasible, or None if none does."""
    index, side = part
    free = _without(problem, part)
    if index is None:
        found = solve(free, time_limit_s=again.time_limit_s)
        if found.cost_usd_per_hour is None:
            return None
        up = "" if found.status == Status.OPTIMAL else "at most "
        return (
            f"nearest: allow {up}{_rounded_up(found.cost_usd_per_hour)} USD/h, which is what the cheapest fleet costs"
        )
    first = again(free)
    if first.instances is None:
        return None
    limit = problem.limits[index]
    used = _used(problem, first, limit)
    if side == "maximum":
        assert limit.maximum is not None
        value = _bisect(problem, index, side, infeasible=limit.maximum, feasible=used, again=again)
        return f"nearest: raise {limit.name} <= {limit.maximum} to {value}"
    value = _bisect(problem, index, side, infeasible=limit.minimum, feasible=used, again=again)
    return f"nearest: lower {limit.name} >= {limit.minimum} to {value}"


def _bisect(problem: Problem, index: int, side: str, *, infeasible: int, feasible: int, again: _Again) -> int:
    """The value of one side of a limit nearest to ``infeasible`` at which a plan exists."""
    while abs(feasible - infeasible) > 1:
        middle = (feasible + infeasible) // 2
        if again(_with_limit(problem, index, **{side: middle})).instances is None:
            infeasible = middle
        else:
            feasible = middle
    return feasible


def _rounded_up(usd_per_hour: float) -> str:
    return f"{np.ceil(usd_per_hour * 100 - 1e-6) / 100:.2f}"
