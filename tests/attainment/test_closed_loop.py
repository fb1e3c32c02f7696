"""The closed loop on small workloads."""

from __future__ import annotations

from dataclasses import replace

import late_workloads as late
import numpy as np
import pytest
from rechecks import recheck

from melange.attainment.closed_loop import attain
from melange.attainment.fleet_search import cheapest, fleet_search
from melange.attainment.fleets import fleet_cost, fleets_between
from melange.attainment.single_types import sized_types
from melange.attainment.trial import TrialResult, Trials
from melange.errors import InfeasibleError, InputError
from melange.plan.file import read_plan, write_plan
from melange.planning.case import cases
from melange.planning.planner import choices_of, plan_fleet
from melange.routing import policy_by_name
from melange.simulator.arrivals import Process
from melange.simulator.clocks import plan_clocks
from melange.simulator.simulate import SimulationOptions
from melange.slo import Slo
from melange.traces import Trace

QUICK = SimulationOptions(requests=1500)


@pytest.fixture(scope="module")
def spec():
    from melange.planning.workload_file import load_workload

    return load_workload("arena-120ms-mean")


@pytest.fixture(scope="module")
def answer(spec):
    return attain(spec.with_rate(3), 0.98, None, QUICK)


def test_the_promise_stands_on_seeds_that_no_search_saw(spec, answer):
    plan, report = answer
    trials = Trials(target=0.98, options=QUICK, clocks=plan_clocks(plan_fleet(spec.with_rate(3))))
    assert recheck(plan, trials, seed=991) >= 0.98
    assert report.fleet.attainment_low >= 0.98
    assert report.complete


def test_no_cheaper_fleet_passes(spec, answer):
    # Brute force: every fleet below the answer, each simulated.
    plan, report = answer
    asked = spec.with_rate(3)
    trials = Trials(target=0.98, options=QUICK, clocks=plan_clocks(plan_fleet(asked)))
    search = fleet_search(cases(choices_of(asked)), trials, lambda line: None)
    cheaper = list(fleets_between(search.problem, report.bound_usd_per_hour, plan.cost_usd_per_hour))
    assert cheaper
    for counts in cheaper:
        candidate = search.plan(counts)
        if candidate is not None:
            assert not (trials.screen(candidate).passed and trials.confirm(candidate, 1).passed), counts
    assert all(fleet_cost(search.problem, c) < plan.cost_usd_per_hour for c in cheaper)


def test_every_type_alone_keeps_the_same_promise_and_small_gpus_need_more_headroom(answer):
    plan, report = answer
    sized = {gpu: fleet for gpu, fleet in report.single_type.items() if fleet.cost_usd_per_hour is not None}
    assert sized
    for gpu, fleet in sized.items():
        assert fleet.attainment_low >= 0.98
        assert plan.baselines[gpu].cost_usd_per_hour == fleet.cost_usd_per_hour
        assert fleet.cost_usd_per_hour >= plan.cost_usd_per_hour - 1e-9
    for gpu, fleet in report.single_type.items():
        assert (fleet.reason is None) == (gpu in sized)


def test_single_types_are_the_smallest_that_pass(spec, answer):
    # Brute force: one GPU fewer of any type fails.
    asked = spec.with_rate(3)
    trials = Trials(target=0.98, options=QUICK, clocks=plan_clocks(plan_fleet(asked)))
    search = fleet_search(cases(choices_of(asked)), trials, lambda line: None)
    for gpu, fleet in answer[1].single_type.items():
        if gpu == "L4":
            continue  # On its plateau: one more of it hardly helps, and seeds decide.
        smaller = tuple(fleet.instances.get(key, 0) - (key in fleet.instances) for key in search.problem.instances)
        plan = search.plan(smaller) if any(smaller) else None
        assert plan is None or not (trials.screen(plan).passed and trials.confirm(plan, 1).passed)


def test_the_plan_is_a_plan_like_any_other(answer, tmp_path):
    plan, report = answer
    write_plan(tmp_path / "plan.json", plan)
    again = read_plan(tmp_path / "plan.json")
    assert again.replicas == plan.replicas
    assert again.attain == plan.attain
    assert again.attain.fleet.cost_usd_per_hour == plan.cost_usd_per_hour
    assert report.promise_usd_per_hour == pytest.approx(plan.cost_usd_per_hour - report.paper.cost_usd_per_hour)
    for bucket in plan.buckets:
        assert sum(bucket.shares.values()) == pytest.approx(1)
    assert not any("solve with --attain" in warning for warning in plan.warnings)


def test_a_promise_beyond_any_gpu_is_infeasible_and_says_why(spec):
    slo = Slo(tpot_s=0.011, tpot_definition="e2e_per_token")
    workload = replace(spec.workload, slo=slo)
    tight = replace(spec, workload=workload)
    with pytest.raises(InfeasibleError, match="even alone on the fastest GPU"):
        attain(tight.with_rate(1), 0.99, None, QUICK)


