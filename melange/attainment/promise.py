"""A plan's fleet beside what simulating it gave."""

from __future__ import annotations

from melange.attainment.trial import TrialResult
from melange.plan.plan import Plan
from melange.plan.promise import SizedFleet


def sized_fleet(plan: Plan, verdict: TrialResult) -> SizedFleet:
    """A plan's fleet beside the verdict on it."""
    return SizedFleet(
        instances=dict(plan.instances),
        replicas=dict(plan.replicas),
        cost_usd_per_hour=plan.cost_usd_per_hour,
        attainment=verdict.attainment,
        attainment_low=verdict.low,
        headroom={name: 1 / used - 1 for name, used in plan.utilization.items() if used > 0},
    )
