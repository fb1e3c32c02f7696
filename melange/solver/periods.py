"""Problems of many periods, solved by the few that bind.

A program of some of the periods is a relaxation of the program of all: its bound holds for all, and if its fleet
carries the others too, that fleet is as cheap as any. So the program starts with the heaviest period and takes in the
one that the fleet found carries worst, until it carries them all. What never enters does not bind: a period with no
more load in any bucket than another, or than a mixture of others, whose shares and load mix alike, and whatever else
the fleet carries anyway.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.solver import allocation
from melange.solver.fleet import one_config_fleet
from melange.solver.problem import Problem, Solution, Status, join_ways, split_ways


def joined(parts: Sequence[Problem], names: Sequence[str]) -> Problem:
    """The problem of several periods, in order; ``names`` tell their buckets apart, an empty one changes nothing.

    The parts differ in demand alone. Buckets without load in a part are left out of it; each must keep one.
    """
    rows = [np.flatnonzero((part.load > 0).any(axis=1)) for part in parts]
    first = parts[0]
    late = [part.lateness for part in parts]
    lateness = first.lateness
    if lateness is not None:
        kept = [(each, own) for each, own in zip(late, rows, strict=True) if each is not None]
        lateness = replace(
            lateness,
            load=np.vstack([each.load[own] for each, own in kept]),
            weight=np.vstack([each.weight[own] for each, own in kept]),
        )
    return replace(
        first,
        buckets=tuple(
            f"{part.buckets[b]} {name}".rstrip()
            for part, own, name in zip(parts, rows, names, strict=True)
            for b in own.tolist()
        ),
        load=np.vstack([part.load[own] for part, own in zip(parts, rows, strict=True)]),
        lateness=lateness,
        period=np.repeat(np.arange(len(parts)), [len(own) for own in rows]),
    )


def solved_by_few(problem: Problem, first: int, solve_part: Callable[[Problem], Solution]) -> Solution:
    """The solution of all periods by programs of some, beginning with the ``first`` one.

    ``solve_part`` solves the problem of some periods; where its time runs out without a plan, the solution is the
    cheapest fleet of one config, or ``unknown``.
    """
    chosen = [first]
    while True:
        found = solve_part(problem.of_periods(sorted(chosen)))
        if found.status == Status.INFEASIBLE:
            return found
        if found.replicas is None or found.shares is None:
            return _one_config(problem, found)
        ways, overload = _spread(problem, found.replicas, chosen)
        if max(overload) <= 0:
            kept = np.isin(problem.bucket_period, chosen)
            ways[kept] = join_ways(found.shares, found.late_shares)
            shares, late_shares = split_ways(problem, ways)
            return replace(found, shares=shares, late_shares=late_shares, binding=tuple(sorted(chosen)))
        chosen.append(int(np.argmax(overload)))


def _spread(problem: Problem, replicas: IntArray, chosen: list[int]) -> tuple[FloatArray, list[float]]:
    """Shares (n_buckets, n_ways) of the periods not chosen, and what each period's load exceeds a replica by.

    0 or less where the replicas carry it, infinity where they cannot serve it at all.
    """
    shares, overload = np.zeros(problem.way_load.shape), [0.0] * problem.periods
    for period in range(problem.periods):
        if period in chosen:
            continue
        part = problem.of_periods([period])
        even = (
            allocation.even_shares(part, replicas)
            if part.slice_factor is None
            else allocation.even_slices(part, replicas, part.slice_factor)
        )
        if even is None:
            overload[period] = math.inf
            continue
        even = allocation.clean_shares(part, even)
        excess = allocation.loads(part, even) - replicas
        overload[period] = float((excess / np.maximum(replicas, 1)).max()) if (excess > allocation.DUST).any() else 0.0
        shares[problem.bucket_period == period] = even
    return shares, overload


def _one_config(problem: Problem, found: Solution) -> Solution:
    """What is left when time runs out: a fleet of one config for all periods, under the bound that was found."""
    fleet = one_config_fleet(problem, math.inf)
    if fleet is None:
        return found
    shares, late_shares = split_ways(problem, fleet.shares)
    bound = min(found.bound_usd_per_hour or 0.0, fleet.cost)
    return Solution(
        status=Status.FEASIBLE,
        shares=shares,
        late_shares=late_shares,
        replicas=fleet.replicas,
        instances=fleet.instances,
        cost_usd_per_hour=fleet.cost,
        bound_usd_per_hour=bound,
        gap=(fleet.cost - bound) / fleet.cost if fleet.cost > 0 else 0.0,
        binding=tuple(range(problem.periods)),
    )
