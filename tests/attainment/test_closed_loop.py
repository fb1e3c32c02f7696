"""The closed loop on small workloads."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from rechecks import recheck

from melange.attainment.closed_loop import attain
from melange.attainment.fleets import allowed
from melange.attainment.ground import ground_of
from melange.attainment.trial import Trials
from melange.errors import InfeasibleError, InputError
from melange.plan.file import read_plan, write_plan
from melange.planning.limits import TypeLimit
from melange.planning.options import SolveOptions
from melange.planning.planner import choices_of, plan_fleet
from melange.planning.workload_file import load_workload
from melange.routing import policy_by_name
from melange.simulator.arrivals import Process
from melange.simulator.clocks import plan_clocks
from melange.simulator.simulate import SimulationOptions
from melange.slo import Slo
from melange.solver.problem import Status
from melange.traces import Trace

QUICK = SimulationOptions(requests=1500)


@pytest.fixture(scope="module")
def spec():
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


@pytest.fixture(scope="module")
def judged(spec):
    """Whether fleets of the workload, by machine, pass both tests."""
    ground = ground_of(choices_of(spec.with_rate(3)))
    trials = Trials(target=0.98, options=QUICK, clocks=ground.clocks)

    def passes(instances):
        plan = ground.plan(tuple(instances.get(key, 0) for key in ground.in_time.instances))
        return plan is not None and trials.screen(plan).passed and trials.confirm(plan, 1).passed

    return ground, passes


def test_no_cheaper_fleet_passes(answer, judged):
    # Brute force: every fleet below the answer, each simulated, whatever the program believes of it.
    plan, report = answer
    ground, passes = judged
    prices = ground.in_time.price_usd_per_hour
    ranges = [range(int(plan.cost_usd_per_hour / price) + 1) for price in prices]
    cheaper = [
        counts
        for counts in product(*ranges)
        if any(counts) and prices @ counts < plan.cost_usd_per_hour - 1e-9 and allowed(ground.in_time, counts)
    ]
    assert cheaper
    for counts in cheaper:
        assert not passes(dict(zip(ground.in_time.instances, counts, strict=True))), counts
    assert report.complete
    # Simulation proves nothing.
    assert (plan.status, plan.gap, plan.bound_usd_per_hour) == (Status.FEASIBLE, None, None)


def test_every_type_alone_is_sized_to_the_same_promise(answer):
    plan, report = answer
    sized = {gpu: fleet for gpu, fleet in report.single_type.items() if fleet.cost_usd_per_hour is not None}
    assert sized
    for gpu, fleet in sized.items():
        assert fleet.attainment >= 0.98
        # Dearer ones have a quick look only; what was put to the test stood it.
        assert fleet.attainment_low is None or fleet.attainment_low >= 0.98
        assert plan.baselines[gpu].cost_usd_per_hour == fleet.cost_usd_per_hour
        assert fleet.cost_usd_per_hour >= plan.cost_usd_per_hour - 1e-9
    for gpu, fleet in report.single_type.items():
        assert (fleet.reason is None) == (gpu in sized)


def test_single_types_are_the_smallest_that_pass(answer, judged):
    # Brute force: one GPU fewer of any type fails.
    _, passes = judged
    for gpu, fleet in answer[1].single_type.items():
        if gpu == "L4" or fleet.instances is None:
            continue  # L4 is on its plateau: one more of it hardly helps, and seeds decide.
        assert not passes({key: count - 1 for key, count in fleet.instances.items()})


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


def test_limits_hold_although_the_best_single_type_breaks_them(spec):
    types = {"H100": TypeLimit(minimum=1), "A10G": TypeLimit(maximum=1)}
    limited = replace(spec, limits=replace(spec.limits, types=types, max_cost_usd_per_hour=12.0)).with_rate(1)
    plan, report = attain(limited, 0.9, None, QUICK)
    assert plan.instances["H100"] >= 1
    assert plan.instances.get("A10G", 0) <= 1
    assert plan.cost_usd_per_hour <= 12.0
    assert report.single_type["L4"].reason == "the limits allow no fleet of it alone"
    with pytest.raises(InfeasibleError, match=r"no fleet within the limits was confirmed to attain 90%"):
        attain(replace(limited, limits=replace(limited.limits, max_cost_usd_per_hour=7.0)), 0.9, None, QUICK)


def test_tied_outputs_keep_the_promise_too(spec):
    plan, report = attain(spec.with_rate(1), 0.9, SolveOptions(tie_outputs=True), QUICK)
    assert plan.routing == "input-only"
    assert report.fleet.attainment_low >= 0.9
    shares = {}
    for bucket in plan.buckets:
        assert shares.setdefault(bucket.input_tokens_max, bucket.shares) == bucket.shares


def test_the_answer_does_not_hang_on_jobs(spec):
    one, two = (attain(spec.with_rate(1), 0.9, None, replace(QUICK, jobs=jobs)) for jobs in (1, 2))
    assert one[1] == two[1]
    assert one[0].replicas == two[0].replicas


def test_a_spent_budget_is_said_and_no_bound_is_claimed(spec):
    plan, report = attain(spec.with_rate(3), 0.98, None, QUICK, max_fleets=1)
    assert not report.complete
    assert report.not_ruled_out
    assert plan.status == Status.FEASIBLE
    assert plan.bound_usd_per_hour is None
    assert report.fleet.attainment_low >= 0.98
    assert any("ended" in (fleet.reason or "") for fleet in report.single_type.values())


def test_a_fleet_that_the_program_calls_too_small_is_found():
    # 2 x L40S in fp8 carry 8 req/s of this, A100s alone are dearer.
    spec = load_workload("azure-conversation").with_rate(8)
    spec = replace(
        spec,
        serving=replace(spec.serving, precisions=("fp16", "fp8"), tp=(1,), batched_tokens=(512, 2048)),
        limits=replace(spec.limits, only=("L40S", "A100-80GB")),
    )
    lines = []
    plan, report = attain(spec, 0.99, None, QUICK, on_progress=lines.append)
    assert dict(plan.instances) == {"L40S": 2}
    assert plan.cost_usd_per_hour == pytest.approx(2.18, abs=0.01)
    assert report.complete
    assert any(line.startswith("2 x L40S: confirmed, attainment") for line in lines)


def test_a_replay_needs_a_trace_with_times_and_a_trace_gives_sizes(spec):
    replay = replace(QUICK, process=Process(kind="trace"))
    with pytest.raises(InputError, match="none was given"):
        attain(spec.with_rate(1), 0.9, None, replay)
    untimed = Trace(input_tokens=np.array([100, 200]), output_tokens=np.array([50, 80]))
    with pytest.raises(InputError, match="no arrival times"):
        attain(spec.with_rate(1), 0.9, None, replay, trace=untimed)
    trace = Trace(input_tokens=np.array([100, 200]), output_tokens=np.array([50, 80]), arrival_s=np.array([0.0, 1.0]))
    _, report = attain(spec.with_rate(1), 0.9, None, QUICK, trace=trace, single_types=False)
    assert report.arrivals == "poisson, 1 req/s"
    assert report.sizes == "the trace's sizes"


def test_a_trace_in_bursts_takes_more_than_its_sizes_at_random(spec):
    # A hundred requests at once every twenty-five seconds.
    rng = np.random.default_rng(5)
    times = np.repeat(np.arange(20) * 25.0, 100) + np.tile(np.arange(100) * 1e-3, 20)
    sizes = rng.integers(20, 400, (2, len(times)))
    trace = Trace(input_tokens=sizes[0], output_tokens=sizes[1], arrival_s=times)
    asked = {"trace": trace, "single_types": False}
    smooth, _ = attain(spec.with_rate(4), 0.9, None, replace(QUICK, process=Process(kind="poisson")), **asked)
    bursty, report = attain(spec.with_rate(4), 0.9, None, replace(QUICK, process=Process(kind="trace")), **asked)
    assert report.arrivals == "trace, 4 req/s"
    assert bursty.cost_usd_per_hour > smooth.cost_usd_per_hour


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
        "with 90% confidence",
        "target 98%",
        "than the plan for the mean load",
        "mean load only",
        "L4 alone",
        "H100 alone",
        "headroom",
        "sequential test",
    ):
        assert words in text


def test_owned_machines_come_first_and_the_rest_is_rented(spec, judged):
    """Brute force: of what is owned and rented beside it, no cheaper fleet passes."""
    owning = spec.with_rate(3.5).limited(owned={"L4": (2, None)}, exclude=("H100",))
    plan, report = attain(owning, 0.98, None, QUICK)
    assert report.complete
    assert plan.instances.get("L4@owned", 0) > 0
    _, passes = judged  # on rented machines, which do as well, and at a little less load
    prices = {config.instance_key: config.price_usd_per_hour for config in plan.configs.values()}
    assert prices["L4@owned"] == 0
    assert plan.cost_usd_per_hour == pytest.approx(sum(prices[key] * n for key, n in plan.instances.items()))
    rented = [key for key in ("L4", "A10G", "A100-80GB") if key in prices]
    ranges = [range(int(plan.cost_usd_per_hour / prices[key]) + 1) for key in rented]
    for counts in product(*ranges):
        if np.dot([prices[key] for key in rented], counts) < plan.cost_usd_per_hour - 1e-9:
            named = dict(zip(rented, counts, strict=True))
            assert not passes({**named, "L4": named["L4"] + 2}), named


def test_enough_machines_owned_cost_nothing_and_nothing_is_cheaper(spec):
    plan, report = attain(spec.with_rate(3).limited(owned={"A100-80GB": (4, None)}), 0.98, None, QUICK)
    assert plan.cost_usd_per_hour == 0
    assert report.complete
    assert 1 <= plan.instances["A100-80GB@owned"] < 4
    assert set(plan.instances) == {"A100-80GB@owned"}
    assert report.savings == 0


def each(spec, quantile, **limits):
    return spec.with_slo(Slo(**limits, **{name.replace("_s", "_quantile"): quantile for name in limits}))


def test_percentiles_never_take_more_than_the_same_jointly(small_spec):
    spec, limits = (
        small_spec.with_rate(2).with_fill("estimated").limited(only=("A10G",)),
        {"tpot_s": 0.06, "ttft_s": 0.3},
    )

    def answer(asked):
        plan, report = attain(asked, None, None, QUICK, standing=0, single_types=False)
        return plan.cost_usd_per_hour, report

    joint, _ = answer(spec.with_slo(Slo(**limits, attainment=0.95)))
    alone, report = answer(each(spec, 0.95, **limits))
    assert alone <= joint
    assert (report.percentiles, report.target) == (True, 0.95)
    assert report.fleet.attainment_low >= 0.95


def test_the_promise_is_the_slo_s_own_where_no_target_is_asked(small_spec):
    with pytest.raises(InputError, match="about means and states no share"):
        attain(small_spec)
    with pytest.raises(InputError, match="promises percentiles, p95 TTFT <= 300 ms, and the target"):
        attain(each(small_spec, 0.95, ttft_s=0.3), 0.9)


@pytest.mark.parametrize(("name", "rate"), [("box-70b", 6)])
def test_a_machine_is_judged_by_the_degree_that_suits_it(shared, name, rate):
    spec = load_workload(shared / "cases" / f"{name}.yaml").with_rate(rate)
    plan, report = attain(spec, None, None, SimulationOptions(requests=1500), standing=0)
    assert plan.instances == {"my-box": 1}
    assert report.fleet.attainment_low >= report.target
