"""Replicas and shares for machines already chosen: the most slack, then the fewest kinds of replica.

Given n_i machines of each instance type, the highest utilisation is least where the demand that they carry is largest::

    maximise    s
    subject to  sum_c y_bc             = s                every bucket b
                sum_{b in t} load_bc y_bc <= r_c          every config c, period t
                sum_{c on i} tp_c r_c <= gpus_i n_i       every instance type i
                y >= 0, r whole

x = y / s are shares and 1 / s is the highest utilisation: a min-max over replicas and shares, made linear by scaling
the demand instead. Among replicas whose s is best, a second program takes those of the fewest configs.

Where requests may be late by design, machines that carry everything in time do so. Others take the fewest late requests
with which they carry the demand, as many as may be late where none suffice, and only then the most slack.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pulp

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.solver.allocation import clean_shares, even_shares, loads
from melange.solver.formulation import single_config
from melange.solver.highs import SILENT, run_program
from melange.solver.problem import Problem, split_ways

# Replicas are few, so either program ends soon; a limit in nodes, not seconds, gives every machine one answer.
NODES = 2_000
ALIKE = 1e-6
"""Relative difference of slack below which fewer kinds of replica count for more."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Arrangement:
    """What runs on given machines: ``replicas`` (n_configs,) and ``shares`` (n_buckets, n_configs), rows summing to 1.

    ``late_shares``: (n_buckets, n_configs) of what is late by design, to be added to them; None where nothing may be.
    ``highest`` is the highest utilisation of a config in use; above 1 the machines cannot carry the demand.
    """

    replicas: IntArray
    shares: FloatArray
    highest: float
    late_shares: FloatArray | None = None

    @property
    def carries(self) -> bool:
        """Whether the machines carry the demand, to rounding."""
        return self.highest <= 1 + 1e-9


def most_slack(problem: Problem, instances: IntArray, *, worth: float = ALIKE) -> Arrangement | None:
    """The replicas and continuous shares of these instance counts with the most slack, overloaded ones included.

    Of those within ``worth`` of it, relatively, the fewest kinds of replica: so much another kind must be worth.

    None where some bucket can be served by no config on the machines, or only by more being late than may. Limits,
    budget and slices are not looked at.
    """
    alone = single_config(problem)
    rented = instances[problem.config_instance] > 0
    if not (np.isfinite(problem.way_load) & rented[problem.way_config]).any(axis=1).all():
        return None
    if all(c in alone for c in np.flatnonzero(rented).tolist()):
        per_instance = np.array([alone.get(c, 0) for c in range(len(problem.configs))])
        replicas = instances[problem.config_instance] * per_instance
    else:
        found = _best_replicas(problem, instances, rented, worth)
        if found is None:
            return None
        replicas = found
    return arrangement(problem, replicas)


def arrangement(problem: Problem, replicas: IntArray) -> Arrangement | None:
    """These replicas with the continuous shares of most slack; None where some bucket can be served by none of them."""
    even = even_shares(problem, replicas)
    if even is None:
        return None
    ways = clean_shares(problem, even)
    used = replicas > 0
    highest = float((loads(problem, ways)[used] / replicas[used]).max())
    shares, late_shares = split_ways(problem, ways)
    return Arrangement(replicas=replicas, shares=shares, late_shares=late_shares, highest=highest)