@pytest.mark.parametrize("target", [0.0, 1.0, 1.5])
def test_targets_that_are_no_shares_are_refused(spec, target):
    with pytest.raises(InputError, match="attainment target"):
        attain(spec, target)


def test_the_policy_of_the_simulation_is_the_one_that_is_promised(spec):
    options = replace(QUICK, policy=policy_by_name("paper"))
    _, report = attain(spec.with_rate(1), 0.9, None, options, single_types=False)
    assert report.policy == "paper"
    assert report.single_type == {}


def test_each_fleet_is_judged_with_the_late_buckets_of_the_types_that_it_rents(monkeypatch):
    # L4 cannot serve the large size in time, H100 can: only fleets of L4 alone may leave it out.
    spec, profile = late.workload([9.96, 0.04]), late.profile_of({"L4": [5, 0], "H100": [20, 5]})
    trials = _Kept(target=0.9, options=SimulationOptions(), clocks={})
    search = fleet_search(cases(choices_of(spec, late.EXACT, profile)), trials, lambda line: None)
    served = [[bool(b.shares) for b in search.plan(counts).buckets] for counts in ((2, 0), (2, 1), (0, 1))]
    assert served == [[True, False], [True, True], [True, True]]
    assert search.plan((1, 0)) is None
    monkeypatch.setattr("melange.attainment.single_types.lone_share", lambda trials, plan, configs: 1.0)
    single = sized_types(search, plan_fleet(spec, late.EXACT, profile=profile))
    assert {gpu: dict(fleet.instances) for gpu, fleet in single.items()} == {"L4": {"L4": 2}, "H100": {"H100": 1}}


def test_nothing_is_late_where_the_slo_allows_none(monkeypatch):
    slo = Slo(tpot_s=0.1)
    spec, profile = late.workload([9.96, 0.04], slo), late.profile_of({"L4": [5, 0], "H100": [20, 5]}, slo)
    trials = _Kept(target=0.9, options=SimulationOptions(), clocks={})
    search = fleet_search(cases(choices_of(spec, late.EXACT, profile)), trials, lambda line: None)
    assert search.plan((2, 0)) is None
    monkeypatch.setattr("melange.attainment.single_types.lone_share", lambda trials, plan, configs: 1.0)
    single = sized_types(search, plan_fleet(spec, late.EXACT, profile=profile))
    assert single["L4"].reason == "it cannot serve every size in time"


def test_a_larger_fleet_that_cannot_be_planned_cuts_off_nothing(monkeypatch):
    # 2 x L4 may serve the large size late; grown by an A10G, which serves it slowly, it may not, and is overloaded.
    spec, profile = late.workload([9.96, 0.04]), late.profile_of({"L4": [5, 0], "A10G": [5, 0.001]})
    trials = _Kept(target=0.9, options=SimulationOptions(), clocks={})
    search = fleet_search(cases(choices_of(spec, late.EXACT, profile)), trials, lambda line: None)
    assert search.plan((2, 1)) is None
    assert cheapest(search, (4, 0), 1.4, 50) == ((2, 0), True)


class _Kept(Trials):
    """Trials in which every fleet keeps the promise."""

    def screen(self, plan):
        return TrialResult(passed=True, attainment=1.0, replications=4)

    def expects(self, plan):
        return True

    def confirm(self, plan, attempt):
        return TrialResult(passed=True, attainment=1.0, replications=16, low=1.0)


def test_a_replayed_trace_confirms_nothing_and_a_trace_with_times_gives_sizes(spec):
    with pytest.raises(InputError, match="replayed trace is the same in every replication"):
        attain(spec.with_rate(1), 0.9, None, replace(QUICK, process=Process(kind="trace")))
    trace = Trace(input_tokens=np.array([100, 200]), output_tokens=np.array([50, 80]), arrival_s=np.array([0.0, 1.0]))
    _, report = attain(spec.with_rate(1), 0.9, None, QUICK, trace=trace, single_types=False)
    assert report.arrivals == "poisson, 1 req/s"
    assert report.sizes == "the trace's sizes"


@pytest.mark.parametrize(("rate_rps", "warned"), [(2.0, False), (6.0, True)])
def test_replications_of_less_than_ten_minutes_are_warned_of(spec, rate_rps, warned):
    plan, _ = attain(spec.with_rate(rate_rps), 0.9, None, QUICK, single_types=False)
    assert any("queues that grow over minutes" in warning for warning in plan.warnings) is warned


def test_replications_beyond_memory_are_refused_before_they_are_played(spec):
    with pytest.raises(InputError, match="a replication has 6,000,000 requests"):
        attain(spec.with_rate(1e4), 0.9)


def test_the_table_names_the_price_of_the_promise_and_every_type(answer):
    from melange.report.plans import render_plan

    text = render_plan(answer[0])
    for words in (
        "confirmed at",
        "with 95% confidence",
        "target 98%",
        "the promise costs",
        "mean load only",
        "L4 alone",
        "H100 alone",
        "headroom",
        "sequential test",
    ):
        assert words in text
