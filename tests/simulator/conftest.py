"""A plan and its clocks, made once for all tests here."""

from __future__ import annotations

import pytest

from melange.plan.plan import Plan
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.clocks import plan_clocks


@pytest.fixture(scope="session")
def plan() -> Plan:
    return plan_fleet(load_workload("arena-120ms").with_rate(4))


@pytest.fixture(scope="session")
def clocks(plan):
    return plan_clocks(plan)
