"""Promises: what a closed-loop search found, and fleets that keep the same promise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from melange.attainment.trial import Verdict
from melange.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class SizedFleet:
    """A fleet and what simulating it gave, or why a GPU type has none that keeps the promise.

    ``attainment_low``: what a re-check of the promise reaches with 95% confidence (see Trials.confirm), None where it
    was not put to that test. ``headroom`` maps a config to replicas / load - 1: by how much its capacity exceeds the
    mean load that it carries.
    """

    instances: Mapping[str, int] | None = None
    replicas: Mapping[str, int] | None = None
    cost_usd_per_hour: float | None = None
    attainment: float | None = None
    attainment_low: float | None = None
    headroom: Mapping[str, float] = field(default_factory=dict)
    reason: str | None = None

    @classmethod
    def of(cls, plan: Plan, verdict: Verdict) -> SizedFleet:
        """A plan's fleet beside the verdict on it."""
        return cls(
            instances=dict(plan.instances),
            replicas=dict(plan.replicas),
            cost_usd_per_hour=plan.cost_usd_per_hour,
            attainment=verdict.attainment,
            attainment_low=verdict.low,
            headroom={name: 1 / used - 1 for name, used in plan.utilization.items() if used > 0},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class AttainReport:
    """How the cheapest fleet that keeps the promise was found.

    ``bound_usd_per_hour`` is what the integer program proves for the mean load alone; ``paper`` the fleet it would
    rent, with its simulated attainment. ``simulated`` fleets were judged, those of single types included,
    ``confirmations`` of them by the confirming test; ``cut_off`` ruled out by a failing larger one (``spot_checked`` of
    them played after all, ``spot_check_passed`` against the assumption), ``overloaded`` cannot carry the mean load.
    ``complete`` is false when the search ended before every cheaper fleet was ruled out. ``lone_share``: requests that
    keep the SLO on the best idle GPU, which no fleet exceeds.
    """

    target: float
    fleet: SizedFleet
    bound_usd_per_hour: float | None
    paper: SizedFleet
    promise_usd_per_hour: float
    promise_share: float
    single_type: Mapping[str, SizedFleet]
    savings: float | None
    policy: str
    arrivals: str
    sizes: str
    requests: int
    simulated: int
    cut_off: int
    overloaded: int
    spot_checked: int
    spot_check_passed: int
    confirmations: int
    complete: bool
    lone_share: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; the inverse of :meth:`from_dict`."""
        return asdict(self)

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> AttainReport:
        """Read what :meth:`to_dict` wrote."""
        single = {gpu: SizedFleet(**fleet) for gpu, fleet in row["single_type"].items()}
        fleets = {name: SizedFleet(**row[name]) for name in ("fleet", "paper")}
        return cls(**{**row, **fleets, "single_type": single})
