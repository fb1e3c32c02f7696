"""Parts of a plan for tests, with a value in every field that may have one."""

from __future__ import annotations

from melange.plan.nanobatching import NanoBatchingEffect
from melange.plan.odds import FleetOdds, Uncertainty
from melange.plan.promise import AttainReport, SizedFleet, Standing, WindowAttainment

FLEET = SizedFleet(
    instances={"L4": 2}, replicas={"L4": 2}, cost_usd_per_hour=1.4, attainment=0.99, headroom={"L4": 0.5}
)
ATTAIN = AttainReport(
    target=0.95, fleet=FLEET, bound_usd_per_hour=0.7, paper=FLEET, promise_usd_per_hour=0.7, promise_share=1.0,
    single_type={"L4": FLEET, "H100": SizedFleet(reason="too dear")}, savings=None, policy="paper", arrivals="poisson",
    sizes="the plan's", requests=100, simulated=3, cut_off=1, overloaded=0, spot_checked=1, spot_check_passed=0,
    confirmations=1, complete=True, lone_share=0.999,
    standing=Standing(
        more_rate=0.21, longer_input=0.06, longer_output=1.0, at_most=1.0, resolution=0.01, replications=4,
        windows=(
            WindowAttainment(start_s=0.0, length_s=600.0, rate_rps=2.0, attainment=0.99),
            WindowAttainment(start_s=600.0, length_s=600.0, rate_rps=3.0, attainment=0.92),
            WindowAttainment(start_s=1200.0, length_s=600.0, rate_rps=0.0),
        ),
    ),
)  # fmt: skip
ODDS = FleetOdds(
    instances={"L4": 2}, cost_usd_per_hour=1.4, share_optimal=0.5, mean_cost_usd_per_hour=1.5,
    p5_cost_usd_per_hour=1.4, p95_cost_usd_per_hour=2.0, mean_regret_usd_per_hour=0.1, p95_regret_usd_per_hour=0.3,
    share_sufficient=0.9, share_stuck=0.0,
)  # fmt: skip
UNCERTAINTY = Uncertainty(
    draws=10, fresh_draws=10, seed=0, fleets=(ODDS,), optimal_cost_p5_usd_per_hour=1.0,
    optimal_cost_p50_usd_per_hour=1.2, optimal_cost_p95_usd_per_hour=2.0, distinct_fleets=2, share_unservable=0.0,
    demand="fixed",
)  # fmt: skip
EFFECT = NanoBatchingEffect(
    without_usd_per_hour=2.0, saving_usd_per_hour=0.6, fleet_change={"L4": (3, 2)}, summary="one fewer"
)
