"""faults_of: what a plan says that cannot be so, by field, in plain loops that share no code with what makes plans.

Every command that reads a plan file asks it before the plan is used: a file may be edited, cut or written by others.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import NamedTuple

from melange.plan.config import PlanConfig
from melange.plan.costs import HOURS_PER_MONTH
from melange.plan.plan import Plan
from melange.solver.problem import Status
from melange.workload.bucket import Bucket

SHARE_TOLERANCE = 1e-6
LOAD_TOLERANCE = 1e-6
COST_TOLERANCE = 1e-6
MOST_REPLICAS = 100_000
"""Of a plan in all: far more than any fleet, and as many as every command still handles in seconds."""
MOST_HEADROOM = 1000.0
MOST_NUMBER = 1e15  # tokens, rates, prices: nobody means more, and arithmetic stays exact below


class Fault(NamedTuple):
    """A field, by its path in plan.json, and what is wrong with it."""

    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.field} {self.problem}"


def number_faults(value: object, path: str = "") -> Iterator[Fault]:
    """Numbers of a parsed record that are not finite or beyond :data:`MOST_NUMBER`, in file order."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from number_faults(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from number_faults(item, f"{path}[{i}]")
    elif isinstance(value, float) and not math.isfinite(value):
        yield Fault(path, "is NaN" if math.isnan(value) else "is infinite")
    elif isinstance(value, int | float) and abs(value) > MOST_NUMBER:
        shown = value if isinstance(value, float) else f"a number of {len(str(abs(value)))} digits"
        yield Fault(path, f"is {shown}, beyond any that is meant")


def faults_of(plan: Plan) -> Iterator[Fault]:
    """Faults of a plan whose fields have their types and whose numbers are finite, the most telling first."""
    yield from _status_faults(plan)
    yield from _range_faults(plan)
    yield from _negative_faults(plan)
    yield from _size_faults(plan)
    yield from _name_faults(plan)
    yield from _fleet_faults(plan)
    yield from _share_faults(plan)
    yield from _load_faults(plan)
    yield from _cost_faults(plan)


def _status_faults(plan: Plan) -> Iterator[Fault]:
    fleet = {"cost_usd_per_hour": plan.cost_usd_per_hour, "instances": plan.instances, "replicas": plan.replicas}
    if plan.status in (Status.INFEASIBLE, Status.UNKNOWN):
        for name, value in fleet.items():
            if value:
                yield Fault("status", f"is {plan.status}, but {name} tell of a fleet")
    elif plan.cost_usd_per_hour is None:
        yield Fault("status", f"is {plan.status}, but cost_usd_per_hour is null")
    elif not plan.replicas or not plan.instances:
        yield Fault("status", f"is {plan.status}, but {'instances' if plan.replicas else 'replicas'} are empty")


def _range_faults(plan: Plan) -> Iterator[Fault]:
    headrooms = {"headroom": plan.headroom} | {f"configs.{n}.headroom": c.headroom for n, c in plan.configs.items()}
    for path, headroom in headrooms.items():
        if not 0 <= headroom <= MOST_HEADROOM:
            yield Fault(path, f"is {headroom:g}, not from 0 to {MOST_HEADROOM:g}")
    if not plan.workload.rate_rps > 0:
        yield Fault("workload.rate_rps", f"is {plan.workload.rate_rps:g}, not above 0")
    for name, config in plan.configs.items():
        for field in ("tp", "gpus_per_instance"):
            if getattr(config, field) < 1:
                yield Fault(f"configs.{name}.{field}", f"is {getattr(config, field)}, not at least 1")
        if config.tp > config.gpus_per_instance:
            yield Fault(f"configs.{name}.tp", f"is {config.tp}, of an instance of {config.gpus_per_instance} GPUs")
        if config.price_usd_per_hour < 0:
            yield Fault(f"configs.{name}.price_usd_per_hour", f"is {config.price_usd_per_hour:g}, below 0")


