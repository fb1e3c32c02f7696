"""Shares for a fleet already chosen: fill its machines with replicas, then spread the load evenly over them.

Given replicas R, the shares minimise the highest utilisation t: sum_b load_bc x_bc <= t R_c. t <= 1 proves that the
fleet carries the workload, and the plan runs no config hotter than it must for the same money. Where requests may be
late by design, as few are as these replicas need, and only then is the load spread: late is missed for certain, a
replica that is full is not.

Shares here are over the ways to serve a bucket (see ``Problem.way_load``): (n_buckets, n_ways), rows sum to 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pulp
from numpy.typing import NDArray

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.solver.highs import SILENT, run_program
from melange.solver.problem import Problem

DUST = 1e-9
# Share of all requests by which rounding may exceed what is allowed to be late.
LATE_ROOM = 1e-8
# A search for whole slices may stop at the first assignment that fits, and gives up where that takes long.
FIRST_FIT = {
    "objective_target": 1.0,
    "mip_max_nodes": 50,
    "mip_allow_restart": False,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
}


def loads(problem: Problem, shares: FloatArray) -> FloatArray:
    """(n_configs,) replicas that the shares keep busy, in the period in which they keep most of them busy."""
    carried = problem.period_sums(np.where(shares > 0, problem.way_load, 0.0) * shares)
    by_config: FloatArray = _by_config(problem, carried).sum(axis=1).max(axis=0)
    return by_config


def in_use(problem: Problem, shares: FloatArray) -> BoolArray:
    """(n_configs,) whether any share goes there, however small."""
    return np.asarray(_by_config(problem, shares > 0).any(axis=(0, 1)))


def late_share(problem: Problem, shares: FloatArray) -> float:
    """The share of all requests that is late by design, in the period in which most are."""
    return float(problem.period_sums((problem.way_weight * shares).sum(axis=1)).max())


def within_lateness(problem: Problem, shares: FloatArray) -> bool:
    """Whether no more is late by design than may be, to rounding."""
    return problem.lateness is None or late_share(problem, shares) <= problem.lateness.at_most + LATE_ROOM


def _by_config(problem: Problem, per_way: NDArray[Any]) -> NDArray[Any]:
    """(n, n_ways) -> (n, 1 or 2, n_configs): in time, and late where the problem has it."""
    return per_way.reshape(len(per_way), -1, len(problem.configs))


def clean_shares(problem: Problem, shares: FloatArray) -> FloatArray:
    """Shares without a solver's dust: none negative, none where a config may not serve, rows that sum to 1."""
    cleaned = np.where(np.isfinite(problem.way_load) & (shares > DUST), shares, 0.0)
    normal: FloatArray = cleaned / cleaned.sum(axis=1, keepdims=True)
    return normal


def whole_replicas(problem: Problem, shares: FloatArray) -> IntArray:
    """(n_configs,) the fewest whole replicas that carry the shares; one where there is any share, however light."""
    return np.maximum(np.ceil(loads(problem, shares) - DUST), in_use(problem, shares)).astype(np.int64)


