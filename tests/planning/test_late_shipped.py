"""Late by design on the shipped workloads: what it may do, what it saves, and that its requests are served."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange import SimulationOptions, load_workload, plan_fleet, simulate
from melange.planning.profile_source import load_profile
from melange.routing.policy import policy_by_name


def asked(name, rate_rps=None):
    spec = load_workload(name)
    spec = spec.with_slo(replace(spec.slo, attainment=0.95))
    spec = spec.with_fill("estimated") if name.startswith("arena") else spec
    return spec if rate_rps is None else spec.with_rate(rate_rps)


@pytest.mark.parametrize(
    ("name", "rate_rps"),
    [("arena-120ms", 20), ("azure-code", None), ("azure-conversation", 30), ("mooncake-conversation", None)],
)
def test_it_never_costs_and_keeps_to_its_part(name, rate_rps):
    spec = asked(name, rate_rps)
    profile = load_profile(spec)
    plan, without = (plan_fleet(each, profile=profile) for each in (spec, spec.with_late_by_design(0.0)))
    assert plan.status == without.status == "optimal"
    assert plan.cost_usd_per_hour <= without.cost_usd_per_hour * (1 + 1e-6)
    assert plan.lateness.in_time_usd_per_hour == pytest.approx(without.cost_usd_per_hour, rel=1e-6)
    assert plan.lateness.at_most == pytest.approx(0.025)
    total = sum(b.rate_rps for b in plan.buckets)
    late = sum(b.rate_rps * sum(b.late_shares.values()) for b in plan.buckets)
    assert late / total == pytest.approx(plan.lateness.share, abs=1e-9)
    assert plan.lateness.share <= 0.025 + 1e-8
    for bucket in plan.buckets:
        assert sum(bucket.shares.values()) + sum(bucket.late_shares.values()) == pytest.approx(1)
        # Only what a config cannot serve in time at any load is late on it.
        assert not any(bucket.max_rate_rps[name] for name in bucket.late_shares)
    assert max(plan.utilization.values()) <= 1 + 1e-9


def test_what_is_late_is_served_in_simulation_and_misses():
    # Whatever few requests at once an engine could keep in time is not tried: something must be late.
    spec = asked("azure-conversation").with_serving(sequences=[256])
    plan = plan_fleet(spec.with_slo(replace(spec.slo, tpot_s=0.0325)))
    assert plan.lateness.share > 0.005
    options = SimulationOptions(requests=4000, replications=1, policy=policy_by_name("shares/least-tokens:oracle"))
    report = simulate(plan, options=options)
    assert report.means.unserved_share == 0
    late = {(b.input_tokens_max, b.output_tokens_max) for b in plan.buckets if sum(b.late_shares.values()) > 0.99}
    assert late

    def met(played):
        return [b.attainment for b in played.buckets if (b.input_tokens_max, b.output_tokens_max) in late]

    assert met(report)
    assert max(met(report)) < 0.5
    served = {name: entry.share for name, entry in report.configs.items()}
    assert served["L4"] == pytest.approx(plan.lateness.share, abs=0.004)
    # The default policy passes over a machine on which they would miss, while another one has room.
    spilled = simulate(plan, options=replace(options, policy=policy_by_name("shares:oracle")))
    assert sum(met(spilled)) > sum(met(report))
