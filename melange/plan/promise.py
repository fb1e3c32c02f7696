"""Promise: the fleet that keeps an SLO's attainment in simulation, and others that keep the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


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
