"""Fleets in order of cost: whole instances within a problem's limits, and which of them others rule out."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.solver.allocation import even_shares, fill_machines, loads
from melange.solver.problem import GroupLimit, Problem
from melange.solver.search import solve

Counts = tuple[int, ...]

WINDOW = 0.02
"""Fleets are listed a window of this relative width of cost at a time."""


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


def fleets_between(problem: Problem, low_usd: float, high_usd: float) -> Iterator[Counts]:
    """Allowed instance counts that cost at least ``low_usd`` and less than ``high_usd``, cheapest first.

    Fleets of equal cost come in descending order of the counts. The number of fleets grows with the power of the
    number of instance types: the caller bounds how many it takes.
    """
    prices = problem.price_usd_per_hour
    low = low_usd
    while low < high_usd:
        high = min(max(low * (1 + WINDOW), low + float(prices.min())), high_usd)
        found = sorted(_counts(prices, low, high), key=lambda c: (round(fleet_cost(problem, c), 9), [-n for n in c]))
        yield from (counts for counts in found if allowed(problem, counts))
        low = high


def _counts(prices: FloatArray, low: float, high: float) -> list[Counts]:
    """All counts with low <= cost < high, to a relative 1e-9."""
    floor, ceiling = low * (1 - 1e-9), high * (1 - 1e-9)
    order = np.argsort(-prices, kind="stable")
    result: list[Counts] = []

    def extend(depth: int, counts: list[int], spent: float) -> None:
        price = float(prices[order[depth]])
        most = int((ceiling - spent) / price)
        if depth == len(order) - 1:
            least = max(int(np.ceil((floor - spent) / price)), 0)
            for n in range(least, most + 1):
                if spent + n * price < ceiling:
                    done = np.zeros(len(order), dtype=int)
                    done[order] = [*counts, n]
                    result.append(tuple(done.tolist()))
            return
        for n in range(most + 1):
            extend(depth + 1, [*counts, n], spent + n * price)

    extend(0, [], 0.0)
    return result


def maximal(problem: Problem, counts: Counts, below_usd: float) -> Counts:
    """The fleet with as many further instances as a cost below ``below_usd`` and the limits allow.

    The dearest type that still fits is added first: one large GPU can do what several small ones of its cost cannot.
    """
    grown = list(counts)
    for index in np.argsort(-problem.price_usd_per_hour, kind="stable"):
        while True:
            grown[index] += 1
            if fleet_cost(problem, tuple(grown)) >= below_usd * (1 - 1e-9) or not allowed(problem, tuple(grown)):
                grown[index] -= 1
                break
    return tuple(grown)


def maximal_fleets(problem: Problem, below_usd: float, most: int) -> IntArray | None:
    """(n_fleets, n_instances) the allowed fleets that cost less than ``below_usd`` and could not hold one instance more.

    Every allowed fleet below that cost is contained in one of them, floors aside. None where there are more than
    ``most`` of them, or of the fleets passed on the way.
    """
    prices, count = problem.price_usd_per_hour, len(problem.instances)
    order = np.argsort(-prices, kind="stable")
    partial, spent = np.zeros((1, count), dtype=np.int64), np.zeros(1)
    ceiling = below_usd * (1 - 1e-9)
    for depth, i in enumerate(order.tolist()):
        room = _room(problem, i, partial, ceiling - spent)
        last = depth == count - 1
        repeats = np.ones(len(partial), dtype=np.int64) if last else room + 1
        if repeats.sum() > most:
            return None
        at = np.repeat(np.arange(len(partial)), repeats)
        added = room if last else np.arange(len(at)) - np.repeat(np.cumsum(repeats) - repeats, repeats)
        partial, spent = partial[at], spent[at] + added * prices[i]
        partial[:, i] = added
    grows = [_room(problem, i, partial, ceiling - spent) > 0 for i in range(count)]
    fleets = partial[~np.any(grows, axis=0) & (spent > 0)]
    return fleets[[allowed(problem, tuple(row)) for row in fleets.tolist()]]


def _room(problem: Problem, i: int, fleets: IntArray, left_usd: FloatArray) -> IntArray:
    """(n_fleets,) how many instances of type ``i`` each fleet can take more, within its money and the caps."""
    room = np.floor(left_usd / problem.price_usd_per_hour[i] - 1e-12).astype(np.int64).clip(0)
    key = problem.instances[i]
    for limit in problem.limits:
        if limit.maximum is not None and key in limit.weights:
            weights = np.array([limit.weights.get(name, 0) for name in problem.instances])
            room = np.minimum(room, (limit.maximum - fleets @ weights) // limit.weights[key])
    return room.clip(0)


def dominates(larger: Counts, smaller: Counts) -> bool:
    """Whether a fleet has at least as many of every instance type."""
    return all(a >= b for a, b in zip(larger, smaller, strict=True))


def arranged(problem: Problem, counts: Counts) -> tuple[IntArray, FloatArray, float] | None:
    """(replicas, shares, highest utilisation) of a fleet with the most slack, or None if it cannot carry the load.

    Where an instance type holds one config alone its replicas follow from the counts; else the integer program decides.
    """
    instances = np.array(counts, dtype=np.int64)
    held = np.bincount(problem.config_instance, minlength=len(counts))
    if (held <= 1).all():
        room = problem.gpus_per_instance[problem.config_instance] // problem.gpus_per_replica
        replicas = instances[problem.config_instance] * room
    else:
        fixed = tuple(
            GroupLimit(name=key, weights={key: 1}, minimum=n, maximum=n)
            for key, n in zip(problem.instances, counts, strict=True)
        )
        solution = solve(replace(problem, limits=fixed, max_cost_usd_per_hour=None))
        if solution.replicas is None or solution.shares is None:
            return None
        replicas = fill_machines(problem, solution.replicas, instances, solution.shares)
    shares = even_shares(problem, replicas)
    if shares is None:
        return None
    load = loads(problem, shares)
    highest = float((load[replicas > 0] / replicas[replicas > 0]).max())
    return (replicas, shares, highest) if highest <= 1 + 1e-9 else None
