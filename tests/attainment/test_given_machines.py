"""What given machines carry: by the program against brute force, by simulation against playing every rate."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.asked_fleet import asked_fleet
from melange.attainment.given_machines import capacity_of, capacity_of_plan
from melange.attainment.trial import Trials, attainments_of
from melange.errors import InfeasibleError, InputError
from melange.planning.fleet_notation import parse_fleet
from melange.planning.planner import plan_fleet
from melange.planning.workload_file import load_workload
from melange.simulator.arrivals import drawn_process
from melange.simulator.simulate import SimulationOptions, simulate
from melange.slo import Slo
from melange.solver.problem import GroupLimit
from melange.solver.search import solve
from melange.solver.slack import most_slack

QUICK = SimulationOptions(requests=1500, replications=2)
FLEETS = {
    "azure-conversation": "1xL40S + 1xH100",
    "azure-code": "2xH100",
    "mooncake-conversation": "1xH200:8/fp8",
    "arena-120ms": "1xL4 + 1xA100-80GB",
    "arena-120ms-mean": "2xA10G",
}


@pytest.mark.parametrize("name", FLEETS)
def test_every_shipped_workload_has_a_highest_rate_on_its_machines(name):
    spec = load_workload(name)
    rates = capacity_of(spec, FLEETS[name], QUICK, resolution=0.05)
    best = rates.best
    assert best is not None
    assert best.simulated_rps > 0
    assert best.attainment >= rates.target == 0.99
    assert [way.rate_rps for way in rates.ways] == sorted((way.rate_rps for way in rates.ways), reverse=True)
    record = json.loads(json.dumps(rates.to_dict()))
    assert record["best"]["replicas"] == dict(best.replicas)
    assert list(rates.to_frame()["program_rps"]) == [way.program_rps for way in rates.ways]


def test_the_programs_rate_is_the_highest_at_which_solving_rents_no_more():
    spec = load_workload("azure-conversation").limited(maximum={"L40S": 2, "H100": 1}, only=("L40S", "H100"))
    way = capacity_of(spec, "2xL40S + 1xH100", simulated=False).best
    assert way.simulated_rps is None
    asked = asked_fleet(spec, parse_fleet("2xL40S + 1xH100"))
    problem = asked.ground.in_time
    caps = tuple(GroupLimit(name=key, weights={key: 1}, maximum=most) for key, most in (("L40S", 2), ("H100", 1)))
    one = replace(problem, limits=caps, load=problem.load / spec.workload.total_rate_rps)
    assert solve(one.scaled(way.program_rps * 0.999)).status == "optimal"
    assert solve(one.scaled(way.program_rps * 1.001)).status == "infeasible"


def test_where_some_may_be_late_the_programs_rate_is_that_up_to_which_a_plan_exists():
    slo = Slo(ttft_s=1.0, tpot_s=0.05, tpot_definition="decode", attainment=0.95)
    spec = load_workload("azure-conversation").with_slo(slo).with_serving(batched_tokens=(512,))
    way = capacity_of(spec, "2xL40S", simulated=False).best
    asked = asked_fleet(spec, parse_fleet("2xL40S"))
    punctual = most_slack(asked.ground.in_time, np.array(asked.counts))
    assert punctual is None or way.program_rps > spec.workload.total_rate_rps / punctual.highest
    capped = spec.limited(only=("L40S",), maximum={"L40S": 2})
    assert plan_fleet(capped.with_rate(way.program_rps * 0.99)).solved
    assert not plan_fleet(capped.with_rate(way.program_rps * 1.02)).solved


def test_the_simulated_rate_is_that_of_playing_every_rate():
    spec = load_workload("azure-conversation")
    rates = capacity_of(spec, "1xL40S", QUICK, resolution=0.02)
    best = rates.best
    asked = asked_fleet(spec, parse_fleet("1xL40S"))
    plan, clocks = asked.plan(), asked.ground.clocks

    def attainment(rate_rps):
        options = replace(QUICK, rate_rps=rate_rps, process=drawn_process(spec.workload.burstiness_cv))
        scenario = Trials(target=0.99, options=options, clocks=clocks).scenario(plan)
        return float(np.mean(attainments_of(scenario, 0, 2)))

    assert attainment(best.simulated_rps) == best.attainment
    assert attainment(best.simulated_rps * 1.02) < 0.99
    for share in (0.3, 0.6, 0.9):
        assert attainment(best.simulated_rps * share) >= 0.99


def test_a_limit_that_no_wait_counts_in_does_not_hide_a_growing_queue():
    spec = load_workload("azure-conversation").with_slo(Slo(tpot_s=10.0, tpot_definition="decode"))
    best = capacity_of(spec, "1xL40S", QUICK, resolution=0.05).best
    plan = asked_fleet(spec, parse_fleet("1xL40S")).plan()
    far, near = (simulate(plan, options=replace(QUICK, rate_rps=times * best.simulated_rps)) for times in (3, 0.5))
    assert far.attainment.mean == near.attainment.mean == 1
    assert far.ttft.p99_s > 10 * near.ttft.p99_s


def test_a_box_of_eight_has_a_row_for_each_degree_and_precision(shared):
    spec = load_workload(shared / "cases" / "box-70b.yaml").with_serving(tp=())
    rates = capacity_of(spec, "1xH100:8", QUICK)
    ways = {(way.label, way.precision): way for way in rates.ways}
    assert {("1 x TP 8", "fp8"), ("2 x TP 4", "fp8"), ("4 x TP 2", "fp8"), ("1 x TP 8", "bf16")} <= set(ways)
    # Sizes are late on four of TP 2 by the mean, whatever the rate.
    assert ways["4 x TP 2", "fp8"].program_rps == 0
    assert ways["1 x TP 8", "fp8"].program_rps == pytest.approx(1 / 0.303, rel=0.02)
    assert rates.best is ways["2 x TP 4", "fp8"]
    assert rates.best.simulated_rps > ways["1 x TP 8", "fp8"].simulated_rps > ways["1 x TP 8", "bf16"].simulated_rps > 2
    assert not ways["1 x TP 8", "bf16"].is_open
    assert any("H100 TP 1 bf16" in text for text in rates.left_out)
    assert rates.machines == {"my-box": 1}
    assert rates.cost_usd_per_hour == 20


def test_ties_of_a_box_are_told_apart(shared):
    rates = capacity_of(load_workload(shared / "cases" / "box-ties.yaml"), "1xH100:8", simulated=False)
    program = {way.label: way.program_rps for way in rates.ways if way.precision == "fp8"}
    assert program["4 x TP 2"] == pytest.approx(6 / 0.376, rel=0.02)
    assert program["4 x TP 2"] > program["2 x TP 4"] > 1.2 * program["1 x TP 8"]


def test_the_advice_is_a_decision_about_quality():
    rates = capacity_of(load_workload("azure-conversation"), "1xL40S", simulated=False)
    assert rates.best.precision == "bf16"
    assert rates.advice.startswith("with fp8 weights 1 x TP 1 would carry ")
    assert "yours to say" in rates.advice
    asked = capacity_of(
        load_workload("azure-conversation").with_serving(precisions=("any",)), "1xL40S", simulated=False
    )
    assert (asked.best.precision, asked.advice) == ("fp8", None)


def test_owned_machines_are_the_fleet_where_none_is_named():
    spec = load_workload("azure-conversation").limited(owned={"H100": (16, 8), "L40S": (1, None)})
    rates = capacity_of(spec, simulated=False)
    assert rates.machines == {"8xH100@owned": 2, "L40S@owned": 1}
    assert rates.cost_usd_per_hour == 0
    # A part of eight GPUs has more degrees than one of one: what all can do, and the best mix.
    assert {way.precision for way in rates.ways} == {"bf16", "fp8"}
    alone = capacity_of(load_workload("azure-conversation"), "1xL40S", simulated=False)
    assert rates.best.program_rps > alone.best.program_rps


def test_a_plan_carries_what_its_utilisation_says_and_as_it_stands():
    plan = plan_fleet(load_workload("arena-120ms-mean").with_rate(3))
    rates = capacity_of_plan(plan, QUICK)
    (way,) = rates.ways
    assert way.label == "planned"
    assert way.program_rps == pytest.approx(3 / max(plan.utilization.values()))
    assert dict(way.replicas) == dict(plan.replicas)
    held = simulate(plan, options=replace(QUICK, rate_rps=way.simulated_rps))
    assert held.attainment.mean == pytest.approx(way.attainment)


def test_the_same_seed_gives_the_same_rates_and_jobs_do_not_matter():
    spec = load_workload("azure-conversation")
    one, two = (capacity_of(spec, "1xL40S", replace(QUICK, jobs=jobs), resolution=0.1) for jobs in (1, 2))
    assert one == two
    other = capacity_of(spec, "1xL40S", replace(QUICK, seed=5), resolution=0.01)
    assert other.ways[0].simulated_rps != one.ways[0].simulated_rps


def test_what_cannot_be_is_one_clear_line():
    spec = load_workload("azure-conversation")
    for fleet, problem in (
        ("1xH1000", "unknown GPU or instance type 'H1000'"),
        ("1xT4", "no offer of T4"),
        (None, "the workload owns no machines"),
        ("1xL4/fp32", "in no way: 1xL4: llama-3.1-8b fits none"),
    ):
        with pytest.raises(InputError, match=problem):
            capacity_of(spec, fleet, QUICK)
    with pytest.raises(InputError, match="resolution is 0"):
        capacity_of(spec, "1xL40S", QUICK, resolution=0)
    with pytest.raises(InputError, match="no threshold"):
        capacity_of(spec.with_slo(Slo()), "1xL40S", QUICK)
    with pytest.raises(InfeasibleError, match="at no rate do these machines keep 99% of all requests"):
        capacity_of(spec.with_slo(Slo(ttft_s=0.0005)), "1xL40S", replace(QUICK, requests=300))


def test_a_machine_that_is_good_for_long_prompts_keeps_its_promise_alone():
    """One H200 keeps azure-code's limit for all requests; the token budget that its mean load prefers does not."""
    rates = capacity_of(load_workload("azure-code"), "1xH200", QUICK)
    assert rates.best.simulated_rps > load_workload("azure-code").workload.total_rate_rps
