"""Any fleet of a workload: what its machines run, and that it is played as the closed loop plays it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.asked_fleet import asked_fleet
from melange.attainment.ground import ground_of
from melange.errors import InputError
from melange.plan.costs import describe_instances
from melange.plan.file import plan_of_record, plan_record
from melange.planning.fleet_notation import parse_fleet
from melange.planning.planner import choices_of
from melange.planning.workload_file import load_workload
from melange.simulator.simulate import SimulationOptions, simulate
from melange.slo import Slo
from melange.solver.slack import arrangement

PRICED = {
    "azure-conversation": "2xL40S + 1xH100",
    "azure-code": "2xL40S/fp8 + 1xH100",
    "mooncake-conversation": "3xH200/fp8 + 1xH100:8",
    "arena-120ms": "2xL4 + 1xH100",
    "arena-120ms-mean": "1xA10G + 1xL4",
}
PLAYED = SimulationOptions(requests=600, replications=1)


@pytest.mark.parametrize("name", PRICED)
def test_every_shipped_workload_takes_a_fleet_and_plays_it(name):
    spec = load_workload(name)
    parts = parse_fleet(PRICED[name])
    plan = asked_fleet(spec, parts).plan()
    assert sum(plan.instances.values()) == sum(part.count for part in parts)
    cost = sum(plan.configs[c].price_usd_per_hour / _per_machine(plan, c) * n for c, n in plan.replicas.items())
    assert cost == pytest.approx(plan.cost_usd_per_hour)
    assert plan_of_record(plan_record(plan)) == plan
    assert (plan.bound_usd_per_hour, plan.gap, plan.considered) == (None, None, None)
    report = simulate(plan, options=PLAYED)
    assert 0 <= report.attainment.mean <= 1
    if "/" in PRICED[name]:
        return
    # What plans print names the same fleet again.
    assert asked_fleet(spec, parse_fleet(describe_instances(plan.instances))).plan().instances == plan.instances


def _per_machine(plan, config):
    """Replicas of a config that a machine holds, where nothing else runs on it."""
    key = plan.configs[config].instance_key
    return (
        plan.replicas[config]
        / plan.instances[key]
        * sum(plan.configs[other].instance_key == key for other in plan.replicas)
    )


def test_it_is_the_fleet_that_the_closed_loop_plays():
    spec = load_workload("azure-conversation")
    asked = asked_fleet(spec, parse_fleet("2xL40S")).plan()
    ground = ground_of(choices_of(replace(spec, limits=replace(spec.limits, only=("L40S", "L4")))))
    counts = tuple(2 * (key == "L40S") for key in ground.in_time.instances)
    looped = ground.plan(counts)
    assert (asked.replicas, asked.cost_usd_per_hour) == (looped.replicas, looped.cost_usd_per_hour)
    assert asked.replicas == {"L40S/bt512": 2}
    one, two = (simulate(plan, options=PLAYED) for plan in (asked, looped))
    assert one.attainment == two.attainment


def test_a_part_runs_what_it_names_and_the_others_what_is_open():
    spec = load_workload("azure-conversation")
    plan = asked_fleet(spec, parse_fleet("1xH100 + 1xL40S/fp8 + 1xL40S/kv-fp8 + 1xA100-80GB/bt2048")).plan()
    by_machine = {plan.configs[name].instance_key: plan.configs[name] for name in plan.replicas}
    assert by_machine["H100"].precision == "bf16"
    assert (by_machine["L40S"].precision, by_machine["L40S"].kv_dtype) == ("fp8", "auto")
    assert (by_machine["L40S#2"].precision, by_machine["L40S#2"].kv_dtype) == ("bf16", "fp8")
    assert by_machine["A100-80GB"].max_batched_tokens in (2048, None)
    assert plan.instances == dict.fromkeys(("H100", "L40S", "L40S#2", "A100-80GB"), 1)


def test_open_precisions_are_those_of_the_workload():
    spec = load_workload("azure-conversation").with_serving(precisions=("any",))
    plan = asked_fleet(spec, parse_fleet("1xL40S")).plan()
    assert {plan.configs[name].precision for name in plan.replicas} == {"fp8"}


def test_parts_of_one_kind_are_one():
    plan = asked_fleet(load_workload("arena-120ms"), parse_fleet("1xL4 + 2xH100 + 2xL4")).plan()
    assert plan.instances == {"L4": 3, "H100": 2}


def test_replicas_have_the_most_slack_of_all_that_the_machine_holds(shared):
    # Brute force over what fits a box of eight: TP 2, 4 and 8.
    spec = load_workload(shared / "cases" / "box-ties.yaml")
    asked = asked_fleet(spec, parse_fleet("1xH100:8"))
    problem = asked.ground.in_time
    degrees = problem.gpus_per_replica
    every = [
        np.array(counts)
        for counts in np.ndindex(*(8 // degree + 1 for degree in degrees))
        if 0 < np.dot(counts, degrees) <= 8
    ]
    highest = [found.highest for replicas in every if (found := arrangement(problem, replicas)) is not None]
    assert max(asked.plan().utilization.values()) == pytest.approx(min(highest), rel=1e-6)
    named = asked_fleet(spec, parse_fleet("1xH100:8/tp8")).plan()
    assert named.replicas == {"my-box/tp8/fp8": 1}


def test_a_fleet_that_is_too_small_or_too_slow_is_played_all_the_same():
    spec = load_workload("azure-conversation")
    small = asked_fleet(spec, parse_fleet("1xL40S")).plan()
    assert max(small.utilization.values()) > 1
    assert simulate(small, options=PLAYED).attainment.mean < 0.9
    tight = spec.with_slo(replace(spec.slo, tpot_s=0.04))
    slow = asked_fleet(tight, parse_fleet("3xL4")).plan()  # which keeps the limit for no size
    assert all(not any(bucket.max_rate_rps.values()) for bucket in slow.buckets)
    report = simulate(slow, options=PLAYED)
    assert report.attainment.mean < 0.05
    assert report.means.unserved_share == 0
    assert any("served in time by L4" in text for text in report.warnings)


def test_limits_of_the_workload_do_not_bind_what_is_asked_for():
    spec = load_workload("azure-conversation").limited(maximum={"L40S": 1}, max_cost_usd_per_hour=1.0)
    assert asked_fleet(spec, parse_fleet("2xL40S")).plan().instances == {"L40S": 2}


@pytest.mark.parametrize(
    ("fleet", "problem"),
    [
        ("2xT4", "price set 2026-11 has no offer of T4"),
        ("1xH100:3", "no machine of H100 of 3 GPUs; its machines have 1, 8 GPUs"),
        ("1xL4/tp1/fp32", "fleet: 1xL4: llama-3.1-8b fits none of the configurations asked for: L4 TP 1 fp32"),
    ],
)
def test_what_cannot_be_is_one_clear_line(fleet, problem):
    with pytest.raises(InputError) as found:
        asked_fleet(load_workload("azure-conversation"), parse_fleet(fleet))
    assert problem in str(found.value)


def test_measured_profiles_take_only_what_was_measured():
    spec = load_workload("arena-120ms")
    with pytest.raises(InputError, match="no profiled configuration passes"):
        asked_fleet(spec, parse_fleet("1xH100/fp8"))
    with pytest.raises(InputError, match="no offer of H200"):
        asked_fleet(spec, parse_fleet("1xH200"))


def test_an_slo_on_the_first_token_may_be_asked_too():
    spec = load_workload("azure-conversation").with_slo(Slo(ttft_s=0.5, tpot_s=0.1, tpot_definition="decode"))
    assert asked_fleet(spec, parse_fleet("1xH200/fp8")).plan().replicas
