"""Shares for a fleet already chosen: fill its machines with replicas, then spread the load evenly over them.

Given replicas R, the shares minimise the highest utilisation t: sum_b load_bc x_bc <= t R_c. t <= 1 proves that the
fleet carries the workload, and the plan runs no config hotter than it must for the same money.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pulp

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.solver.highs import SILENT, run_program
from melange.solver.problem import Problem

DUST = 1e-9
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
    carried: FloatArray = problem.period_sums(np.where(shares > 0, problem.load, 0.0) * shares).max(axis=0)
    return carried


def clean_shares(problem: Problem, shares: FloatArray) -> FloatArray:
    """Shares without a solver's dust: none negative, none where a config may not serve, rows that sum to 1."""
    cleaned = np.where(np.isfinite(problem.load) & (shares > DUST), shares, 0.0)
    normal: FloatArray = cleaned / cleaned.sum(axis=1, keepdims=True)
    return normal


def whole_replicas(problem: Problem, shares: FloatArray) -> IntArray:
    """(n_configs,) the fewest whole replicas that carry the shares; one where there is any share, however light."""
    return np.maximum(np.ceil(loads(problem, shares) - DUST), (shares > 0).any(axis=0)).astype(np.int64)


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
    """Continuous shares (n_buckets, n_configs) with the least highest utilisation, or None if none exceeds no load.

    Every period has its own least.
    """
    usable = np.isfinite(problem.load) & (replicas > 0)
    if not usable.any(axis=1).all():
        return None
    return _each_period(
        problem,
        lambda part, rows: _minimax(part, replicas, usable[rows], np.zeros_like(part.load), slices=None),
    )


def _each_period(problem: Problem, shares_of: Callable[[Problem, BoolArray], FloatArray | None]) -> FloatArray | None:
    """Shares put together of those of each period alone, its problem and rows (n_buckets,) given; None if one is."""
    if problem.periods == 1:
        return shares_of(problem, np.ones(len(problem.buckets), dtype=bool))
    shares = np.zeros(problem.load.shape)
    for period in range(problem.periods):
        rows = problem.bucket_period == period
        found = shares_of(problem.of_periods([period]), rows)
        if found is None:
            return None
        shares[rows] = found
    return shares


def even_slices(problem: Problem, replicas: IntArray, slices: int, *, all_buckets: bool = False) -> FloatArray | None:
    """Shares in multiples of 1/``slices`` that the replicas carry, or None where this search finds none.

    A vertex of the continuous program splits few buckets: the others keep their whole slices, and only the split
    ones are decided anew, unless ``all_buckets`` are. None therefore proves nothing.
    """
    return _each_period(problem, lambda part, _: _even_slices(part, replicas, slices, all_buckets))


def _even_slices(problem: Problem, replicas: IntArray, slices: int, all_buckets: bool) -> FloatArray | None:
    """Those of a single period."""
    even = even_shares(problem, replicas)
    if even is None:
        return None
    counts = even * slices
    split = np.asarray((np.abs(counts - np.rint(counts)) > 1e-6).any(axis=1) | all_buckets)
    fixed = np.where(split[:, None], 0.0, np.rint(counts)) / slices
    usable = np.isfinite(problem.load) & (replicas > 0) & split[:, None]
    if split.any():
        found = _minimax(problem, replicas, usable, fixed, slices=slices)
        if found is None:
            return None
        fixed = fixed + found
    return fixed if (loads(problem, fixed) <= replicas + DUST).all() else None


def _minimax(
    problem: Problem, replicas: IntArray, usable: Any, fixed: FloatArray, *, slices: int | None
) -> FloatArray | None:
    """Shares of the usable pairs that minimise the highest utilisation beside the fixed ones' load; one period."""
    program = pulp.LpProblem("shares", pulp.LpMinimize)
    highest = program.add_variable("t", 0)
    program += highest
    unit = slices or 1
    kind = pulp.LpContinuous if slices is None else pulp.LpInteger
    pairs = np.argwhere(usable).tolist()
    variables = [program.add_variable(f"x_{b}_{c}", 0, unit, kind) for b, c in pairs]
    by_bucket: dict[int, list[tuple[Any, float]]] = {}
    by_config: dict[int, list[tuple[Any, float]]] = {c: [] for c in np.flatnonzero(replicas).tolist()}
    for (b, c), variable in zip(pairs, variables, strict=True):
        by_bucket.setdefault(b, []).append((variable, 1.0))
        by_config[c].append((variable, float(problem.load[b, c] / unit / replicas[c])))
    base = loads(problem, fixed)
    for terms in by_bucket.values():
        program += pulp.LpAffineExpression(terms) == unit
    for c, terms in by_config.items():
        program += pulp.LpAffineExpression([*terms, (highest, -1.0)]) <= -float(base[c] / replicas[c])
    options = SILENT if slices is None else {**SILENT, **FIRST_FIT}
    values = run_program(program, options).values
    if values is None:
        return None
    shares = np.zeros(problem.load.shape)
    for (b, c), variable in zip(pairs, variables, strict=True):
        shares[b, c] = values[variable.index]
    return shares if slices is None else np.rint(shares) / slices