def _negative_faults(plan: Plan) -> Iterator[Fault]:
    for i, bucket in enumerate(plan.buckets):
        for item in fields(Bucket):
            value = getattr(bucket, item.name)
            if value is not None and value < 0:
                yield Fault(f"buckets[{i}].{item.name}", f"is {value:g}, below 0")
    for name, used in plan.utilization.items():
        if used < 0:
            yield Fault(f"utilization.{name}", f"is {used:g}, below 0")


def _size_faults(plan: Plan) -> Iterator[Fault]:
    """Means of a bucket that its edges, or one another, contradict."""
    for i, bucket in enumerate(plan.buckets):
        for kind in ("input", "output"):
            mean, most = getattr(bucket, f"mean_{kind}_tokens"), getattr(bucket, f"{kind}_tokens_max")
            if mean is not None and most is not None and mean > most * (1 + SHARE_TOLERANCE):
                yield Fault(f"buckets[{i}].mean_{kind}_tokens", f"is {mean:g}, its {kind}_tokens_max is {most}")
        cached, mean = bucket.mean_cached_tokens, bucket.mean_input_tokens
        if cached is not None and mean is not None and cached > mean * (1 + SHARE_TOLERANCE):
            yield Fault(f"buckets[{i}].mean_cached_tokens", f"is {cached:g} of {mean:g} input tokens")


def _name_faults(plan: Plan) -> Iterator[Fault]:
    """Names that stand for nothing in the plan."""
    keys = {config.instance_key for config in plan.configs.values()}
    for name in plan.instances:
        if name not in keys:
            yield Fault(f"instances.{name}", "is no instance of its configs")
    by_config = {"replicas": plan.replicas, "utilization": plan.utilization}
    for i, bucket in enumerate(plan.buckets):
        for field in ("shares", "late_shares", "max_rate_rps", "late_rate_rps", "sources"):
            by_config[f"buckets[{i}].{field}"] = getattr(bucket, field)
    for path, held in by_config.items():
        for name in held:
            if name not in plan.configs:
                yield Fault(f"{path}.{name}", "is none of its configs")
    if plan.best_single_type is not None and plan.best_single_type not in plan.baselines:
        yield Fault("best_single_type", f"is {plan.best_single_type!r}, which is not among its baselines")


def _fleet_faults(plan: Plan) -> Iterator[Fault]:
    for path, counts in (("replicas", plan.replicas), ("instances", plan.instances)):
        for name, count in counts.items():
            if count < 1:
                yield Fault(f"{path}.{name}", f"is {count}, not at least 1")
    used: dict[str, int] = defaultdict(int)
    for name, count in plan.replicas.items():
        if name in plan.configs:
            used[plan.configs[name].instance_key] += count * plan.configs[name].tp
    sizes = {config.instance_key: config.gpus_per_instance for config in plan.configs.values()}
    for key, gpus in used.items():
        held = plan.instances.get(key, 0) * sizes[key]
        if gpus > held:
            names = [name for name in plan.replicas if plan.configs[name].instance_key == key]
            yield Fault(f"replicas.{names[0]}", f"take {gpus} GPUs of {key}, its instances hold {held}")
    total = sum(plan.replicas.values())
    if total > MOST_REPLICAS:
        yield Fault("replicas", f"are {total} in all, more than the {MOST_REPLICAS} that commands handle")


def _share_faults(plan: Plan) -> Iterator[Fault]:
    demand: list[float] = []
    for i, bucket in enumerate(plan.buckets):
        demand.append(bucket.rate_rps)
        parts = {"shares": bucket.shares, "late_shares": bucket.late_shares}
        for field, shares in parts.items():
            for name, share in shares.items():
                if not 0 <= share <= 1 + SHARE_TOLERANCE:
                    yield Fault(f"buckets[{i}].{field}.{name}", f"is {share:g}, not from 0 to 1")
        if any(bucket.late_shares.values()) and plan.lateness is None:
            yield Fault(f"buckets[{i}].late_shares", "are of a plan that lets none be late")
        total = math.fsum(share for shares in parts.values() for share in shares.values())
        if plan.solved and bucket.rate_rps > 0 and abs(total - 1) > SHARE_TOLERANCE:
            yield Fault(f"buckets[{i}].shares", f"sum to {total:.6g}, not to 1")
    if plan.buckets and abs(math.fsum(demand) - plan.workload.rate_rps) > SHARE_TOLERANCE * plan.workload.rate_rps:
        yield Fault(
            "buckets", f"hold {math.fsum(demand):.6g} requests/s, workload.rate_rps is {plan.workload.rate_rps:.6g}"
        )
    late = plan.lateness
    if late is not None and not (0 <= late.at_most <= 1 and 0 <= late.share <= late.at_most + SHARE_TOLERANCE):
        yield Fault("lateness.share", f"is {late.share:g}, at most {late.at_most:g} may be late")


