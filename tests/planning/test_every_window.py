"""Fleets for every window: against each window's own plan, another solver, and what a stated share leaves out."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from benchmarks.oracles import milp_fleet

from melange.analysis.efficiency import fractional_costs
from melange.analysis.uncertainty import solve_with_uncertainty
from melange.errors import InputError
from melange.plan.file import plan_of_record, plan_record
from melange.planning.options import SolveOptions
from melange.planning.planner import plan_fleet, prepare
from melange.planning.workload_file import dump_workload, load_workload
from melange.simulator.simulate import SimulationOptions, simulate
from melange.slo import Slo
from melange.workload.windows import Window

FEW = {"only": ("L40S", "A100-80GB", "H200")}
SHIPPED = ("azure-conversation", "azure-code", "mooncake-conversation")


def windowed(spec, *counts):
    """The small workload (100x100, 100x500, 1000x100 tokens) with windows of ten minutes that hold these requests."""
    windows = []
    for n, row in enumerate(counts):
        requests = np.zeros((2, 2))
        requests[0, 0], requests[0, 1], requests[1, 0] = row
        windows.append(Window(start_s=600.0 * n, length_s=600.0, requests=requests))
    mean = np.mean([window.requests for window in windows], axis=0) / 600
    return replace(spec, workload=replace(spec.workload, rate_rps=mean, windows=tuple(windows)))


def alone(spec, n):
    return replace(spec, workload=spec.workload.in_window(n), window_share=None)


@pytest.fixture
def opposite(small_spec):
    """Many small requests, then many large ones, then few of each."""
    return windowed(small_spec, (9000, 600, 60), (600, 600, 3000), (300, 100, 100))


def test_it_costs_at_least_what_each_window_does_and_the_mean_and_no_more_than_their_sum(opposite):
    plan = plan_fleet(opposite.for_windows())
    own = [plan_fleet(alone(opposite, n)).cost_usd_per_hour for n in range(3)]
    mean = plan_fleet(opposite).cost_usd_per_hour
    assert plan.status == "optimal"
    assert max(*own, mean) - 1e-9 <= plan.cost_usd_per_hour <= sum(own)
    assert plan.windows.mean_usd_per_hour == pytest.approx(mean)
    assert [window.kept for window in plan.windows.windows] == [True] * 3
    assert all(window.utilization <= 1 + 1e-9 for window in plan.windows.windows)
    # Three machines of which no two windows could do without the same: the shares move, the machines do not.
    assert [window.rate_rps for window in plan.windows.windows] == pytest.approx([16.1, 7.0, 5 / 6])
    assert not plan.windows.windows[2].binding


def test_the_same_windows_twice_change_nothing(small_spec):
    once = windowed(small_spec, (1200, 600, 300), (600, 600, 60))
    twice = windowed(small_spec, (1200, 600, 300), (600, 600, 60), (1200, 600, 300), (600, 600, 60))
    plan, other = plan_fleet(once.for_windows()), plan_fleet(twice.for_windows())
    assert plan.instances == other.instances
    assert plan.cost_usd_per_hour == other.cost_usd_per_hour


@pytest.mark.parametrize("name", SHIPPED)
def test_another_solver_agrees_on_shipped_workloads(name):
    tp = (2, 4) if name.startswith("mooncake") else (1,)
    spec = load_workload(name).limited(**FEW).with_serving(batched_tokens=(512,), tp=tp).for_windows()
    plan, opinion = plan_fleet(spec), milp_fleet(prepare(spec).problem, gap=1e-4)
    assert opinion is not None
    assert plan.status == "optimal"
    assert plan.cost_usd_per_hour == pytest.approx(opinion.cost, rel=2e-3)
    assert plan.bound_usd_per_hour <= opinion.cost * (1 + 1e-6)
    used = [window.utilization for window in plan.windows.windows]
    assert max(used) <= 1 + 1e-9
    assert plan.cost_usd_per_hour >= plan.windows.mean_usd_per_hour * (1 - 2e-3)


def test_a_stated_share_leaves_out_the_windows_of_the_most_load(opposite):
    whole, most, few = (plan_fleet(opposite.for_windows(share)) for share in (1.0, 0.6, 0.3))
    assert whole.cost_usd_per_hour >= most.cost_usd_per_hour >= few.cost_usd_per_hour
    assert [window.kept for window in most.windows.windows].count(False) == 1
    assert [window.kept for window in few.windows.windows] == [False, False, True]
    # The mean load is carried even then.
    assert few.cost_usd_per_hour >= few.windows.mean_usd_per_hour
    left = next(window for window in most.windows.windows if not window.kept)
    assert f"without those of the most load: {left.describe()}" in most.windows.describe()
    assert "planned for 2 of 3 windows" in most.windows.describe()
    assert "every one of 3 windows" in whole.windows.describe()


def test_shares_are_those_of_the_mean_mix_and_a_router_follows_them(opposite):
    plan = plan_fleet(opposite.for_windows())
    assert len(plan.buckets) == 3
    assert all(sum(bucket.shares.values()) == pytest.approx(1) for bucket in plan.buckets)
    load = dict.fromkeys(plan.replicas, 0.0)
    for bucket in plan.buckets:
        for name, share in bucket.shares.items():
            load[name] += share * bucket.rate_rps / bucket.max_rate_rps[name]
    assert {name: load[name] / count for name, count in plan.replicas.items()} == pytest.approx(plan.utilization)
    assert simulate(plan, options=SimulationOptions(requests=500, replications=1)).attainment.mean > 0.9


def test_a_window_without_requests_and_a_size_that_a_window_lacks_are_no_demand(small_spec):
    plan = plan_fleet(windowed(small_spec, (600, 600, 0), (0, 0, 0), (0, 0, 600)).for_windows())
    assert len(plan.windows.windows) == 2
    assert plan.status == "optimal"


def test_headroom_scales_every_window(opposite):
    plain, roomy = plan_fleet(opposite.for_windows()), plan_fleet(opposite.with_headroom(0.5).for_windows())
    assert roomy.cost_usd_per_hour > plain.cost_usd_per_hour
    assert max(window.utilization for window in roomy.windows.windows) <= 1 / 1.5 + 1e-9


@pytest.mark.parametrize(
    "options", [SolveOptions(tie_outputs=True), SolveOptions(slice_factor=4), SolveOptions(explain=True)]
)
def test_other_wishes_hold_too(opposite, options):
    plan = plan_fleet(opposite.for_windows(), options)
    assert plan.solved
    assert plan.cost_usd_per_hour >= plan_fleet(opposite.for_windows()).cost_usd_per_hour - 1e-9
    assert plan_of_record(plan_record(plan)) == plan


def test_what_may_be_late_under_an_attainment_slo_may_be_so_in_every_window():
    spec = load_workload("azure-conversation").limited(**FEW).with_serving(batched_tokens=(512,), tp=(1,))
    spec = spec.with_slo(Slo(tpot_s=0.05, tpot_definition="decode", attainment=0.9)).for_windows()
    plan = plan_fleet(spec)
    assert plan.status == "optimal"
    assert all(window.utilization <= 1 + 1e-9 for window in plan.windows.windows)


def test_a_cap_that_one_window_breaks_is_named(opposite):
    types = plan_fleet(opposite).configs
    capped = opposite.for_windows().limited(maximum={config.gpu: 1 for config in types.values()})
    plan = plan_fleet(capped.with_rate(100))
    assert plan.status == "infeasible"
    assert any("<= 1" in reason for reason in plan.reasons)


def test_no_windows_is_told_at_the_key(tmp_path, small_spec):
    with pytest.raises(InputError, match="no windows to plan for"):
        plan_fleet(small_spec.for_windows())
    path = tmp_path / "w.yaml"
    path.write_text(dump_workload(small_spec.for_windows()))
    line = path.read_text().split("for_every_window")[0].count("\n") + 1
    with pytest.raises(InputError, match="no windows to plan for") as caught:
        plan_fleet(load_workload(path))
    assert (caught.value.file, caught.value.line) == (str(path), line)


@pytest.mark.parametrize(("share", "written"), [(1.0, "true"), (0.95, "0.95"), (None, None)])
def test_the_key_is_written_and_read(tmp_path, opposite, share, written):
    path = tmp_path / "w.yaml"
    path.write_text(dump_workload(opposite.for_windows(share)))
    found = [line for line in path.read_text().splitlines() if line.startswith("for_every_window")]
    assert found == ([] if written is None else [f"for_every_window: {written}"])
    assert load_workload(path).window_share == share


@pytest.mark.parametrize("written", ["0", "1.5", "often", "-0.1"])
def test_a_share_that_is_none_is_refused_with_its_place(tmp_path, opposite, written):
    path = tmp_path / "w.yaml"
    path.write_text(
        dump_workload(opposite.for_windows()).replace("for_every_window: true", f"for_every_window: {written}")
    )
    with pytest.raises(InputError) as caught:
        load_workload(path)
    assert caught.value.line is not None


def test_false_in_a_file_is_the_whole_mix(tmp_path, opposite):
    path = tmp_path / "w.yaml"
    path.write_text(dump_workload(opposite.for_windows()).replace("for_every_window: true", "for_every_window: false"))
    assert load_workload(path).window_share is None


def test_what_knows_no_windows_says_so_or_takes_the_whole_mix(opposite):
    with pytest.raises(InputError, match="odds are those of the whole mix"):
        solve_with_uncertainty(opposite.for_windows(), draws=10)
    assert fractional_costs(opposite.for_windows()) == fractional_costs(opposite)
    with pytest.raises(InputError, match="share of windows is 0"):
        opposite.for_windows(0.0)
