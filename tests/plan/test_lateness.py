"""What is late by design, as a plan's file tells it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange import SolveOptions, load_workload, plan_fleet, read_plan, write_plan
from melange.plan.lateness import PlanLateness


def test_a_plan_s_file_tells_what_may_be_late_and_what_that_saves(tmp_path):
    spec = load_workload("mooncake-conversation")
    slo = replace(spec.slo, tpot_s=0.03, attainment=0.99)
    plan = plan_fleet(spec.with_slo(slo), SolveOptions(gap=0.01))
    late = plan.lateness
    assert isinstance(late, PlanLateness)
    assert late.at_most == pytest.approx(0.005)
    assert 0 < late.share <= late.at_most + 1e-9
    assert late.in_time_usd_per_hour > plan.cost_usd_per_hour
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json").lateness == late