def _load_faults(plan: Plan) -> Iterator[Fault]:
    """Shares on what cannot serve them, and loads that utilization or the replicas contradict."""
    terms: dict[str, list[float]] = defaultdict(list)
    for i, bucket in enumerate(plan.buckets):
        for field, rates in (("shares", bucket.max_rate_rps), ("late_shares", bucket.late_rate_rps)):
            for name, share in getattr(bucket, field).items():
                rate = rates.get(name)
                if bucket.rate_rps <= 0 or not share or name not in plan.configs:
                    continue
                if not rate or rate < 0:
                    yield Fault(
                        f"buckets[{i}].{field}.{name}", f"is {share:g} of a config that cannot serve the bucket"
                    )
                    continue
                if name not in plan.replicas:
                    yield Fault(f"buckets[{i}].{field}.{name}", f"is {share:g} of a config without replicas")
                terms[name].append(bucket.rate_rps * share / rate)
    for name, count in plan.replicas.items():
        used, told = math.fsum(terms[name]) / max(count, 1), plan.utilization.get(name)
        if told is not None and abs(used - told) > LOAD_TOLERANCE * max(1.0, used):
            yield Fault(f"utilization.{name}", f"is {told:.6g}, its shares and rates make it {used:.6g}")


def _cost_faults(plan: Plan) -> Iterator[Fault]:
    cost = plan.cost_usd_per_hour
    if cost is None:
        return
    prices = _prices(plan.configs)
    total = math.fsum(prices[key] * count for key, count in plan.instances.items() if key in prices)
    if abs(cost - total) > COST_TOLERANCE * max(1.0, total):
        yield Fault("cost_usd_per_hour", f"is {cost:.6g}, its instances cost {total:.6g}")
    if plan.costs is not None:
        told = {"usd_per_hour": cost, "usd_per_month": cost * HOURS_PER_MONTH}
        for name, value in told.items():
            stated = getattr(plan.costs, name)
            if abs(stated - value) > COST_TOLERANCE * max(1.0, value):
                yield Fault(f"costs.{name}", f"is {stated:.6g}, cost_usd_per_hour makes it {value:.6g}")
    bound, gap = plan.bound_usd_per_hour, plan.gap
    if bound is not None and bound > cost * (1 + COST_TOLERANCE):
        yield Fault("bound_usd_per_hour", f"is {bound:.6g}, above the cost of {cost:.6g}")
    if bound is not None and gap is not None and abs(gap * cost - (cost - bound)) > COST_TOLERANCE * max(1.0, cost):
        yield Fault("gap", f"is {gap:.6g}, cost and bound make it {(cost - bound) / cost if cost else 0:.6g}")
    if plan.costs is not None and abs(plan.costs.usd_per_hour - cost) > COST_TOLERANCE * max(1.0, cost):
        yield Fault("costs.usd_per_hour", f"is {plan.costs.usd_per_hour:.6g}, the cost is {cost:.6g}")
    for name, alone in plan.baselines.items():
        if alone.savings is not None and alone.cost_usd_per_hour:
            saved = 1 - cost / alone.cost_usd_per_hour
            if abs(alone.savings - saved) > COST_TOLERANCE * max(1.0, abs(saved)):
                yield Fault(f"baselines.{name}.savings", f"is {alone.savings:.6g}, the costs make it {saved:.6g}")


def _prices(configs: Mapping[str, PlanConfig]) -> dict[str, float]:
    return {config.instance_key: config.price_usd_per_hour for config in configs.values()}
