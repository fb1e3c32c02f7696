"""What engines that overlap nano-batches change in a fleet."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.analysis.nanobatching import NanoBatching, compare_nanobatching
from melange.plan.plan import Plan
from melange.planning.planner import plan_fleet
from melange.planning.spec import WorkloadSpec
from melange.planning.workload_file import load_workload


def test_solving_twice_says_what_changes() -> None:
    compared = compare_nanobatching(load_workload("arena-120ms").with_rate(32))
    saving = compared.saving_usd_per_hour
    assert saving is not None
    assert saving > 0
    assert compared.fleet_change
    assert {config.engine for config in compared.without.configs.values()} == {"vllm"}
    assert {config.engine for config in compared.mixed.configs.values()} == {"vllm", "nanoflow"}
    assert "predicted, not measured" in compared.describe()


def test_a_fleet_that_nano_batching_does_not_change_says_so(small_spec: WorkloadSpec) -> None:
    compared = compare_nanobatching(small_spec)
    assert compared.saving_usd_per_hour == pytest.approx(0, abs=1e-9) or compared.fleet_change
    if not compared.fleet_change:
        assert "the same fleet" in compared.describe()


@pytest.fixture(scope="module")
def plan(module_spec: WorkloadSpec) -> Plan:
    return plan_fleet(module_spec)


def test_what_changed_is_counted_and_told(plan: Plan) -> None:
    without = replace(plan, instances={"L4": 3, "A10G": 1}, cost_usd_per_hour=4.0)
    mixed = replace(plan, instances={"L4": 2, "A10G": 1, "H100": 1}, cost_usd_per_hour=3.0)
    compared = NanoBatching(without=without, mixed=mixed)
    assert compared.saving_usd_per_hour == pytest.approx(1.0)
    assert compared.fleet_change == {"L4": (3, 2), "H100": (0, 1)}
    text = "nano-batching (predicted, not measured): $4.00/h -> $3.00/h, 25.0% less"
    assert compared.describe() == f"{text}; L4 3 -> 2, H100 0 -> 1"
    effect = compared.plan.nanobatching
    assert effect is not None
    assert (effect.without_usd_per_hour, effect.saving_usd_per_hour) == (4.0, pytest.approx(1.0))
    assert (dict(effect.fleet_change), effect.summary) == (compared.fleet_change, compared.describe())
    same = NanoBatching(without=without, mixed=replace(mixed, instances=without.instances))
    assert same.describe() == f"{text}; the same fleet"


def test_nothing_is_compared_without_two_fleets(small_spec: WorkloadSpec, plan: Plan) -> None:
    none = plan_fleet(small_spec.with_rate(100).limited(only=("L4",), maximum={"L4": 1}))
    compared = NanoBatching(without=none, mixed=plan)
    assert compared.saving_usd_per_hour is None
    assert compared.describe() == f"nano-batching: not compared, infeasible without it and {plan.status} with it"
