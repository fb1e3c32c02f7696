"""The promise kept in every window: each played on its own seeds, with the fleet that only one of them needs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.closed_loop import attain
from melange.attainment.ground import ground_of
from melange.attainment.trial import Demand, Trials
from melange.attainment.window_demands import NEXT_TO_NOTHING, of_whole, spec_of, window_demands
from melange.errors import InputError
from melange.planning.planner import choices_of, plan_fleet
from melange.simulator.simulate import SimulationOptions
from melange.traces import Trace
from melange.workload.windows import Window

QUICK = SimulationOptions(requests=1200)


@pytest.fixture(scope="module")
def spec(module_spec):
    """A calm window, a flood of small requests, and some very large ones."""
    windows = []
    for n, row in enumerate(((300, 100, 20), (4800, 100, 20), (60, 20, 900))):
        requests = np.zeros((2, 2))
        requests[0, 0], requests[0, 1], requests[1, 0] = row
        windows.append(Window(start_s=600.0 * n, length_s=600.0, requests=requests))
    mean = np.mean([window.requests for window in windows], axis=0) / 600
    workload = replace(module_spec.workload, rate_rps=mean, windows=tuple(windows))
    return replace(module_spec, workload=workload).limited(only=("L4", "A10G"))


@pytest.fixture(scope="module")
def answer(spec):
    return attain(spec.for_windows(), 0.95, None, QUICK, single_types=False)


def test_every_window_keeps_the_promise_and_the_mean_alone_would_not(spec, answer):
    plan, report = answer
    assert [window.start_s for window in report.windows] == [0.0, 600.0, 1200.0]
    assert all(window.attainment >= 0.95 for window in report.windows)
    mean, _ = attain(spec, 0.95, None, QUICK, single_types=False)
    assert mean.cost_usd_per_hour < plan.cost_usd_per_hour
    assert "windows played as if they lasted" not in (report.shortfall or "")


def test_the_plan_is_one_of_the_whole_workload(spec, answer):
    plan, _ = answer
    assert plan.workload.rate_rps == pytest.approx(spec.workload.total_rate_rps)
    assert sum(bucket.rate_rps for bucket in plan.buckets) == pytest.approx(spec.workload.total_rate_rps)
    assert all(0 < used < 1 for used in plan.utilization.values())
    assert plan.costs.usd_per_hour == plan.cost_usd_per_hour


def test_the_hardest_window_comes_first_and_what_is_left_out_is_not_asked(spec):
    every, some = (window_demands(spec, plan_fleet(spec.for_windows(share))) for share in (1.0, 0.6))
    assert len(every) == 3
    assert len(some) == 2
    assert window_demands(spec, plan_fleet(spec)) == ()
    assert every[-1].start_s == 0.0
    hardest = spec_of(spec, every[0].demand)
    assert hardest.workload.total_rate_rps == pytest.approx(every[0].demand.rate_rps)
    assert len(hardest.workload.buckets()) == 3
    nothing = spec_of(spec, Demand(rate_rps=2.0, probability=np.array([1.0, 0.0, 0.0])))
    assert [b.rate_rps for b in nothing.workload.buckets()] == pytest.approx(
        [2.0, 2 * NEXT_TO_NOTHING, 2 * NEXT_TO_NOTHING]
    )


def test_a_trial_fails_where_any_of_its_demands_does(spec):
    ground = ground_of(choices_of(spec))
    plan = ground.plan(tuple(2 for _ in ground.in_time.instances))
    alone = Trials(target=0.95, options=QUICK, clocks=ground.clocks)
    calm = Demand(rate_rps=0.5, probability=np.array([1.0, 0.0, 0.0]))
    flood = Demand(rate_rps=60.0, probability=np.array([0.0, 0.0, 1.0]))
    assert alone.screen(plan).passed
    assert replace(alone, demands=(calm,)).screen(plan).passed
    broken = replace(alone, demands=(calm, flood))
    result = broken.screen(plan)
    assert not result.passed
    assert result.attainment == alone.look_at(plan, flood).attainment < 0.5
    assert not broken.confirm(plan, 1).passed
    both = replace(alone, demands=(calm,)).confirm(plan, 1)
    assert both.passed
    assert both.replications > alone.confirm(plan, 1).replications
    assert both.low <= alone.confirm(plan, 1).low


def test_windows_have_rates_and_sizes_of_their_own(spec):
    trace = Trace(input_tokens=np.array([100]), output_tokens=np.array([50]))
    with pytest.raises(InputError, match="rates and sizes of their own"):
        attain(spec.for_windows(), 0.95, None, QUICK, trace=trace)
    with pytest.raises(InputError, match="rates and sizes of their own"):
        attain(spec.for_windows(), 0.95, None, replace(QUICK, rate_rps=3.0))


def test_what_is_late_keeps_replicas_busy_too(spec):
    plan = plan_fleet(spec.for_windows(None))
    used = next(name for name, share in plan.buckets[0].shares.items() if share > 0)
    first = plan.buckets[0]
    late = replace(first, shares={}, late_shares=dict(first.shares), late_rate_rps={used: 1e6 * first.rate_rps})
    changed = replace(plan, buckets=(late, *plan.buckets[1:]))
    before, after = (of_whole(each, spec, plan).utilization for each in (plan, changed))
    assert before == pytest.approx(dict(plan.utilization))
    gone = first.shares[used] * first.rate_rps / first.max_rate_rps[used]
    assert after[used] == pytest.approx(
        before[used] - (gone - 1e-6 * first.shares[used]) / plan.replicas[used], rel=1e-9
    )
