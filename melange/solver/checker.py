"""Re-verify a solution against its problem, in plain loops that share no code with the solver."""

from __future__ import annotations

import math

from melange.solver.problem import Problem, Solution, Status

TOLERANCE = 1e-9
LATE_TOLERANCE = 1e-8
COST_TOLERANCE = 1e-6


def violations(problem: Problem, solution: Solution) -> list[str]:
    """One sentence for each promise of the problem that the solution breaks; empty if it keeps them all.

    A solution without a plan (infeasible, unknown) has nothing to break, unless it carries a cost or half a plan.
    """
    parts = (solution.shares, solution.replicas, solution.instances, solution.cost_usd_per_hour)
    if solution.status in (Status.INFEASIBLE, Status.UNKNOWN):
        return [] if all(part is None for part in parts) else [f"status {solution.status} comes with a plan"]
    if any(part is None for part in parts):
        return [f"status {solution.status} comes without a whole plan"]
    shape = _shape_faults(problem, solution)
    if shape:
        return shape
    return [
        *_share_faults(problem, solution),
        *_late_faults(problem, solution),
        *_load_faults(problem, solution),
        *_machine_faults(problem, solution),
        *_limit_faults(problem, solution),
        *_cost_faults(problem, solution),
    ]


def _shape_faults(problem: Problem, solution: Solution) -> list[str]:
    assert solution.shares is not None
    assert solution.replicas is not None
    assert solution.instances is not None
    faults = []
    if solution.shares.shape != (len(problem.buckets), len(problem.configs)):
        faults.append(f"shares have shape {solution.shares.shape}")
    if (solution.late_shares is None) != (problem.lateness is None):
        faults.append("late shares come without lateness" if problem.lateness is None else "late shares are missing")
    elif solution.late_shares is not None and solution.late_shares.shape != solution.shares.shape:
        faults.append(f"late shares have shape {solution.late_shares.shape}")
    if solution.replicas.shape != (len(problem.configs),):
        faults.append(f"replicas have shape {solution.replicas.shape}")
    if solution.instances.shape != (len(problem.instances),):
        faults.append(f"instances have shape {solution.instances.shape}")
    return faults


def _served(problem: Problem, solution: Solution) -> list[tuple[int, int, float, float]]:
    """Every share that is not 0: its bucket, its config, how much, and the load that all of the bucket would be."""
    assert solution.shares is not None
    found = [(solution.shares.tolist(), problem.load.tolist())]
    if problem.lateness is not None and solution.late_shares is not None:
        found.append((solution.late_shares.tolist(), problem.lateness.load.tolist()))
    return [
        (b, c, share, load)
        for shares, loads in found
        for b, (row, load_row) in enumerate(zip(shares, loads, strict=True))
        for c, (share, load) in enumerate(zip(row, load_row, strict=True))
        if share != 0
    ]


def _share_faults(problem: Problem, solution: Solution) -> list[str]:
    faults = []
    sums: list[list[float]] = [[] for _ in problem.buckets]
    for b, c, share, load in _served(problem, solution):
        bucket, config = problem.buckets[b], problem.configs[c]
        sums[b].append(share)
        if not 0 <= share <= 1 + TOLERANCE:
            faults.append(f"bucket {bucket} sends a share of {share} to {config}")
        if share > 0 and math.isinf(load):
            faults.append(f"bucket {bucket} sends {share} to {config}, which may not serve it")
        if problem.slice_factor is not None:
            slices = share * problem.slice_factor
            if abs(slices - round(slices)) > TOLERANCE * problem.slice_factor:
                faults.append(f"bucket {bucket} sends {slices} slices to {config}")
    for bucket, shares in zip(problem.buckets, sums, strict=True):
        if abs(math.fsum(shares) - 1) > TOLERANCE:
            faults.append(f"shares of bucket {bucket} sum to {math.fsum(shares)}")
    return faults


