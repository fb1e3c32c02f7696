"""The integer program, written with PuLP and run by HiGHS in this process.

    minimise    sum_i price_i n_i
    subject to  sum_c x_bc + z_bc                              = 1              every bucket b
                sum_{b in t} load_bc x_bc + late_load_bc z_bc <= r_c            every config c, period t
                x_bc, z_bc                                    <= r_c            every config c, light bucket b, if asked
                sum_{b in t, c} weight_bc z_bc                <= at most        every period t, if any may be late
                sum_{c on i} tp_c r_c                         <= gpus_i n_i     every instance type i
                minimum <= sum_i w_i n_i                      <= maximum        every limit
                sum_i price_i n_i                             <= maximum cost
                x and z in [0, 1] (or multiples of 1/N), r and n whole

This is the Mélange paper's program (arXiv 2404.14527, section 5.3) with shares in place of binary slices, with
replicas that share machines, with periods whose shares are free while machines and replicas are common, and with z, the
requests that are late by design (see ``Problem.lateness``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pulp

from melange.arrays import BoolArray, FloatArray, IntArray
from melange.solver.highs import INTEGER_TOLERANCE, SILENT, run_program
from melange.solver.problem import Problem

# With continuous shares the tree is small and these heuristics cost more than they save (off, 0.1% takes half the
# time). Slices need them all, or where few pairs are left the two that search near the relaxation.
CONTINUOUS = {
    "mip_allow_restart": False,
    "mip_heuristic_run_feasibility_jump": False,
    "mip_heuristic_run_rens": False,
    "mip_heuristic_run_rins": False,
    "mip_heuristic_run_root_reduced_cost": False,
}
# Beyond this many pairs a hard relaxation makes some of them worth their time again.
LARGE_PAIRS = 4_000
LARGE = {**CONTINUOUS, "mip_heuristic_run_rens": True, "mip_heuristic_run_rins": True}
# A bucket is light if HiGHS's tolerance could hide this much of it on replicas that are not there.
HIDDEN = 0.1
NEAR_SLICES = {**CONTINUOUS, "mip_heuristic_run_rins": True, "mip_heuristic_run_root_reduced_cost": True}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ProgramResult:
    """What one run gave: ``infeasible`` is proven; ``shares`` (n_buckets, n_ways) and ``instances`` of the best point
    found, or None; ``bound_usd_per_hour`` is proven (-inf if there is none).
    """

    infeasible: bool
    bound_usd_per_hour: float
    shares: FloatArray | None = None
    instances: IntArray | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A PuLP model and its variables: ``shares[b, way]`` counts slices if the problem has them, else is a share."""

    program: pulp.LpProblem
    shares: dict[tuple[int, int], Any]
    replicas: list[Any]
    instances: list[Any]
    slices: int


def single_config(problem: Problem) -> dict[int, int]:
    """Configs alone on their instance type that fill it: config -> replicas an instance, so r needs no variable."""
    alone: dict[int, int] = {}
    for c, i in enumerate(problem.config_instance):
        per_instance, rest = divmod(int(problem.gpus_per_instance[i]), int(problem.gpus_per_replica[c]))
        if rest == 0 and int((problem.config_instance == i).sum()) == 1:
            alone[c] = per_instance
    return alone


def light_buckets(problem: Problem) -> BoolArray:
    """(n_buckets,) whose load is so little that HiGHS may think it carried where there is no replica."""
    with np.errstate(divide="ignore", over="ignore"):
        light: BoolArray = (INTEGER_TOLERANCE / problem.way_load).sum(axis=1) > HIDDEN
    return light


def build(problem: Problem, *, linked: bool = True) -> Model:
    """The program of the module's docstring for this problem; light buckets' own rows only if ``linked``."""
    program = pulp.LpProblem("fleet", pulp.LpMinimize)
    slices = problem.slice_factor or 1
    kind = pulp.LpContinuous if problem.slice_factor is None else pulp.LpInteger
    shares = {
        (b, w): program.add_variable(_name(problem, b, w), 0, slices, kind)
        for b, w in np.argwhere(np.isfinite(problem.way_load)).tolist()
    }
    instances = [program.add_variable(f"n_{i}", 0, None, pulp.LpInteger) for i in range(len(problem.instances))]
    alone = single_config(problem)
    replicas = [
        alone[c] * instances[int(problem.config_instance[c])]
        if c in alone
        else program.add_variable(f"r_{c}", 0, None, pulp.LpInteger)
        for c in range(len(problem.configs))
    ]
    model = Model(program, shares, replicas, instances, slices)
    program += _cost(problem, instances)
    _add_serving(model, problem, light_buckets(problem) & linked)
    _add_lateness(model, problem)
    _add_machines(model, problem, alone)
    _add_limits(model, problem)
    return model


def _name(problem: Problem, b: int, way: int) -> str:
    late, c = divmod(way, len(problem.configs))
    return f"{'z' if late else 'x'}_{b}_{c}"


def _cost(problem: Problem, instances: list[Any]) -> pulp.LpAffineExpression:
    return pulp.LpAffineExpression(list(zip(instances, problem.price_usd_per_hour.tolist(), strict=True)))


