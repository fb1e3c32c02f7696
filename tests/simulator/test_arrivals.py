from __future__ import annotations

import numpy as np
import pytest

from melange.errors import InputError
from melange.planning.planner import plan_fleet
from melange.simulator.arrivals import (
    Process,
    Sizes,
    arrival_times,
    drawn_process,
    lengthened,
    plan_sizes,
    replayed_arrivals,
)
from melange.traces import Trace


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


def test_a_workloads_burstiness_shapes_what_is_drawn():
    assert drawn_process(None) == Process(kind="poisson")
    assert drawn_process(3.5) == Process(kind="gamma", cv=3.5)
    assert arrival_times(drawn_process(0.0), 3, 2.0, np.random.default_rng(0)).tolist() == [0.5, 1.0, 1.5]


@pytest.mark.parametrize(
    "text", ["gamma", "gamma:0", "gamma:x", "gamma:1e300", "gamma:1e-300", "gamma:nan", "poisson:2", "uniform", ""]
)
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


TRACE = Trace(
    input_tokens=np.array([10, 20, 9999, 30]),
    output_tokens=np.array([1, 2, 3, 4]),
    arrival_s=np.array([100.0, 101.0, 102.0, 104.0]),
)
INSIDE = np.array([True, True, False, True])


def test_a_trace_goes_round_from_any_of_its_requests():
    # Three requests in four seconds: at twice their rate they take half the time.
    once = replayed_arrivals(TRACE, INSIDE, None, 1.5)
    assert once.arrival_s == pytest.approx([0.0, 0.5, 2.0])
    round_ = replayed_arrivals(TRACE, INSIDE, 5, 1.5, first=1)
    assert round_.input_tokens.tolist() == [20, 30, 10, 20, 30]
    assert round_.output_tokens.tolist() == [2, 4, 1, 2, 4]
    # The gap from the last to the first is the mean one, 4/3 s in the trace.
    assert np.diff(round_.arrival_s) == pytest.approx([1.5, 2 / 3, 0.5, 1.5])


def test_longer_requests_come_at_the_same_times():
    once = replayed_arrivals(TRACE, INSIDE, None, 1.5)
    longer = lengthened(once, 0.5, 1.0)
    assert longer.input_tokens.tolist() == [15, 30, 45]
    assert longer.output_tokens.tolist() == [2, 4, 8]
    assert np.array_equal(longer.arrival_s, once.arrival_s)
    assert lengthened(once, 0.0, 0.0) is once