def _late_faults(problem: Problem, solution: Solution) -> list[str]:
    if problem.lateness is None or solution.late_shares is None:
        return []
    late: dict[int, list[float]] = {}
    weights, shares = problem.lateness.weight.tolist(), solution.late_shares.tolist()
    for during, weight_row, share_row in zip(problem.bucket_period.tolist(), weights, shares, strict=True):
        terms = (weight * share for weight, share in zip(weight_row, share_row, strict=True))
        late.setdefault(during, []).extend(terms)
    at_most = problem.lateness.at_most
    return [
        f"{math.fsum(amounts)} of the requests are late by design, at most {at_most} may be"
        + ("" if len(late) == 1 else f" in period {during}")
        for during, amounts in sorted(late.items())
        if math.fsum(amounts) > at_most + LATE_TOLERANCE
    ]


def _load_faults(problem: Problem, solution: Solution) -> list[str]:
    assert solution.replicas is not None
    faults = []
    terms: list[dict[int, list[float]]] = [{} for _ in problem.configs]
    period = problem.bucket_period.tolist()
    for b, c, share, load in _served(problem, solution):
        if share > 0:
            terms[c].setdefault(period[b], []).append(share * load if math.isfinite(load) else 0.0)
    for config, carried, replicas in zip(problem.configs, terms, solution.replicas.tolist(), strict=True):
        for during, amounts in sorted(carried.items()):
            if math.fsum(amounts) > replicas + TOLERANCE * max(1.0, replicas):
                when = "" if len(set(period)) == 1 else f" in period {during}"
                faults.append(f"{config} carries a load of {math.fsum(amounts)} on {replicas} replicas{when}")
        if replicas == 0 and carried:
            faults.append(f"{config} is sent requests but has no replica")
        if replicas < 0:
            faults.append(f"{config} has {replicas} replicas")
    return faults


def _machine_faults(problem: Problem, solution: Solution) -> list[str]:
    assert solution.replicas is not None
    assert solution.instances is not None
    faults = []
    used = [0] * len(problem.instances)
    homes, degrees = problem.config_instance.tolist(), problem.gpus_per_replica.tolist()
    for home, degree, replicas in zip(homes, degrees, solution.replicas.tolist(), strict=True):
        used[home] += degree * replicas
    sizes = problem.gpus_per_instance.tolist()
    for instance, count, size, gpus in zip(problem.instances, solution.instances.tolist(), sizes, used, strict=True):
        if count < 0:
            faults.append(f"{count} instances of {instance}")
        if gpus > count * size:
            faults.append(f"replicas on {instance} use {gpus} GPUs, {count} instances have {count * size}")
    return faults


def _limit_faults(problem: Problem, solution: Solution) -> list[str]:
    assert solution.instances is not None
    faults = []
    counts = dict(zip(problem.instances, solution.instances.tolist(), strict=True))
    for limit in problem.limits:
        total = sum(weight * counts[key] for key, weight in limit.weights.items())
        if total < limit.minimum:
            faults.append(f"limit {limit.name}: {total} is below the minimum {limit.minimum}")
        if limit.maximum is not None and total > limit.maximum:
            faults.append(f"limit {limit.name}: {total} is above the maximum {limit.maximum}")
    return faults


def _cost_faults(problem: Problem, solution: Solution) -> list[str]:
    assert solution.instances is not None
    assert solution.cost_usd_per_hour is not None
    faults = []
    prices = problem.price_usd_per_hour.tolist()
    cost = math.fsum(p * n for p, n in zip(prices, solution.instances.tolist(), strict=True))
    if abs(cost - solution.cost_usd_per_hour) > COST_TOLERANCE * max(1.0, cost):
        faults.append(f"instances cost {cost} USD/h, the solution says {solution.cost_usd_per_hour}")
    if problem.max_cost_usd_per_hour is not None and cost > problem.max_cost_usd_per_hour * (1 + TOLERANCE):
        faults.append(f"cost {cost} USD/h is above the maximum {problem.max_cost_usd_per_hour}")
    bound, gap = solution.bound_usd_per_hour, solution.gap
    if bound is None or gap is None:
        return [*faults, "a plan comes without its bound and gap"]
    if bound > cost * (1 + TOLERANCE):
        faults.append(f"bound {bound} USD/h is above the cost {cost}")
    if cost > 0 and abs(gap - (cost - bound) / cost) > COST_TOLERANCE:
        faults.append(f"gap {gap} is not that of cost {cost} and bound {bound}")
    return faults
