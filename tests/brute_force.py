"""Brute force for tiny fleet problems: every fleet in order of price, every way to cut its machines into replicas.

Shares no code with the solver. Continuous shares are decided by one small linear program per cut, slices by listing
every assignment.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from hypothesis import strategies as st
from scipy.optimize import linprog

from melange.solver.problem import GroupLimit, Lateness, Problem

ROOM = 1e-9


def fleets(problem: Problem) -> list[tuple[float, tuple[int, ...]]]:
    """(cost, instances) of every fleet within the limits that carries the load and wastes no whole box, cheapest first.

    The box holds, per type, what serving everything on each of its configs would take, and the floors on top.
    """
    floor = sum(limit.minimum for limit in problem.limits)
    ranges = []
    for i, gpus in enumerate(problem.gpus_per_instance.tolist()):
        need = 0
        for c in np.flatnonzero(problem.config_instance == i):
            most = max(_most_load(part, int(c)) for part in _periods(problem))
            need += int(problem.gpus_per_replica[c]) * math.ceil(most + 1e-6)
        ranges.append(range(math.ceil(need / gpus) + floor + 1))
    within = [
        (float(problem.price_usd_per_hour @ np.array(counts)), counts)
        for counts in itertools.product(*ranges)
        if _allowed(problem, counts)
    ]
    return sorted(within)


def _most_load(part: Problem, c: int) -> float:
    """What serving everything of a period on a config takes, in time or late, whichever is more."""
    columns = [part.load[:, c]] if part.lateness is None else [part.load[:, c], part.lateness.load[:, c]]
    return float(sum(np.where(np.isfinite(column), column, 0.0).sum() for column in columns))


def cheapest(problem: Problem) -> tuple[float, tuple[int, ...]] | None:
    """The cheapest fleet that works, or None."""
    return next((found for found in fleets(problem) if carries(problem, found[1])), None)


def minimal(problem: Problem, wanted: int) -> list[float]:
    """Costs of the cheapest fleets of which none contains another one that works."""
    kept: list[tuple[float, tuple[int, ...]]] = []
    for cost, counts in fleets(problem):
        contains = any(all(a <= b for a, b in zip(other, counts, strict=True)) for _, other in kept)
        if not contains and carries(problem, counts):
            kept.append((cost, counts))
            if len(kept) == wanted:
                break
    return [cost for cost, _ in kept]


def _periods(problem: Problem) -> list[Problem]:
    """The problem of each period alone."""
    return [
        replace(
            problem,
            buckets=tuple(
                name for name, during in zip(problem.buckets, problem.bucket_period, strict=True) if during == p
            ),
            load=problem.load[problem.bucket_period == p],
            lateness=_late_in(problem, p),
            period=None,
        )
        for p in sorted(set(problem.bucket_period.tolist()))
    ]


def _late_in(problem: Problem, period: int) -> Lateness | None:
    late, rows = problem.lateness, problem.bucket_period == period
    return None if late is None else Lateness(load=late.load[rows], weight=late.weight[rows], at_most=late.at_most)


def _allowed(problem: Problem, counts: tuple[int, ...]) -> bool:
    named = dict(zip(problem.instances, counts, strict=True))
    for limit in problem.limits:
        total = sum(weight * named[key] for key, weight in limit.weights.items())
        if total < limit.minimum or (limit.maximum is not None and total > limit.maximum):
            return False
    cost = float(problem.price_usd_per_hour @ np.array(counts))
    return problem.max_cost_usd_per_hour is None or cost <= problem.max_cost_usd_per_hour + 1e-9


def carries(problem: Problem, counts: tuple[int, ...]) -> bool:
    """Whether some cut of these machines into replicas carries every bucket of each period."""
    if problem.slice_factor is not None:
        capacity = problem.gpus_per_instance * np.array(counts)
        for several in itertools.product(*map(_slice_replicas, _periods(problem))):
            needed = np.max(several, axis=0)
            gpus = np.zeros(len(counts), dtype=int)
            np.add.at(gpus, problem.config_instance, problem.gpus_per_replica * needed)
            if (gpus <= capacity).all():
                return True
        return False
    parts = _periods(problem)
    return any(all(_shares_exist(part, replicas) for part in parts) for replicas in _cuts(problem, counts))


def _cuts(problem: Problem, counts: tuple[int, ...]) -> Iterator[np.ndarray]:
    per_config = [
        range(int(problem.gpus_per_instance[i] * counts[i] // problem.gpus_per_replica[c]) + 1)
        for c, i in enumerate(problem.config_instance.tolist())
    ]
    for replicas in itertools.product(*per_config):
        gpus = np.zeros(len(counts), dtype=int)
        np.add.at(gpus, problem.config_instance, problem.gpus_per_replica * np.array(replicas))
        idle = problem.gpus_per_instance * np.array(counts) - gpus
        # Idle room for one more replica: a larger cut does at least as much.
        if (idle >= 0).all() and not (idle[problem.config_instance] >= problem.gpus_per_replica).any():
            yield np.array(replicas)


def _ways(problem: Problem) -> list[tuple[int, int, float, float]]:
    """Every way to serve: bucket, config, the load of all of the bucket, the share of all requests that is late."""
    n_b, n_c = problem.load.shape
    cells = list(itertools.product(range(n_b), range(n_c)))
    found = [(b, c, float(problem.load[b, c]), 0.0) for b, c in cells]
    late = problem.lateness
    if late is not None:
        found += [(b, c, float(late.load[b, c]), float(late.weight[b, c])) for b, c in cells]
    return [way for way in found if math.isfinite(way[2])]


def _shares_exist(problem: Problem, replicas: np.ndarray) -> bool:
    n_b, n_c = problem.load.shape
    ways = _ways(problem)
    carried = np.zeros((n_c + 1, len(ways) + 1))
    served = np.zeros((n_b, len(ways) + 1))
    for x, (b, c, load, late) in enumerate(ways):
        carried[c, x], served[b, x], carried[n_c, x] = load, 1.0, late
    carried[:n_c, -1] = -1.0
    at_most = 0.0 if problem.lateness is None else problem.lateness.at_most
    answer = linprog(
        np.r_[np.zeros(len(ways)), 1.0],
        A_ub=carried,
        b_ub=np.r_[replicas, at_most],
        A_eq=served,
        b_eq=np.ones(n_b),
        bounds=(0, None),
    )
    return bool(answer.status == 0 and answer.fun <= 1e-8)


def _slice_replicas(problem: Problem) -> list[np.ndarray]:
    slices, found = problem.slice_factor or 1, set()
    at_most = 0.0 if problem.lateness is None else problem.lateness.at_most
    ways = [[way for way in _ways(problem) if way[0] == b] for b in range(len(problem.buckets))]
    choices = [list(itertools.combinations_with_replacement(own, slices)) for own in ways]
    for assignment in itertools.product(*choices):
        load, late = np.zeros(problem.load.shape[1]), 0.0
        for _, c, whole, weight in itertools.chain(*assignment):
            load[c] += whole / slices
            late += weight / slices
        if late <= at_most + ROOM:
            found.add(tuple(np.ceil(load - ROOM).astype(int).tolist()))
    return [np.array(needed) for needed in found]


@st.composite
def problems(
    draw: st.DrawFn, *, slices: bool = False, limits: bool = True, periods: bool = False, late: bool = False
) -> Problem:
    """Tiny problems: at most three buckets and configs, machines of one to four GPUs, gaps in who may serve what.

    With ``periods`` up to three of them, of one or two buckets each. ``late`` lets some requests of each be late, at
    loads that have nothing to do with those in time.
    """
    n_b, n_i = draw(st.integers(1, 2 if slices and late else 3)), draw(st.integers(1, 2))
    sizes = [draw(st.integers(1, 2)) for _ in range(draw(st.integers(2, 3)))] if periods else [n_b]
    n_b = sum(sizes)
    gpus = [draw(st.sampled_from([1, 1, 2, 4])) for _ in range(n_i)]
    configs = []
    for i in range(n_i):
        degrees = [d for d in (1, 2, 4) if d <= gpus[i]]
        chosen = draw(st.lists(st.sampled_from(degrees), min_size=1, max_size=2, unique=True))
        configs += [(i, tp) for tp in sorted(chosen)]
    # Multiples of 0.05 make sums that fill replicas exactly, where tolerances would show.
    loads = st.one_of(st.integers(1, 30).map(lambda k: k / 20), st.floats(0.01, 1.5), st.just(math.inf))
    load = np.array([[draw(loads) for _ in configs] for _ in range(n_b)])
    lateness = None
    if late:
        shares = [
            [part / sum(parts)]
            for parts in [[draw(st.integers(1, 9)) for _ in range(n)] for n in sizes]
            for part in parts
        ]
        lateness = Lateness(
            load=np.array([[draw(loads) for _ in configs] for _ in range(n_b)]),
            weight=np.repeat(shares, len(configs), axis=1),
            at_most=draw(st.sampled_from([0.0, 0.05, 0.2, 0.5])),
        )
    keys = tuple(f"i{i}" for i in range(n_i))
    bounds = []
    for key in keys if limits else ():
        if draw(st.booleans()):
            low = draw(st.integers(0, 1))
            bounds.append(GroupLimit(name=key, weights={key: 1}, minimum=low, maximum=low + draw(st.integers(0, 3))))
    return Problem(
        buckets=tuple(f"b{b}" for b in range(n_b)),
        configs=tuple(f"i{i}/tp{tp}" for i, tp in configs),
        instances=keys,
        load=load,
        config_instance=np.array([i for i, _ in configs]),
        gpus_per_replica=np.array([tp for _, tp in configs]),
        gpus_per_instance=np.array(gpus),
        price_usd_per_hour=np.array([draw(st.integers(4, 40)) / 8 * g for g in gpus]),
        limits=tuple(bounds),
        max_cost_usd_per_hour=draw(st.sampled_from([None, None, 6.0])) if limits else None,
        slice_factor=draw(st.integers(1, 2 if periods else 3)) if slices else None,
        period=np.repeat(np.arange(len(sizes)), sizes) if periods else None,
        lateness=lateness,
    )
