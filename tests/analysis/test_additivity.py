"""Do loads of different sizes add up?"""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.analysis.additivity import additivity
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.slo import Slo


@pytest.fixture(scope="module")
def plan():
    return plan_fleet(load_workload("arena-120ms-mean").with_rate(8))


def test_loads_add_up_for_throughput_and_the_error_is_reported(plan):
    rows = additivity(replace(plan, slo=Slo()), requests=800)
    assert set(rows) <= set(plan.replicas)
    for row in rows.values():
        assert row.limit == "a queue that does not grow"
        assert row.worst_error <= row.mean_error
        assert abs(row.mean_error) < 0.3
        assert row.verdict in ("additive", "optimistic", "conservative")


def test_a_limit_on_ttft_makes_additivity_optimistic_for_some_mix(plan):
    # Short prompts keep a tight TTFT alone at a high rate; beside long prompts they wait for them.
    rows = additivity(replace(plan, slo=Slo(ttft_s=0.15, attainment=0.99)), requests=1500)
    assert min(row.worst_error for row in rows.values()) < -0.1
    assert any(row.verdict == "optimistic" for row in rows.values())
