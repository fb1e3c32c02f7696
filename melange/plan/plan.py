"""Plan: the answer to a workload, self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from melange.capacity.basis import Basis
from melange.errors import InputError
from melange.plan.advice import PrecisionAdvice
from melange.plan.bucket import PlanBucket
from melange.plan.config import LeftOutOffer, PlanConfig
from melange.plan.costs import Baseline, Costs, PlanLimit
from melange.plan.demand import PlanDemand
from melange.plan.nanobatching import NanoBatchingEffect
from melange.plan.odds import Uncertainty
from melange.plan.promise import AttainReport
from melange.serving.considered import Considered
from melange.slo import Slo
from melange.solver.explanation import Explanation
from melange.solver.problem import Status
from melange.workload.sizes import SizeGrid

SCHEMA_VERSION = 1

Routing = Literal["input-only"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A fleet for a workload, and all that later commands need to compute with it.

    What is served: ``slo`` is the promise, ``workload`` the demand in all and ``buckets`` by size, with who serves
    each; ``headroom``: the rate was scaled by 1 + headroom. What could serve it: ``configs`` by name, ``limits`` asked
    for, ``dropped_offers`` left out because a cheaper one is in play, ``considered`` among what the fleet is the
    cheapest (None where that is not known), ``advice`` what another precision would cost (None where none is cheaper
    or none was asked about). ``basis``: what the configs' clocks are made
    from.

    The fleet: ``instances`` to rent by instance key and ``replicas`` to run by config, zeros left out;
    ``utilization``: load / replicas by config in use, at the rate without headroom; ``routing``: the kind of router
    that the shares suit, None if any. Its cost: ``cost_usd_per_hour`` (None without a fleet) and ``costs``, in other
    units; ``bound_usd_per_hour``, below which no fleet's cost is, and ``gap`` = (cost - bound) / cost.
    ``slice_factor``: shares are multiples of 1 / slice_factor, None if continuous, which would cost
    ``continuous_cost_usd_per_hour``. ``baselines``: the cheapest fleet of each GPU type alone, ``best_single_type`` the
    cheapest of them.

    What else was asked for, None where it was not: ``explanation`` by solving changed problems, ``attain`` how the
    cheapest fleet that keeps the promise in simulation was found, ``uncertainty`` how fleets fare under drawn rates and
    demand, ``nanobatching`` what nano-batching changes.

    ``reasons``: why there is no fleet. ``warnings``: what a reader must know. ``provenance``: where every input came
    from, for reading only: nothing computes with it.
    """

    status: Status
    slo: Slo
    workload: PlanDemand
    configs: Mapping[str, PlanConfig]
    buckets: tuple[PlanBucket, ...]
    instances: Mapping[str, int] = field(default_factory=dict)
    replicas: Mapping[str, int] = field(default_factory=dict)
    cost_usd_per_hour: float | None = None
    bound_usd_per_hour: float | None = None
    gap: float | None = None
    utilization: Mapping[str, float] = field(default_factory=dict)
    baselines: Mapping[str, Baseline] = field(default_factory=dict)
    best_single_type: str | None = None
    limits: tuple[PlanLimit, ...] = ()
    costs: Costs | None = None
    headroom: float = 0.0
    slice_factor: int | None = None
    continuous_cost_usd_per_hour: float | None = None
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    dropped_offers: tuple[LeftOutOffer, ...] = ()
    considered: Considered | None = None
    advice: PrecisionAdvice | None = None
    explanation: Explanation | None = None
    attain: AttainReport | None = None
    uncertainty: Uncertainty | None = None
    nanobatching: NanoBatchingEffect | None = None
    routing: Routing | None = None
    basis: Basis = field(default_factory=Basis)
    provenance: Mapping[str, Any] = field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    def __post_init__(self) -> None:
        unknown = [name for name in self.replicas if name not in self.configs]
        if unknown:
            raise InputError(f"plan: replicas of {unknown[0]!r}, which is not among its configs")

    @property
    def grid(self) -> SizeGrid:
        """The grid that its buckets are of; InputError where they have no sizes."""
        demand = self.workload
        known = [(b.input_tokens_max, b.output_tokens_max) for b in self.buckets]
        inputs = demand.input_edges_tokens or tuple(sorted({i for i, _ in known if i is not None}))
        outputs = demand.output_edges_tokens or tuple(sorted({o for _, o in known if o is not None}))
        if not known or any(i not in inputs or o not in outputs for i, o in known):
            raise InputError("the plan's buckets have no sizes", fix="solve from a workload with token edges")
        return SizeGrid(input_edges_tokens=inputs, output_edges_tokens=outputs)

    @property
    def solved(self) -> bool:
        return self.cost_usd_per_hour is not None

    @property
    def savings(self) -> float | None:
        """Share saved against the best single-type fleet; None without one."""
        return None if self.best_single_type is None else self.baselines[self.best_single_type].savings


def describe_instances(instances: Mapping[str, int]) -> str:
    """``1 x L4 + 2 x A10G``, zero counts left out."""
    return " + ".join(f"{count} x {name}" for name, count in instances.items() if count) or "nothing"
