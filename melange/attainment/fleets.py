"""Fleets: whole instances within a problem's limits, the largest of them below a cost, and which contain which."""

from __future__ import annotations

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.solver.problem import GroupLimit, Problem

Counts = tuple[int, ...]

MOST_FREE = 100_000
"""Machines that cost nothing and that no limit counts: no fleet takes more of them."""


def fleet_cost(problem: Problem, counts: Counts) -> float:
    """USD per hour of these instance counts, in the order of the problem's instances."""
    return float(problem.price_usd_per_hour @ np.array(counts, dtype=float))


def allowed(problem: Problem, counts: Counts) -> bool:
    """Whether instance counts keep the problem's limits and budget."""
    number = dict(zip(problem.instances, counts, strict=True))
    for limit in problem.limits:
        used = sum(weight * number[key] for key, weight in limit.weights.items())
        if used < limit.minimum or (limit.maximum is not None and used > limit.maximum):
            return False
    budget = problem.max_cost_usd_per_hour
    return budget is None or fleet_cost(problem, counts) <= budget * (1 + 1e-9)


def maximal_fleets(problem: Problem, below_usd: float, most: int) -> IntArray | None:
    """(n_fleets, n_instances) the allowed fleets below ``below_usd`` that could not hold one instance more.

    Every allowed fleet below that cost is contained in one of them. None where there are more than ``most`` of them,
    or of the fleets passed on the way.
    """
    prices, count = problem.price_usd_per_hour, len(problem.instances)
    order = np.argsort(-prices, kind="stable")
    partial, spent = np.zeros((1, count), dtype=np.int64), np.zeros(1)
    ceiling = below_usd * (1 - 1e-9)
    if problem.max_cost_usd_per_hour is not None:
        ceiling = min(ceiling, problem.max_cost_usd_per_hour * (1 + 1e-9))
    for depth, i in enumerate(order.tolist()):
        room = _room(problem, i, partial, ceiling - spent)
        # What is left alone by every other type's limits and costs nothing is taken whole.
        last = depth == count - 1 or (prices[i] == 0 and not _shares_limits(problem, i))
        repeats = np.ones(len(partial), dtype=np.int64) if last else room + 1
        if repeats.sum() > most:
            return None
        at = np.repeat(np.arange(len(partial)), repeats)
        added = room if last else np.arange(len(at)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        partial, spent = partial[at], spent[at] + added * prices[i]
        partial[:, i] = added
    grows = [_room(problem, i, partial, ceiling - spent) > 0 for i in range(count)]
    kept = ~np.any(grows, axis=0) & partial.any(axis=1) & (spent < below_usd)
    for limit in problem.limits:
        kept &= partial @ _weights(problem, limit) >= limit.minimum
    return np.asarray(partial[kept])


def _shares_limits(problem: Problem, i: int) -> bool:
    """Whether a limit counts an instance type together with others."""
    key = problem.instances[i]
    return any(len(limit.weights) > 1 and limit.weights.get(key) for limit in problem.limits)


def _room(problem: Problem, i: int, fleets: IntArray, left_usd: FloatArray) -> IntArray:
    """(n_fleets,) how many instances of type ``i`` each fleet can take more, within its money and the caps."""
    price = float(problem.price_usd_per_hour[i])
    if price == 0:
        room: IntArray = MOST_FREE - fleets[:, i]
    else:
        room = np.floor(left_usd / price - 1e-12).astype(np.int64).clip(0)
    for limit in problem.limits:
        weights = _weights(problem, limit)
        if limit.maximum is not None and weights[i] > 0:
            room = np.minimum(room, (limit.maximum - fleets @ weights) // weights[i])
    return np.asarray(room.clip(0))


def _weights(problem: Problem, limit: GroupLimit) -> IntArray:
    """(n_instances,) what an instance of each type counts under a limit."""
    return np.array([limit.weights.get(key, 0) for key in problem.instances], dtype=np.int64)


def dominates(larger: Counts, smaller: Counts) -> bool:
    """Whether a fleet has at least as many of every instance type."""
    return all(a >= b for a, b in zip(larger, smaller, strict=True))
