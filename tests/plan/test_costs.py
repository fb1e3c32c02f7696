from __future__ import annotations

from dataclasses import replace

import pytest

from melange import plan_fleet
from melange.plan.costs import HOURS_PER_MONTH, Baseline, describe_instances


def test_fleets_in_words():
    assert describe_instances({"L4": 1, "A10G": 2, "H100": 0}) == "1 x L4 + 2 x A10G"
    assert describe_instances({}) == "nothing"


def test_a_month_and_a_million_tokens_cost_what_the_hour_does(small_spec):
    plan = plan_fleet(small_spec)
    costs, demand = plan.costs, plan.workload
    assert costs.usd_per_hour == plan.cost_usd_per_hour
    assert costs.usd_per_month / costs.usd_per_hour == pytest.approx(HOURS_PER_MONTH) == pytest.approx(365 * 24 / 12)
    for usd, tokens_per_s in (
        (costs.usd_per_million_input_tokens, demand.input_tokens_per_s),
        (costs.usd_per_million_output_tokens, demand.output_tokens_per_s),
        (costs.usd_per_million_tokens, demand.input_tokens_per_s + demand.output_tokens_per_s),
    ):
        assert usd * tokens_per_s * 3600 / 1e6 == pytest.approx(costs.usd_per_hour)


def test_a_limit_that_holds_the_fleet_back_binds(small_spec):
    free = plan_fleet(small_spec.with_rate(40))
    name = next(iter(free.instances))
    for maximum, binding in ((free.instances[name], True), (free.instances[name] + 1, False)):
        (limit,) = plan_fleet(small_spec.with_rate(40).limited(maximum={name: maximum})).limits
        assert (limit.name, limit.kind, limit.value, limit.used) == (name, "max", maximum, free.instances[name])
        assert limit.binding is binding


def test_a_baseline_is_proven_unless_told_otherwise(small_spec):
    assert Baseline(reason="no rates") == Baseline(
        instances=None, replicas=None, cost_usd_per_hour=None, savings=None, proven=True, reason="no rates"
    )
    plan = plan_fleet(small_spec)
    for baseline in plan.baselines.values():
        assert baseline.savings == pytest.approx(1 - plan.cost_usd_per_hour / baseline.cost_usd_per_hour)
        assert replace(baseline, proven=False) != baseline
