"""Fleets that hold: whole machines, replicas and exact shares made of what HiGHS found, or of one config alone."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from melange.arrays import FloatArray, IntArray
from melange.solver import allocation
from melange.solver.formulation import ProgramResult
from melange.solver.problem import Problem


@dataclass(frozen=True, slots=True, eq=False)
class Fleet:
    """A plan that holds: whole instances, their replicas, clean shares (n_buckets, n_ways), the instances' cost."""

    instances: IntArray
    replicas: IntArray
    shares: FloatArray
    cost: float


def is_cheaper(usd_per_hour: float, than_usd_per_hour: float) -> bool:
    """By more than rounding; anything is cheaper than infinity."""
    return usd_per_hour < than_usd_per_hour and not math.isclose(usd_per_hour, than_usd_per_hour, rel_tol=1e-9)


def exact_fleet(problem: Problem, outcome: ProgramResult) -> Fleet | None:
    """The outcome's fleet with its shares made exact for the problem, or None if it cannot carry the load so."""
    if outcome.shares is None or outcome.instances is None:
        return None
    shares = allocation.clean_shares(problem, outcome.shares)
    replicas = allocation.whole_replicas(problem, shares)
    instances = _spare(problem, outcome.instances, allocation.whole_instances(problem, replicas))
    replicas = allocation.fill_machines(problem, replicas, instances, shares)
    if problem.slice_factor is None:
        even = allocation.even_shares(problem, replicas)
    else:
        even = allocation.even_slices(problem, replicas, problem.slice_factor)
        if even is None and _in_slices(shares, problem.slice_factor):
            even = np.rint(shares * problem.slice_factor) / problem.slice_factor
    shares = shares if even is None else allocation.clean_shares(problem, even)
    fits = (allocation.loads(problem, shares) <= replicas + allocation.DUST).all()
    fits &= not allocation.in_use(problem, shares)[replicas == 0].any()
    whole = problem.slice_factor is None or _in_slices(shares, problem.slice_factor)
    late = allocation.within_lateness(problem, shares)
    if not (fits and whole and late and _within_limits(problem, instances)):
        return None
    return Fleet(instances, replicas, shares, float(problem.price_usd_per_hour @ instances))


def one_config_fleet(problem: Problem, below_usd_per_hour: float) -> Fleet | None:
    """A fleet of one config that the limits allow and that costs less than this, the cheapest of them."""
    able = np.isfinite(problem.way_load)
    best = None
    for c in range(len(problem.configs)):
        shares = np.zeros(able.shape)
        shares[:, c] = able[:, c]
        for way in np.flatnonzero(problem.way_config == c)[1:].tolist():
            shares[:, way] = able[:, way] & ~able[:, c]
        if not (shares.sum(axis=1) == 1).all() or not allocation.within_lateness(problem, shares):
            continue
        replicas = allocation.whole_replicas(problem, shares)
        instances = allocation.whole_instances(problem, replicas)
        cost = float(problem.price_usd_per_hour @ instances)
        if is_cheaper(cost, below_usd_per_hour) and _within_limits(problem, instances):
            best, below_usd_per_hour = carried_by(problem, replicas), cost
    return best


def carried_by(problem: Problem, replicas: IntArray) -> Fleet | None:
    """A fleet of these replicas and as many more as the load takes on them, None where the limits forbid it."""
    even = allocation.even_shares(problem, replicas)
    if problem.slice_factor is not None:
        even = allocation.even_slices(problem, replicas, problem.slice_factor)
    if even is None:
        return None
    instances = allocation.whole_instances(problem, replicas)
    return exact_fleet(
        problem, ProgramResult(infeasible=False, bound_usd_per_hour=0.0, shares=even, instances=instances)
    )


def _spare(problem: Problem, instances: IntArray, needed: IntArray) -> IntArray:
    """The instances, at least the needed ones, without those that neither load nor limits ask for."""
    kept = np.maximum(instances, needed)
    for i in np.flatnonzero(kept > needed).tolist():
        fewer = kept.copy()
        fewer[i] = needed[i]
        if _within_limits(problem, fewer):
            kept = fewer
    return kept


def _in_slices(shares: FloatArray, slices: int) -> bool:
    return bool((np.abs(shares * slices - np.rint(shares * slices)) <= 1e-9 * slices).all())


def _within_limits(problem: Problem, instances: IntArray) -> bool:
    counts = dict(zip(problem.instances, instances.tolist(), strict=True))
    for limit in problem.limits:
        total = sum(weight * counts[key] for key, weight in limit.weights.items())
        if total < limit.minimum or (limit.maximum is not None and total > limit.maximum):
            return False
    cost = float(problem.price_usd_per_hour @ instances)
    return problem.max_cost_usd_per_hour is None or cost <= problem.max_cost_usd_per_hour * (1 + 1e-9)
