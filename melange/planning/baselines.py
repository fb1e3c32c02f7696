"""Baselines: the cheapest fleet of each GPU type alone, the yardstick of every saving."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from melange.arrays import BoolArray
from melange.plan.costs import Baseline
from melange.planning.assemble import counts
from melange.solver.allocation import LATE_ROOM
from melange.solver.problem import GroupLimit, Problem, Solution, Status
from melange.solver.search import solve, undercut


def single_type_baselines(
    problem: Problem,
    solution: Solution,
    instances_of: Mapping[str, set[str]],
    unmeasured: BoolArray,
    *,
    gap: float | None = None,
    time_limit_s: float | None = None,
) -> dict[str, Baseline]:
    """The cheapest fleet of each GPU type alone, within that type's own limits; budget and other floors left out.

    ``instances_of`` maps a GPU type to its instance keys. ``unmeasured``: (n_buckets, n_configs) of the problem, true
    where no rate is known, so that "cannot" and "not measured" are told apart. ``solution`` is what savings compare.
    """
    result = {}
    for gpu, keys in instances_of.items():
        own = tuple(limit for limit in problem.limits if set(limit.weights) & keys)
        alone = replace(problem, limits=own, max_cost_usd_per_hour=None).only_instances(keys)
        if alone is None:
            result[gpu] = Baseline(reason=f"no {gpu} config is profiled for this model")
            continue
        columns = np.array([c for c, name in enumerate(problem.configs) if name in alone.configs])
        stuck = np.flatnonzero(~np.isfinite(alone.load).any(axis=1))
        allowed = 0.0 if alone.lateness is None else alone.lateness.at_most + LATE_ROOM
        if alone.must_be_late > allowed:
            unknown = bool(unmeasured[np.ix_(stuck, columns)].any())
            result[gpu] = Baseline(reason=_stuck_reason([alone.buckets[b] for b in stuck], unknown))
        else:
            result[gpu] = _baseline(alone, solution.cost_usd_per_hour, gap, time_limit_s)
    return result


def undercut_by_baselines(
    problem: Problem,
    solution: Solution,
    baselines: Mapping[str, Baseline],
    *,
    gap: float | None = None,
    time_limit_s: float | None = None,
) -> Solution:
    """The solution, or a cheaper one where a GPU type alone shows that it is not the cheapest.

    A type alone may well be cheaper where the problem has floors or a budget that its baseline has not.
    """
    for baseline in baselines.values():
        usd, best, own = baseline.cost_usd_per_hour, solution.cost_usd_per_hour, baseline.replicas
        if own is not None and usd is not None and best is not None and usd < best:
            replicas = np.array([own.get(name, 0) for name in problem.configs])
            solution = undercut(problem, solution, replicas, gap=gap, time_limit_s=time_limit_s)
    return solution


def _baseline(
    alone: Problem, cost_usd_per_hour: float | None, gap: float | None, time_limit_s: float | None
) -> Baseline:
    best = solve(alone, gap=gap, time_limit_s=time_limit_s)
    if best.instances is None or best.replicas is None or best.cost_usd_per_hour is None:
        if best.status == Status.UNKNOWN:
            return Baseline(reason="the time limit passed before a fleet was found", proven=False)
        caps = ", ".join(_limit_text(limit) for limit in alone.limits)
        return Baseline(reason=f"the limits do not allow enough of it ({caps})")
    return Baseline(
        instances=counts(alone.instances, best.instances),
        replicas=counts(alone.configs, best.replicas),
        cost_usd_per_hour=best.cost_usd_per_hour,
        savings=savings_of(cost_usd_per_hour, best.cost_usd_per_hour),
        proven=best.status == Status.OPTIMAL,
    )


def savings_of(cost_usd_per_hour: float | None, baseline_usd_per_hour: float | None) -> float | None:
    """The share that a plan saves on a baseline; None where either has no cost, 0 on one that costs nothing as it."""
    if cost_usd_per_hour is None or baseline_usd_per_hour is None:
        return None
    if baseline_usd_per_hour == 0:
        return 0.0 if cost_usd_per_hour == 0 else None
    return 1 - cost_usd_per_hour / baseline_usd_per_hour


def _stuck_reason(labels: list[str], unmeasured: bool) -> str:
    names = ", ".join(labels[:4]) + (" ..." if len(labels) > 4 else "")
    return f"sizes not measured on it: {names}" if unmeasured else f"it cannot meet the SLO for sizes {names}"


def _limit_text(limit: GroupLimit) -> str:
    parts = [f"{limit.name} >= {limit.minimum}"] if limit.minimum else []
    parts += [f"{limit.name} <= {limit.maximum}"] if limit.maximum is not None else []
    return " and ".join(parts)
