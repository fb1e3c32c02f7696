"""What a promise stands: against a scan of every growth, and against windows that are known to be too much."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.attainment.standing import AT_MOST, RESOLUTION, _largest_kept, standing_of
from melange.attainment.trial import Trials, attainments_of
from melange.planning.planner import plan_fleet
from melange.simulator.clocks import plan_clocks
from melange.simulator.simulate import SimulationOptions
from melange.slo import Slo
from melange.traces import Trace
from melange.workload.windows import Window

TARGET = 0.95
OPTIONS = SimulationOptions(requests=1200)


@pytest.fixture(scope="module")
def plan(module_spec):
    return plan_fleet(module_spec.with_rate(3).limited(only=("A10G",)).with_headroom(0.4))


@pytest.fixture(scope="module")
def trials(plan):
    return Trials(target=TARGET, options=OPTIONS, clocks=plan_clocks(plan))


@pytest.fixture(scope="module")
def windowed(module_spec):
    """Ten minutes of small requests, ten of nothing, ten of five times as many of the largest."""
    counts = np.zeros((3, 2, 2))
    counts[0, 0, 0], counts[2, 0, 0], counts[2, 1, 0] = 600, 600, 3000
    workload = module_spec.with_rate(3).workload
    mix = np.where(counts.sum(axis=0) > 0, counts.sum(axis=0), 1e-9)
    rates = 3 * mix / mix.sum() * (workload.rate_rps > 0)
    windows = tuple(Window(start_s=600.0 * n, length_s=600.0, requests=c) for n, c in enumerate(counts))
    return replace(workload, rate_rps=rates, windows=windows)


@pytest.fixture(scope="module")
def standing(plan, trials, windowed):
    return standing_of(plan, trials, windowed, replications=2)


def attained(plan, trials, **changes):
    scenario = replace(trials, options=replace(trials.options, **changes)).scenario(plan)
    return float(np.mean(attainments_of(scenario, 0, 2)))


def test_every_growth_told_is_kept_and_the_next_is_not(plan, trials, standing):
    for name, told in (("longer_input", standing.longer_input), ("longer_output", standing.longer_output)):
        assert 0 < told <= AT_MOST
        assert attained(plan, trials, **{name: told}) >= TARGET
        if told < AT_MOST:
            assert attained(plan, trials, **{name: told + RESOLUTION}) < TARGET
    told = standing.more_rate
    assert 0 < told < AT_MOST
    for growth, kept in ((told, True), (told + RESOLUTION, False)):
        found = attained(plan, trials, rate_rps=3 * (1 + growth), requests=round(1200 * (1 + growth)))
        assert (found >= TARGET) == kept


def test_windows_are_told_apart(standing):
    calm, nothing, flood = standing.windows
    assert (calm.start_s, calm.length_s) == (0.0, 600.0)
    assert calm.attainment > 0.99
    assert nothing.attainment is None
    assert nothing.rate_rps == pytest.approx(0, abs=1e-9)
    assert flood.attainment < 0.9
    assert flood.rate_rps == pytest.approx(6 * calm.rate_rps, rel=1e-6)
    assert standing.worst_window is flood


def test_the_same_seeds_tell_the_same(plan, trials, windowed, standing):
    again = standing_of(plan, replace(trials, options=replace(OPTIONS, jobs=2)), windowed, replications=2)
    assert again == standing


def test_a_promise_that_is_not_kept_stands_nothing(plan, trials, module_spec):
    hopeless = replace(trials, options=replace(OPTIONS, rate_rps=60.0))
    found = standing_of(plan, hopeless, module_spec.workload, replications=1)
    assert (found.more_rate, found.longer_input, found.longer_output, found.windows) == (0.0, 0.0, 0.0, ())


def test_a_trace_with_times_is_replayed_in_equal_pieces(plan, trials, module_spec):
    times = np.concatenate([np.linspace(0, 500, 1000), np.linspace(500, 1000, 2000)])
    trace = Trace(input_tokens=np.full(3000, 80), output_tokens=np.full(3000, 60), arrival_s=times)
    found = standing_of(plan, replace(trials, trace=trace), module_spec.workload, replications=1)
    assert [w.start_s for w in found.windows] == pytest.approx([0, 1000 / 3, 2000 / 3])
    # 3 req/s in the mean of 2 in the first half and 4 in the second.
    assert [w.rate_rps for w in found.windows] == pytest.approx([2.0, 3.0, 4.0], rel=0.01)
    assert all(w.attainment is not None for w in found.windows)


@pytest.mark.parametrize(
    ("limit", "told"), [(-0.1, 0.0), (0.004, 0.0), (0.013, 0.01), (0.1, 0.1), (0.235, 0.23), (0.99, 0.99), (9.0, 1.0)]
)
def test_growth_is_found_to_a_percent(limit, told):
    assert _largest_kept(lambda growth: growth <= limit) == pytest.approx(told)


def test_a_chance_hold_above_a_failure_does_not_count():
    assert _largest_kept(lambda growth: growth <= 0.15 or growth > 0.9) == pytest.approx(0.15)


def test_of_percentiles_the_worst_counts_in_a_window_as_in_the_promise(plan, trials, windowed):
    slo = Slo(tpot_s=0.12, tpot_definition="e2e_per_token", ttft_s=0.08, tpot_quantile=0.9, ttft_quantile=0.9)
    both = standing_of(replace(plan, slo=slo), trials, windowed, replications=1).windows
    each = [
        standing_of(replace(plan, slo=own), trials, windowed, replications=1).windows
        for own in (
            Slo(tpot_s=0.12, tpot_definition="e2e_per_token", attainment=0.9), Slo(ttft_s=0.08, attainment=0.9)
        )
    ]  # fmt: skip
    for n in (0, 2):
        assert both[n].attainment == pytest.approx(min(windows[n].attainment for windows in each))
