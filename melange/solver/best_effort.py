"""Best effort: how much of the demand the limits can carry where they cannot carry all of it."""

from __future__ import annotations

from dataclasses import dataclass

from melange.solver.problem import Problem, Solution
from melange.solver.search import solve

ANY_PLAN_GAP = 0.99  # looking for any fleet at all: the first one found will do
RESOLUTION = 0.005
LEAST = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class BestEffort:
    """The share of the demand, every bucket scaled alike, that a fleet within the limits carries: and that fleet.

    No fleet carries ``share`` + RESOLUTION, unless time ran out where that was asked.
    """

    share: float
    solution: Solution


def best_effort(problem: Problem, *, time_limit_s: float | None = None) -> BestEffort | None:
    """The largest share of the demand that the limits carry, to RESOLUTION; None where they carry nothing.

    ``time_limit_s`` bounds each of some ten solves. Limits that exclude one another, or a bucket that nothing serves,
    leave nothing at any share.
    """
    found, low, high = _any_fleet(problem, LEAST, time_limit_s), LEAST, 1.0
    if found is None:
        return None
    while high - low > RESOLUTION:
        middle = (low + high) / 2
        tried = _any_fleet(problem, middle, time_limit_s)
        if tried is None:
            high = middle
        else:
            found, low = tried, middle
    return BestEffort(share=low, solution=found)


def _any_fleet(problem: Problem, share: float, time_limit_s: float | None) -> Solution | None:
    """A fleet that carries a share of the demand, None where none was found."""
    solution = solve(problem.scaled(share), gap=ANY_PLAN_GAP, time_limit_s=time_limit_s)
    return None if solution.instances is None else solution
