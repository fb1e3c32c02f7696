"""Ties in cost: the fleet with the most slack, or nearly as much and fewer kinds of replica.

A solution's machines are re-arranged (see :mod:`melange.solver.slack`), and so are the larger machines of the same
price per GPU that as many GPUs make up: whatever runs on the small ones runs on these, and more.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from melange.arrays import IntArray
from melange.solver.allocation import clean_shares, even_slices, loads
from melange.solver.checker import violations
from melange.solver.problem import Problem, Solution, join_ways, split_ways
from melange.solver.slack import ALIKE, most_slack

WORTH = 0.1
"""By how much, relatively, another kind of replica must bring down the highest utilisation to be worth running."""


def with_most_slack(problem: Problem, solution: Solution) -> Solution:
    """The solution, or one of the same cost with more slack, or nearly as much and fewer kinds of replica.

    Another kind of replica is another thing to run: it must bring the highest utilisation down by WORTH.

    Status, cost and bound stay. Of a solution in slices the replicas are re-arranged where slices fit them.
    """
    best = solution
    if solution.instances is None:
        return solution
    for instances in (solution.instances, *_merged(problem, solution.instances)):
        rival = _arranged(problem, solution, instances)
        if rival is not None and _better(problem, rival, best):
            best = rival
    return best


def _arranged(problem: Problem, solution: Solution, instances: IntArray) -> Solution | None:
    """The solution on these machines with the most slack; None where it would not hold."""
    found = most_slack(problem, instances, worth=WORTH)
    if found is None or not found.carries:
        return None
    shares, late_shares = found.shares, found.late_shares
    if problem.slice_factor is not None:
        sliced = even_slices(problem, found.replicas, problem.slice_factor)
        if sliced is None:
            return None
        shares, late_shares = split_ways(problem, clean_shares(problem, sliced))
    rival = replace(solution, instances=instances, replicas=found.replicas, shares=shares, late_shares=late_shares)
    return None if violations(problem, rival) else rival


def _better(problem: Problem, one: Solution, other: Solution) -> bool:
    """Whether one has less late, or then fewer kinds of replica or more slack, whichever WORTH says counts."""
    late, highest, kinds = _measures(problem, one)
    late_other, highest_other, kinds_other = _measures(problem, other)
    if abs(late - late_other) > ALIKE * max(late, late_other):
        return late < late_other
    if kinds < kinds_other:
        return highest * (1 - WORTH) <= highest_other
    if kinds > kinds_other:
        return highest < highest_other * (1 - WORTH)
    return highest < highest_other * (1 - ALIKE)


def _measures(problem: Problem, solution: Solution) -> tuple[float, float, int]:
    assert solution.shares is not None
    assert solution.replicas is not None
    used, ways = solution.replicas > 0, join_ways(solution.shares, solution.late_shares)
    highest = float((loads(problem, ways)[used] / solution.replicas[used]).max())
    return problem.late_share(solution.late_shares), highest, int(np.count_nonzero(used))


def _merged(problem: Problem, instances: IntArray) -> Iterator[IntArray]:
    """The machines with those of one price per GPU exchanged for as few as have as many GPUs, where there are some."""
    size = problem.gpus_per_instance
    each = problem.price_usd_per_hour / size
    merged = instances.copy()
    for price in sorted(set(each[instances > 0].tolist())):
        alike = np.flatnonzero(np.isclose(each, price, rtol=1e-9, atol=0.0))
        gpus = int(size[alike] @ merged[alike])
        merged[alike] = 0
        for i in sorted(alike.tolist(), key=lambda i: (-int(size[i]), i)):
            merged[i] = gpus // int(size[i])
            gpus -= int(size[i]) * int(merged[i])
        if gpus:
            return
    if (merged != instances).any():
        yield merged
