"""The price of not knowing output lengths: what a router without an oracle costs, on the mean and in the tail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from melange.errors import InputError
from melange.plan.bucket import PlanBucket
from melange.plan.plan import Plan
from melange.routing.policy import policy_by_name
from melange.simulator.clocks import plan_clocks
from melange.simulator.metrics import Estimate
from melange.simulator.simulate import SimulationOptions, simulate
from melange.solver.allocation import loads
from melange.solver.problem import GroupLimit, Problem, Solution
from melange.solver.search import solve

if TYPE_CHECKING:
    from melange.traces import Trace


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthPrice:
    """Costs in USD per hour of the fleets for the mean load, and attainments of fleets under routers.

    ``by_size`` is the program that gives every (input, output) bucket its own shares, ``input_only`` the one that
    ties the outputs of an input bucket together, so that a router can follow it. ``attainment`` maps ``fleet/router``
    to a simulated attainment: both fleets, under routers that know output lengths (``oracle``) or do not.
    """

    by_size_usd_per_hour: float
    input_only_usd_per_hour: float
    by_size_replicas: Mapping[str, int]
    input_only_replicas: Mapping[str, int]
    attainment: Mapping[str, Estimate]

    @property
    def price_share(self) -> float:
        """Share by which the input-only fleet is dearer."""
        return self.input_only_usd_per_hour / self.by_size_usd_per_hour - 1.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {**asdict(self), "price_share": self.price_share}


def length_price(plan: Plan, trace: Trace | None = None, options: SimulationOptions | None = None) -> LengthPrice:
    """Solve the plan's own numbers both ways and simulate both fleets with and without knowledge of output lengths.

    The plan's rates, max rates, prices, headroom and limits are taken as they stand. InputError where no fleet can be
    routed by input alone (some config would have to serve a size that it cannot).
    """
    options = options or SimulationOptions()
    clocks = plan_clocks(plan)
    plans = {"by-size": _solved(plan, tied=False), "input-only": _solved(plan, tied=True)}
    attainment = {}
    for fleet, solved in plans.items():
        for router in ("oracle", "input-only"):
            chosen = replace(options, policy=policy_by_name(f"shares:{router}"))
            attainment[f"{fleet}/{router}"] = simulate(solved, trace, chosen, clocks=clocks).attainment
    return LengthPrice(
        by_size_usd_per_hour=float(plans["by-size"].cost_usd_per_hour or 0.0),
        input_only_usd_per_hour=float(plans["input-only"].cost_usd_per_hour or 0.0),
        by_size_replicas=dict(plans["by-size"].replicas),
        input_only_replicas=dict(plans["input-only"].replicas),
        attainment=attainment,
    )


def problem_of(plan: Plan, *, tied: bool) -> tuple[Problem, np.ndarray[Any, Any]]:
    """The program that a plan's own numbers make, and (n_buckets,) the row of each bucket.

    What the plan serves late by design stays on its configs, as a load that can go nowhere else; buckets of which
    nothing is in time have row -1.
    """
    configs = list(plan.configs.values())
    keys = tuple(dict.fromkeys(c.instance_key for c in configs))
    rate = np.array([[b.max_rate_rps.get(name) or 0.0 for name in plan.configs] for b in plan.buckets])
    margin = np.array([1.0 + c.headroom for c in configs])
    with np.errstate(divide="ignore"):
        load = np.array([b.rate_rps * _in_time(b) for b in plan.buckets])[:, None] * margin / rate
    groups: dict[Any, int] = {}
    row = np.full(len(plan.buckets), -1)
    for index, bucket in enumerate(plan.buckets):
        if bucket.shares:
            row[index] = groups.setdefault(bucket.input_tokens_max if tied else index, len(groups))
    rows = np.zeros((len(groups), len(configs)))
    np.add.at(rows, row[row >= 0], load[row >= 0])
    late = {name: _late_load(plan, name) for name in plan.configs}
    late = {name: amount for name, amount in late.items() if amount > 0}
    pinned = np.full((len(late), len(configs)), np.inf)
    for index, (name, amount) in enumerate(late.items()):
        pinned[index, list(plan.configs).index(name)] = amount
    first = {c.instance_key: c for c in reversed(configs)}
    problem = Problem(
        buckets=(*(str(key) for key in groups), *(f"late on {name}" for name in late)),
        configs=tuple(plan.configs),
        instances=keys,
        load=np.vstack([rows, pinned]),
        config_instance=np.array([keys.index(c.instance_key) for c in configs]),
        gpus_per_replica=np.array([c.tp for c in configs]),
        gpus_per_instance=np.array([first[key].gpus_per_instance for key in keys]),
        price_usd_per_hour=np.array([first[key].price_usd_per_hour for key in keys]),
        limits=_limits(plan),
    )
    return problem, row


def _in_time(bucket: PlanBucket) -> float:
    """The part of a bucket that the plan serves in time."""
    return sum(bucket.shares.values())


def _late_load(plan: Plan, config: str) -> float:
    """Replicas that what a config serves late keeps busy."""
    rates = [(b.rate_rps * b.late_shares.get(config, 0.0), b.late_rate_rps.get(config, 0.0)) for b in plan.buckets]
    return (1 + plan.configs[config].headroom) * sum(demand / rate for demand, rate in rates if rate > 0)


def _limits(plan: Plan) -> tuple[GroupLimit, ...]:
    found: dict[str, GroupLimit] = {}
    for limit in plan.limits:
        if limit.kind == "max_cost":
            continue
        weights = {c.instance_key: c.gpus_per_instance for c in plan.configs.values() if c.gpu == limit.name}
        weights = weights or {
            c.instance_key: 1 for c in plan.configs.values() if limit.name in (c.instance, c.instance_key)
        }
        old = found.get(limit.name, GroupLimit(name=limit.name, weights=weights))
        found[limit.name] = (
            replace(old, maximum=int(limit.value)) if limit.kind == "max" else replace(old, minimum=int(limit.value))
        )
    return tuple(found.values())


def _solved(plan: Plan, *, tied: bool) -> Plan:
    problem, row = problem_of(plan, tied=tied)
    solution = solve(problem)
    if solution.shares is None or solution.replicas is None or solution.instances is None:
        raise InputError(
            "no fleet within the plan's limits can be routed by input length alone"
            if tied
            else "the plan's own numbers admit no fleet",
            fix="allow a GPU that serves every output length",
        )
    return _with_solution(plan, problem, solution, row)


def _with_solution(plan: Plan, problem: Problem, solution: Solution, row: np.ndarray[Any, Any]) -> Plan:
    assert solution.shares is not None
    assert solution.replicas is not None
    assert solution.instances is not None
    buckets = [
        replace(
            bucket,
            shares={}
            if r < 0
            else {
                name: float(s) * _in_time(bucket)
                for name, s in zip(problem.configs, solution.shares[r], strict=True)
                if s > 0
            },
        )
        for bucket, r in zip(plan.buckets, row, strict=True)
    ]
    load = loads(problem, solution.shares)
    return replace(
        plan,
        status=solution.status,
        buckets=tuple(buckets),
        instances={k: int(n) for k, n in zip(problem.instances, solution.instances, strict=True) if n},
        replicas={k: int(n) for k, n in zip(problem.configs, solution.replicas, strict=True) if n},
        cost_usd_per_hour=solution.cost_usd_per_hour,
        utilization={
            name: float(load[c] / (1 + plan.configs[name].headroom) / solution.replicas[c])
            for c, name in enumerate(problem.configs)
            if solution.replicas[c]
        },
    )