def _add_serving(model: Model, problem: Problem, light: BoolArray) -> None:
    program = model.program
    by_bucket: list[list[tuple[Any, float]]] = [[] for _ in problem.buckets]
    by_config: list[list[list[tuple[Any, float]]]] = [[[] for _ in problem.configs] for _ in range(problem.periods)]
    period, load, config = problem.bucket_period.tolist(), problem.way_load, problem.way_config.tolist()
    # A tolerance is absolute: rows are scaled so that it means the same for a config of a thousand replicas.
    heaviest = np.where(np.isfinite(load), load, 0.0).max(axis=0).reshape(-1, len(problem.configs)).max(axis=0)
    scale = np.maximum(heaviest, 1.0)
    for (b, w), variable in model.shares.items():
        c = config[w]
        by_bucket[b].append((variable, 1.0))
        by_config[period[b]][c].append((variable, float(load[b, w] / model.slices / scale[c])))
        if light[b]:
            program += (1 / model.slices) * variable - model.replicas[c] <= 0
    for terms in by_bucket:
        program += pulp.LpAffineExpression(terms) == model.slices
    for during in by_config:
        for c, terms in enumerate(during):
            program += pulp.LpAffineExpression(terms) - float(1 / scale[c]) * model.replicas[c] <= 0


def _add_lateness(model: Model, problem: Problem) -> None:
    if problem.lateness is None or problem.lateness.at_most == 0:
        return
    program, weight = model.program, problem.way_weight / problem.lateness.at_most
    late: list[list[tuple[Any, float]]] = [[] for _ in range(problem.periods)]
    period = problem.bucket_period.tolist()
    for (b, w), variable in model.shares.items():
        if weight[b, w] > 0:
            late[period[b]].append((variable, float(weight[b, w] / model.slices)))
    for terms in late:
        if terms:
            program += pulp.LpAffineExpression(terms) <= 1


def _add_machines(model: Model, problem: Problem, alone: dict[int, int]) -> None:
    program = model.program
    for i, instance in enumerate(model.instances):
        on_it = [c for c in np.flatnonzero(problem.config_instance == i).tolist() if c not in alone]
        if on_it:
            used = [(model.replicas[c], int(problem.gpus_per_replica[c])) for c in on_it]
            program += pulp.LpAffineExpression(used) <= int(problem.gpus_per_instance[i]) * instance


def _add_limits(model: Model, problem: Problem) -> None:
    program = model.program
    place = {key: i for i, key in enumerate(problem.instances)}
    for limit in problem.limits:
        total = pulp.LpAffineExpression([(model.instances[place[key]], w) for key, w in limit.weights.items()])
        program += total >= limit.minimum
        if limit.maximum is not None:
            program += total <= limit.maximum
    if problem.max_cost_usd_per_hour is not None:
        program += _cost(problem, model.instances) <= problem.max_cost_usd_per_hour


def run(
    problem: Problem,
    options: Mapping[str, Any],
    *,
    at_least_usd_per_hour: float = 0.0,
    at_most_usd_per_hour: float | None = None,
    linked: bool = True,
) -> ProgramResult:
    """Solve under HiGHS's ``options`` over the defaults; ``at_least`` is a bound already proven elsewhere.

    ``at_most`` looks for cheaper fleets only: "infeasible" then means that there is none. Without ``linked`` the bound
    holds as well, and the program is easier, but light buckets may be left without a replica.
    """
    model = build(problem, linked=linked)
    if at_most_usd_per_hour is not None:
        program = model.program
        # Divided by the right side, so that HiGHS's tolerance is one of the cost.
        program += (1 / at_most_usd_per_hour) * _cost(problem, model.instances) <= 1
    if at_least_usd_per_hour > 0:
        program = model.program
        # Rounding in the sum must not cut off a plan that costs exactly the bound.
        program += _cost(problem, model.instances) >= at_least_usd_per_hour * (1 - 1e-9)
    verdict = run_program(model.program, {**SILENT, **_heuristics(problem), **options})
    bound = max(verdict.bound, at_least_usd_per_hour)
    if verdict.values is None:
        return ProgramResult(infeasible=verdict.infeasible, bound_usd_per_hour=bound)
    return _outcome(model, problem, verdict.values, bound)


def _heuristics(problem: Problem) -> Mapping[str, Any]:
    if problem.slice_factor is not None:
        return {}
    return CONTINUOUS if np.isfinite(problem.way_load).sum() <= LARGE_PAIRS else LARGE


def _outcome(model: Model, problem: Problem, values: FloatArray, bound: float) -> ProgramResult:
    shares = np.zeros(problem.way_load.shape)
    for (b, w), variable in model.shares.items():
        shares[b, w] = values[variable.index]
    if problem.slice_factor is not None:
        shares = np.rint(shares)
    _settle_light(problem, shares, _replicas(model, problem, values) > 0.5)
    return ProgramResult(
        infeasible=False,
        bound_usd_per_hour=bound,
        shares=shares / model.slices,
        instances=np.rint([values[variable.index] for variable in model.instances]).astype(np.int64),
    )


def _replicas(model: Model, problem: Problem, values: FloatArray) -> FloatArray:
    """(n_configs,) the replicas of a point."""
    alone, homes = single_config(problem), problem.config_instance.tolist()
    return np.array(
        [
            alone[c] * values[model.instances[home].index] if c in alone else values[model.replicas[c].index]
            for c, home in enumerate(homes)
        ]
    )


def _settle_light(problem: Problem, shares: FloatArray, present: BoolArray) -> None:
    """Move what is left of light buckets on absent configs to the present one that it loads least, in place.

    In time where some present one serves it so.
    """
    load, there, late = problem.way_load, present[problem.way_config], problem.way_weight
    for b in np.flatnonzero(light_buckets(problem)).tolist():
        absent, able = (shares[b] > 0) & ~there, np.isfinite(load[b]) & there
        if absent.any() and able.any():
            best = min(np.flatnonzero(able).tolist(), key=lambda w: (late[b, w], load[b, w]))
            shares[b, best] += shares[b, absent].sum()
            shares[b, absent] = 0.0