def whole_instances(problem: Problem, replicas: IntArray) -> IntArray:
    """(n_instances,) the fewest instances whose GPUs hold the replicas."""
    gpus = np.zeros(len(problem.instances), dtype=np.int64)
    np.add.at(gpus, problem.config_instance, problem.gpus_per_replica * replicas)
    return -(-gpus // problem.gpus_per_instance)


def fill_machines(problem: Problem, replicas: IntArray, instances: IntArray, shares: FloatArray) -> IntArray:
    """The replicas plus as many as the rented GPUs left idle can hold, the busiest configs first."""
    filled = replicas.copy()
    busy = loads(problem, shares)
    for i, count in enumerate(instances.tolist()):
        on_it = np.flatnonzero(problem.config_instance == i)
        degrees = problem.gpus_per_replica[on_it]
        idle = int(count * problem.gpus_per_instance[i] - degrees @ filled[on_it])
        while on_it.size and idle >= degrees.min():
            fits = on_it[degrees <= idle]
            utilisation = busy[fits] / np.maximum(filled[fits], DUST)
            c = int(fits[np.argmax(utilisation)])
            more = idle // int(problem.gpus_per_replica[c]) if len(on_it) == 1 else 1
            filled[c] += more
            idle -= more * int(problem.gpus_per_replica[c])
    return filled


def even_shares(problem: Problem, replicas: IntArray) -> FloatArray | None:
    """Continuous shares with as few late as the replicas need, and then the least highest utilisation.

    That is above 1 where the replicas cannot carry the load. None where some bucket can be served by none of them, or
    only by more being late than may. Every period has its own fewest and least.
    """
    return _each_period(problem, lambda part: _even_shares(part, replicas))


def _even_shares(problem: Problem, replicas: IntArray) -> FloatArray | None:
    """Those of a single period."""
    usable = _usable(problem, replicas)
    n_c, nothing = len(problem.configs), np.zeros(usable.shape)
    in_time = usable.copy()
    in_time[:, n_c:] = False
    if in_time.any(axis=1).all():
        even = _minimax(problem, replicas, in_time, nothing, slices=None)
        if even is None or problem.lateness is None or (loads(problem, even) <= replicas + DUST).all():
            return even
    if problem.lateness is None or not usable.any(axis=1).all():
        return None
    fewest = _minimax(problem, replicas, usable, nothing, slices=None, fewest_late=True)
    if fewest is None:
        return _minimax(problem, replicas, usable, nothing, slices=None)
    even = _minimax(problem, replicas, usable, nothing, slices=None, most_late=late_share(problem, fewest))
    return fewest if even is None else even


def _each_period(problem: Problem, shares_of: Callable[[Problem], FloatArray | None]) -> FloatArray | None:
    """Shares put together of those of each period's problem alone; None where one has none."""
    if problem.periods == 1:
        return shares_of(problem)
    shares = np.zeros(problem.way_load.shape)
    for period in range(problem.periods):
        found = shares_of(problem.of_periods([period]))
        if found is None:
            return None
        shares[problem.bucket_period == period] = found
    return shares


def even_slices(problem: Problem, replicas: IntArray, slices: int, *, all_buckets: bool = False) -> FloatArray | None:
    """Shares in multiples of 1/``slices`` that the replicas carry, or None where this search finds none.

    A vertex of the continuous program splits few buckets: the others keep their whole slices, and only the split
    ones are decided anew, unless ``all_buckets`` are. None therefore proves nothing.
    """
    return _each_period(problem, lambda part: _even_slices(part, replicas, slices, all_buckets))


def _even_slices(problem: Problem, replicas: IntArray, slices: int, all_buckets: bool) -> FloatArray | None:
    """Those of a single period."""
    even = even_shares(problem, replicas)
    if even is None:
        return None
    counts = even * slices
    split = np.asarray((np.abs(counts - np.rint(counts)) > 1e-6).any(axis=1) | all_buckets)
    fixed = np.where(split[:, None], 0.0, np.rint(counts)) / slices
    usable = _usable(problem, replicas) & split[:, None]
    if split.any():
        found = _minimax(problem, replicas, usable, fixed, slices=slices)
        if found is None:
            return None
        fixed = fixed + found
    fits = (loads(problem, fixed) <= replicas + DUST).all() and within_lateness(problem, fixed)
    return fixed if fits else None


def _usable(problem: Problem, replicas: IntArray) -> BoolArray:
    """(n_buckets, n_ways) the ways that some replica serves."""
    return np.asarray(np.isfinite(problem.way_load) & (replicas > 0)[problem.way_config])


def _minimax(
    problem: Problem,
    replicas: IntArray,
    usable: BoolArray,
    fixed: FloatArray,
    *,
    slices: int | None,
    most_late: float | None = None,
    fewest_late: bool = False,
) -> FloatArray | None:
    """Shares of the usable pairs that minimise the highest utilisation beside the fixed ones' load; one period.

    At most ``most_late`` of the requests are late, None: as many as may. ``fewest_late`` minimises them instead, at a
    utilisation of at most 1.
    """
    program = pulp.LpProblem("shares", pulp.LpMinimize)
    highest = program.add_variable("t", 0, 1 if fewest_late else None)
    unit = slices or 1
    kind = pulp.LpContinuous if slices is None else pulp.LpInteger
    pairs = np.argwhere(usable).tolist()
    variables = [program.add_variable(f"x_{b}_{w}", 0, unit, kind) for b, w in pairs]
    load, weight, config = problem.way_load, problem.way_weight, problem.way_config
    by_bucket: dict[int, list[tuple[Any, float]]] = {}
    by_config: dict[int, list[tuple[Any, float]]] = {c: [] for c in np.flatnonzero(replicas).tolist()}
    late: list[tuple[Any, float]] = []
    # In units of what may be late, so that a solver's tolerance is one of that.
    allowed = 1.0 if problem.lateness is None else problem.lateness.at_most or 1.0
    for (b, w), variable in zip(pairs, variables, strict=True):
        by_bucket.setdefault(b, []).append((variable, 1.0))
        c = int(config[w])
        by_config[c].append((variable, float(load[b, w] / unit / replicas[c])))
        if weight[b, w] > 0:
            late.append((variable, float(weight[b, w] / unit / allowed)))
    program += pulp.LpAffineExpression(late) if fewest_late else highest
    base = loads(problem, fixed)
    for terms in by_bucket.values():
        program += pulp.LpAffineExpression(terms) == unit
    for c, terms in by_config.items():
        program += pulp.LpAffineExpression([*terms, (highest, -1.0)]) <= -float(base[c] / replicas[c])
    if late:
        most = allowed if most_late is None else most_late
        program += pulp.LpAffineExpression(late) <= (most - late_share(problem, fixed)) / allowed
    options = SILENT if slices is None else {**SILENT, **FIRST_FIT}
    values = run_program(program, options).values
    if values is None:
        return None
    shares = np.zeros(load.shape)
    for (b, w), variable in zip(pairs, variables, strict=True):
        shares[b, w] = values[variable.index]
    return shares if slices is None else np.rint(shares) / slices
