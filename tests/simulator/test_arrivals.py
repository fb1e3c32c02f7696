from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.errors import InputError
from melange.planning.planner import plan_fleet
from melange.simulator.arrivals import Process, Sizes, arrival_times, drawn_process, plan_sizes
from melange.simulator.failures import FailureRule, outages


@pytest.mark.parametrize(("text", "cv"), [("poisson", 1.0), ("gamma:2.5", 2.5), ("gamma:0.5", 0.5)])
def test_gaps_have_the_mean_and_variation_asked_for(text, cv):
    gaps = np.diff(arrival_times(Process.parse(text), 200_000, 4.0, np.random.default_rng(1)))
    assert gaps.mean() == pytest.approx(0.25, rel=0.02)
    assert gaps.std() / gaps.mean() == pytest.approx(cv, rel=0.03)


def test_mmpp_keeps_the_rate_and_clusters():
    times = arrival_times(Process.parse("mmpp"), 200_000, 4.0, np.random.default_rng(1))
    assert len(times) / times[-1] == pytest.approx(4.0, rel=0.05)
    per_minute = np.bincount((times // 20).astype(int))
    assert per_minute.var() > 4 * per_minute.mean()  # a Poisson count has variance = mean


def test_a_workloads_burstiness_shapes_what_is_drawn(small_spec):
    def drawn(cv: float | None) -> Process:
        workload = replace(small_spec.workload, burstiness_cv=cv)
        return drawn_process(plan_fleet(replace(small_spec, workload=workload)))

    assert drawn(None) == Process(kind="poisson")
    assert drawn(3.5) == Process(kind="gamma", cv=3.5)
    assert arrival_times(drawn(0.0), 3, 2.0, np.random.default_rng(0)).tolist() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize("text", ["gamma", "gamma:0", "gamma:x", "poisson:2", "uniform", ""])
def test_unknown_processes_are_refused(text):
    with pytest.raises(InputError, match="arrivals are"):
        Process.parse(text)


def test_spread_sizes_stay_in_their_buckets_and_keep_the_means(small_spec):
    plan = plan_fleet(small_spec)
    sizes = plan_sizes(plan)
    inputs, outputs, cached = sizes.draw(100_000, np.random.default_rng(2))
    assert cached.max() == 0
    low = {100: 0, 1000: 100}, {100: 0, 500: 100}
    for b in plan.buckets:
        here = (inputs > low[0][b.input_tokens_max]) & (inputs <= b.input_tokens_max)
        here &= (outputs > low[1][b.output_tokens_max]) & (outputs <= b.output_tokens_max)
        share = b.rate_rps / sum(x.rate_rps for x in plan.buckets)
        assert here.mean() == pytest.approx(share, abs=0.01)
        assert inputs[here].mean() == pytest.approx(b.mean_input_tokens, rel=0.03)
        assert outputs[here].mean() == pytest.approx(b.mean_output_tokens, rel=0.03)


def test_sizes_without_spread_are_the_means():
    sizes = Sizes(tokens=np.array([[30.4, 7.0, 50.0]]), probability=np.ones(1), source="")
    inputs, outputs, cached = sizes.draw(5, np.random.default_rng(0))
    assert (set(inputs.tolist()), set(outputs.tolist()), set(cached.tolist())) == ({30}, {7}, {30})


@pytest.mark.parametrize("text", ["L4", "L4@", "L4@-1", "L4~0", "@5", "L4@5+", "L4@x"])
def test_failures_that_make_no_sense_are_refused(text):
    with pytest.raises(InputError, match="failure"):
        FailureRule.parse(text)


def test_failures_at_a_time_take_one_replica_each():
    rules = [FailureRule.parse("L4@5+2"), FailureRule.parse("L4@5+2"), FailureRule.parse("L4@5+2")]
    found = outages(rules, ["A10G", "L4", "L4"], [False] * 3, 100.0, np.random.default_rng(0))
    assert [(o.replica, o.at_s, o.down_s) for o in found] == [(1, 5.0, 2.0), (2, 5.0, 2.0)]


def test_failures_at_a_rate_come_as_often_as_asked_and_spare_what_is_not_spot():
    rule = [FailureRule.parse("spot~10+60")]
    found = outages(rule, ["A", "B"], [True, False], 3600.0 * 500, np.random.default_rng(0))
    assert {o.replica for o in found} == {0}
    assert len(found) == pytest.approx(500 * 3600 / (360 + 60), rel=0.05)