def _best_replicas(problem: Problem, instances: IntArray, rented: BoolArray, worth: float) -> IntArray | None:
    """(n_configs,) whole replicas that fill the machines with the most slack, of the fewest configs among equals."""
    if problem.lateness is not None:
        in_time = replace(problem, lateness=None)
        punctual = _best_replicas(in_time, instances, rented, worth)
        found = None if punctual is None else arrangement(in_time, punctual)
        if found is not None and found.carries:
            return punctual
        problem = _fewest_late(problem, instances, rented)
    most = problem.gpus_per_instance * instances
    room = np.where(rented, most[problem.config_instance] // problem.gpus_per_replica, 0)
    first = _replicas(problem, most, room, at_least=None)
    if first is None:
        return None
    replicas, scale = first
    if np.count_nonzero(replicas) <= np.count_nonzero(instances):
        return replicas
    fewer = _replicas(problem, most, room, at_least=scale * (1 - worth))
    if fewer is None or np.count_nonzero(fewer[0]) >= np.count_nonzero(replicas):
        return replicas
    if worth <= ALIKE:
        return fewer[0]
    best = _replicas(problem, most, room, at_least=None, most_kinds=int(np.count_nonzero(fewer[0])))
    return fewer[0] if best is None else best[0]


def _fewest_late(problem: Problem, instances: IntArray, rented: BoolArray) -> Problem:
    """The problem with no more lateness allowed than the machines need to carry the demand; as it is if they cannot."""
    late = problem.lateness
    assert late is not None
    most = problem.gpus_per_instance * instances
    room = np.where(rented, most[problem.config_instance] // problem.gpus_per_replica, 0)
    found = _replicas(problem, most, room, at_least=1.0, fewest_late=True)
    if found is None or (needed := arrangement(problem, found[0])) is None or needed.late_shares is None:
        return problem
    share = problem.late_share(needed.late_shares)
    return replace(problem, lateness=replace(late, at_most=min(late.at_most, share * (1 + ALIKE))))


def _replicas(
    problem: Problem,
    gpus: IntArray,
    room: IntArray,
    *,
    at_least: float | None,
    fewest_late: bool = False,
    most_kinds: int | None = None,
) -> tuple[IntArray, float] | None:
    """Replicas and the scale of demand that they carry: the largest, or the fewest kinds at a scale of at least.

    ``fewest_late``: those with the fewest late requests at that scale instead. ``most_kinds`` bounds the kinds.
    """
    program = pulp.LpProblem("slack", pulp.LpMinimize)
    scale = program.add_variable("s", 0.0 if at_least is None else at_least, at_least if fewest_late else None)
    counts = {c: program.add_variable(f"r_{c}", 0, int(room[c]), pulp.LpInteger) for c in np.flatnonzero(room).tolist()}
    count_kinds = most_kinds is not None or (at_least is not None and not fewest_late)
    kinds = {c: program.add_variable(f"u_{c}", 0, 1, pulp.LpInteger) for c in counts} if count_kinds else {}
    late = _add_serving(program, problem, counts, scale)
    if fewest_late:
        program += pulp.LpAffineExpression(late)
    else:
        program += -scale if at_least is None else pulp.LpAffineExpression([(kind, 1.0) for kind in kinds.values()])
    for i in np.flatnonzero(gpus).tolist():
        used = [(counts[c], int(problem.gpus_per_replica[c])) for c in counts if problem.config_instance[c] == i]
        if used:
            program += pulp.LpAffineExpression(used) <= int(gpus[i])
    for c, kind in kinds.items():
        program += counts[c] - int(room[c]) * kind <= 0
    if most_kinds is not None:
        program += pulp.LpAffineExpression([(kind, 1.0) for kind in kinds.values()]) <= most_kinds
    values = run_program(program, {**SILENT, "mip_max_nodes": NODES}).values
    if values is None:
        return None
    replicas = np.zeros(len(problem.configs), dtype=np.int64)
    for c, variable in counts.items():
        replicas[c] = round(values[variable.index])
    return _filled(problem, gpus, replicas), float(values[scale.index])


def _add_serving(
    program: pulp.LpProblem, problem: Problem, counts: Mapping[int, Any], scale: Any
) -> list[tuple[Any, float]]:
    """Serve every bucket, as often as the scale says, on replicas that carry it; gives the terms of what is late.

    They are in units of what may be late, so that a solver's tolerance is one of that.
    """
    by_bucket: list[list[tuple[Any, float]]] = [[] for _ in problem.buckets]
    by_config: dict[tuple[int, int], list[tuple[Any, float]]] = {
        (during, c): [] for during in range(problem.periods) for c in counts
    }
    late: list[list[tuple[Any, float]]] = [[] for _ in range(problem.periods)]
    period = problem.bucket_period.tolist()
    allowed = 1.0 if problem.lateness is None else problem.lateness.at_most or 1.0
    load, weight, config = problem.way_load, problem.way_weight, problem.way_config.tolist()
    for b, w in np.argwhere(np.isfinite(load)).tolist():
        if config[w] in counts:
            served = program.add_variable(f"y_{b}_{w}", 0)
            by_bucket[b].append((served, 1.0))
            by_config[period[b], config[w]].append((served, float(load[b, w])))
            if weight[b, w] > 0:
                late[period[b]].append((served, float(weight[b, w] / allowed)))
    for terms in by_bucket:
        program += pulp.LpAffineExpression([*terms, (scale, -1.0)]) == 0
    for (_, c), terms in by_config.items():
        program += pulp.LpAffineExpression([*terms, (counts[c], -1.0)]) <= 0
    for terms in late:
        if terms:
            program += pulp.LpAffineExpression([*terms, (scale, -1.0)]) <= 0
    return [term for terms in late for term in terms]


def _filled(problem: Problem, gpus: IntArray, replicas: IntArray) -> IntArray:
    """The replicas and as many more of the configs in use as their machines' idle GPUs hold, the largest first."""
    filled = replicas.copy()
    for i in np.flatnonzero(gpus).tolist():
        on_it = np.flatnonzero((problem.config_instance == i) & (replicas > 0))
        idle = int(gpus[i] - problem.gpus_per_replica[on_it] @ filled[on_it])
        for c in sorted(on_it.tolist(), key=lambda c: (-int(problem.gpus_per_replica[c]), c)):
            more = idle // int(problem.gpus_per_replica[c])
            filled[c] += more
            idle -= more * int(problem.gpus_per_replica[c])
    return filled
