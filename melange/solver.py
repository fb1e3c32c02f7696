"""solve: the cheapest fleet for a problem, with a proven bound and an honest status."""

from __future__ import annotations

import math
import time

import numpy as np

from melange import formulation
from melange.errors import InputError
from melange.formulation import Outcome
from melange.problem import FloatArray, IntArray, Problem, Solution

SMALL_PROBLEM_SHARES = 100 * 8
SMALL_GAP = 1e-6
LARGE_GAP = 1e-3
LOAD_TOLERANCE = 1e-9


def default_gap(problem: Problem) -> float:
    """1e-6 up to 100 buckets x 8 configs (by their product), 1e-3 above."""
    return SMALL_GAP if problem.load.size <= SMALL_PROBLEM_SHARES else LARGE_GAP


def solve(problem: Problem, *, gap: float | None = None, time_limit_s: float | None = None) -> Solution:
    """The cheapest instances whose replicas carry every bucket, within the problem's limits.

    ``gap`` is relative: (cost - bound) / cost at which a plan counts as optimal; None takes ``default_gap``.
    ``time_limit_s`` None runs until that is proven. Raises InputError for a gap or time limit that is not one.
    """
    started = time.monotonic()
    wanted = default_gap(problem) if gap is None else gap
    if not (math.isfinite(wanted) and 0 <= wanted < 1):
        raise InputError(f"gap is {gap}", fix="give a fraction from 0 to below 1, such as 0.001")
    if time_limit_s is not None and not time_limit_s > 0:
        raise InputError(f"time limit is {time_limit_s} s", fix="give a positive number of seconds")
    if not np.isfinite(problem.load).any(axis=1).all():
        return Solution(status="infeasible", solve_s=time.monotonic() - started)
    outcome = formulation.run(formulation.build(problem), problem, gap=wanted, time_limit_s=time_limit_s)
    return _solution(problem, outcome, wanted, started)


def _solution(problem: Problem, outcome: Outcome, gap: float, started: float) -> Solution:
    bound = outcome.bound_usd_per_hour if math.isfinite(outcome.bound_usd_per_hour) else None
    if outcome.infeasible or outcome.shares is None:
        status = "infeasible" if outcome.infeasible else "unknown"
        return Solution(
            status=status,
            bound_usd_per_hour=None if outcome.infeasible else bound,
            solve_s=time.monotonic() - started,
        )
    shares = clean_shares(problem, outcome.shares)
    replicas = whole_replicas(problem, shares)
    instances = whole_instances(problem, replicas, outcome.instances)
    cost = float(problem.price_usd_per_hour @ instances)
    bound = 0.0 if bound is None else min(max(bound, 0.0), cost)
    true_gap = (cost - bound) / cost if cost > 0 else 0.0
    return Solution(
        status="optimal" if true_gap <= gap + 1e-12 else "feasible",
        shares=shares,
        replicas=replicas,
        instances=instances,
        cost_usd_per_hour=cost,
        bound_usd_per_hour=bound,
        gap=true_gap,
        solve_s=time.monotonic() - started,
    )


def clean_shares(problem: Problem, shares: FloatArray) -> FloatArray:
    """Shares without a solver's dust: none negative, none where a config may not serve, rows that sum to 1."""
    cleaned = np.where(np.isfinite(problem.load) & (shares > LOAD_TOLERANCE), shares, 0.0)
    return cleaned / cleaned.sum(axis=1, keepdims=True)


def loads(problem: Problem, shares: FloatArray) -> FloatArray:
    """(n_configs,) replicas that each config's shares keep busy."""
    carried = np.where(shares > 0, problem.load, 0.0) * shares
    return np.asarray(carried.sum(axis=0), dtype=np.float64)


def whole_replicas(problem: Problem, shares: FloatArray) -> IntArray:
    """(n_configs,) the fewest whole replicas that carry the shares."""
    return np.ceil(loads(problem, shares) - LOAD_TOLERANCE).astype(np.int64)


def whole_instances(problem: Problem, replicas: IntArray, at_least: IntArray | None) -> IntArray:
    """(n_instances,) the fewest instances that hold the replicas; ``at_least`` keeps those a floor asks for."""
    used = np.bincount(
        problem.config_instance, weights=problem.gpus_per_replica * replicas, minlength=len(problem.instances)
    )
    needed = -(-used.astype(np.int64) // problem.gpus_per_instance)
    return needed if at_least is None else np.maximum(needed, at_least)
