"""Plan: the answer to a workload, self-contained."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from melange.capacity.basis import Basis
from melange.errors import InputError
from melange.files.shown import html_table, number, share, short_repr
from melange.plan.advice import PrecisionAdvice
from melange.plan.bucket import PlanBucket
from melange.plan.config import LeftOutOffer, PlanConfig
from melange.plan.costs import Baseline, Costs, PlanLimit, describe_instances
from melange.plan.demand import PlanDemand
from melange.plan.lateness import PlanLateness
from melange.plan.nanobatching import NanoBatchingEffect
from melange.plan.odds import Uncertainty
from melange.plan.promise import AttainReport
from melange.plan.windows import PlanWindows
from melange.serving.considered import Considered
from melange.slo import Slo
from melange.solver.explanation import Explanation
from melange.solver.problem import Status
from melange.workload.sizes import SizeGrid

if TYPE_CHECKING:
    from pandas import DataFrame

SCHEMA_VERSION = 2

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
    cheapest of them. ``lateness``: how many requests are late by design, None where the SLO lets none be.

    What else was asked for, None where it was not: ``explanation`` by solving changed problems, ``attain`` how the
    cheapest fleet that keeps the promise in simulation was found, ``uncertainty`` how fleets fare under drawn rates and
    demand, ``nanobatching`` what nano-batching changes.

    ``windows``: those of the workload's time that the fleet was planned for, None where it was for the whole mix.
    Shares and utilization are those of the mean mix either way, which a router that knows no windows follows.

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
    lateness: PlanLateness | None = None
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
    windows: PlanWindows | None = None
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

    def __repr__(self) -> str:
        return short_repr("Plan", self._headline())

    def _repr_html_(self) -> str:
        rows = [(name, *_fleet_row(row)) for name, row in self._fleets().items()]
        notes = (*self.reasons, *(f"warning: {text}" for text in self.warnings))
        return html_table(self._headline(), ("", "fleet", "USD per hour", "saved by the plan"), rows, notes)

    def _headline(self) -> str:
        name = self.workload.name or "workload"
        if self.cost_usd_per_hour is None:
            return f"{name}: {self.status}; {'; '.join(self.reasons)}"
        fleet = f"{describe_instances(self.instances)} at ${self.cost_usd_per_hour:.2f}/h"
        against = "" if self.savings is None else f", saves {self.savings:.1%} against {self.best_single_type} alone"
        return f"{name}: {fleet}, {self.status}{against}; {self.slo.describe()}"

    def _fleets(self) -> dict[str, Baseline]:
        """The plan's own fleet beside those of one GPU type, under the names that tables show."""
        own = Baseline(
            instances=self.instances if self.solved else None,
            cost_usd_per_hour=self.cost_usd_per_hour,
            reason="; ".join(self.reasons) or None,
        )
        return {"cheapest": own, **{f"{gpu} only": row for gpu, row in self.baselines.items()}}

    def to_frame(self) -> DataFrame:
        """One row a size bucket.

        Index: ``input_tokens_max``, ``output_tokens_max`` (the bucket's upper edges; NaN where unknown). Columns:
        ``rate_rps``; ``mean_input_tokens``, ``mean_output_tokens``, ``mean_cached_tokens`` (true means, NaN where
        unknown); per config in use ``<config>_share``, the fraction of the bucket that it serves, in time or late; per
        config ``<config>_max_rate_rps`` of one replica on this bucket alone (0 = cannot meet the SLO, NaN = not
        measured).
        """
        import pandas as pd

        means = ("mean_input_tokens", "mean_output_tokens", "mean_cached_tokens")
        columns: dict[str, list[float | None]] = {"rate_rps": [bucket.rate_rps for bucket in self.buckets]}
        columns |= {name: [getattr(bucket, name) for bucket in self.buckets] for name in means}
        columns |= {f"{name}_share": [bucket.share_of(name) for bucket in self.buckets] for name in self.replicas}
        columns |= {
            f"{name}_max_rate_rps": [bucket.max_rate_rps.get(name) for bucket in self.buckets] for name in self.configs
        }
        edges = [(bucket.input_tokens_max, bucket.output_tokens_max) for bucket in self.buckets]
        index = pd.MultiIndex.from_tuples(edges, names=["input_tokens_max", "output_tokens_max"])
        return pd.DataFrame(columns, index=index, dtype=float)

    def fleets_frame(self) -> DataFrame:
        """The plan's fleet beside the cheapest of each GPU type alone.

        Index ``choice``: ``cheapest``, then ``<GPU> only``. Columns: ``fleet`` in words, ``cost_usd_per_hour`` (NaN
        where there is no such fleet), ``savings`` (the fraction that the plan saves on it), ``reason`` why there is
        none.
        """
        import pandas as pd

        rows = [
            {
                "fleet": None if row.instances is None else describe_instances(row.instances),
                "cost_usd_per_hour": row.cost_usd_per_hour,
                "savings": row.savings,
                "reason": row.reason,
            }
            for row in self._fleets().values()
        ]
        frame = pd.DataFrame(rows, index=pd.Index(list(self._fleets()), name="choice"))
        return frame.astype({"cost_usd_per_hour": float, "savings": float})


def _fleet_row(row: Baseline) -> tuple[str, str, str]:
    if row.instances is None:
        return row.reason or "none", "", ""
    return describe_instances(row.instances), number(row.cost_usd_per_hour), share(row.savings)
