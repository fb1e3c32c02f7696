from __future__ import annotations

import csv
import io
import json
from dataclasses import replace

import pytest
import yaml

from melange import SolveOptions, plan_fleet
from melange.plan.costs import describe_instances
from melange.plan.file import plan_record
from melange.report.plans import render_plan


@pytest.fixture
def plan(small_spec):
    return plan_fleet(small_spec.limited(maximum={"H100": 0}), SolveOptions(explain=True))


def test_the_table_says_fleet_cost_savings_limits_and_warnings(plan):
    text = render_plan(plan, colour=False)
    assert describe_instances(plan.instances) in text
    assert f"${plan.cost_usd_per_hour:.2f}/h" in text
    assert f"${730 * plan.cost_usd_per_hour:,.2f} per month" in text
    assert f"${plan.baselines[plan.best_single_type].cost_usd_per_hour:.2f}" in text
    for words in ("proven cheapest", "H100 <= 0", "binds", "When an unused type enters", "warning: published"):
        assert words in text
    assert "\x1b" not in text
    assert "\x1b" in render_plan(plan, colour=True)


def test_json_and_yaml_hold_the_whole_plan(plan):
    assert json.loads(render_plan(plan, "json")) == plan_record(plan)
    assert yaml.safe_load(render_plan(plan, "yaml")) == plan_record(plan)


def test_csv_has_a_row_for_each_config_in_use(plan):
    rows = list(csv.DictReader(io.StringIO(render_plan(plan, "csv"))))
    assert {row["config"]: int(row["replicas"]) for row in rows} == dict(plan.replicas)
    assert all(float(row["utilization"]) == plan.utilization[row["config"]] for row in rows)


def test_an_infeasible_plan_gives_its_reasons_in_place_of_a_fleet(small_spec):
    none = plan_fleet(small_spec.with_rate(100).limited(only=("L4",), maximum={"L4": 1}))
    text = render_plan(none, colour=False)
    assert "no fleet can serve it" in text
    assert all(reason.split(" to ")[0] in " ".join(text.split()) for reason in none.reasons)
    assert len(render_plan(none, "csv").splitlines()) == 1


def test_names_are_never_taken_for_markup(plan):
    named = replace(plan, workload=replace(plan.workload, name="[red]x[/nosuch]"))
    assert "[red]x[/nosuch]" in render_plan(named, colour=False)
