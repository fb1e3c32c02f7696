"""Odds: how fleets fare when rates and demand are uncertain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetOdds:
    """One candidate fleet, judged on fresh draws with recourse.

    ``instances``: instance key -> count. ``share_optimal``: share of the first draws whose cheapest fleet it is.
    Costs in USD/h of the fleet plus the instances bought where a draw needs more: mean, 5th and 95th percentile.
    ``mean_regret_usd_per_hour`` and ``p95_regret_usd_per_hour``: over the cheapest fleet of each draw.
    ``share_sufficient``: share of the fresh draws that need nothing bought. ``share_stuck``: share that some other
    fleet serves within the limits, but not this one with whatever it may add. Costs and regrets are over the rest.
    """

    instances: Mapping[str, int]
    cost_usd_per_hour: float
    share_optimal: float
    mean_cost_usd_per_hour: float
    p5_cost_usd_per_hour: float
    p95_cost_usd_per_hour: float
    mean_regret_usd_per_hour: float
    p95_regret_usd_per_hour: float
    share_sufficient: float
    share_stuck: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Uncertainty:
    """Candidate fleets, least mean regret first (those that never get stuck before the others), and the range of the
    cheapest cost over the fresh draws (5th, 50th, 95th percentile).

    ``share_unservable``: share of the fresh draws that no fleet serves within the limits (caps, budget); they are left
    out of every other figure.
    """

    draws: int
    fresh_draws: int
    seed: int
    fleets: tuple[FleetOdds, ...]
    optimal_cost_p5_usd_per_hour: float
    optimal_cost_p50_usd_per_hour: float
    optimal_cost_p95_usd_per_hour: float
    distinct_fleets: int
    share_unservable: float
    demand: str

    @property
    def least_regret(self) -> FleetOdds:
        return self.fleets[0]
