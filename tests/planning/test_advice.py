"""What another precision would cost is said, by solving with it, and never taken."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange import Limits, PriceChoice, ProfileChoice, Slo, plan_fleet
from melange.plan.file import read_plan, write_plan
from melange.planning.advice import with_precision_advice


@pytest.fixture
def spec(small_spec):
    workload = replace(small_spec.workload, model="llama-3.1-8b", slo=Slo(tpot_s=0.05, tpot_definition="decode"))
    return replace(
        small_spec,
        workload=workload.at_rate(40),
        profiles=ProfileChoice(set="estimated/llama-3.1-8b"),
        prices=PriceChoice(),
        limits=Limits(fleet=("L40S", "A10G")),
    )


def test_the_advice_is_what_the_option_answers(spec, tmp_path):
    plan = with_precision_advice(plan_fleet(spec), spec)
    assert {plan.configs[name].precision for name in plan.replicas} == {"bf16"}
    advice = plan.advice
    assert advice is not None
    taken = plan_fleet(spec.with_serving(precisions=[advice.precision]))
    assert advice.cost_usd_per_hour == pytest.approx(taken.cost_usd_per_hour)
    assert advice.savings == pytest.approx(1 - taken.cost_usd_per_hour / plan.cost_usd_per_hour)
    assert f"{advice.precision} would cost ${taken.cost_usd_per_hour:.2f}/h" in advice.describe()
    write_plan(tmp_path / "p.json", plan)
    again = read_plan(tmp_path / "p.json")
    assert (again.advice, again.considered) == (advice, plan.considered)


def test_a_named_precision_and_measured_profiles_get_none(spec, small_spec):
    named = spec.with_serving(precisions=["bf16"])
    assert with_precision_advice(plan_fleet(named), named).advice is None
    assert with_precision_advice(plan_fleet(small_spec), small_spec).advice is None


def test_a_large_problem_says_that_nothing_was_tried(spec, monkeypatch):
    monkeypatch.setattr("melange.planning.advice.MOST_SHARES", 1)
    advice = with_precision_advice(plan_fleet(spec), spec).advice
    assert advice is not None
    assert "no other precision was tried" in advice.describe()
