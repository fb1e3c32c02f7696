"""Whole fleets: conservation through failures, same bytes from the same seed, load and attainment, honest intervals."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest

from melange.errors import InputError
from melange.routing import policy_by_name
from melange.simulator.arrivals import Process
from melange.simulator.failures import FailureRule
from melange.simulator.metrics import CAUSES, Estimate
from melange.simulator.simulate import (
    SimulationOptions,
    compare_policies,
    replicate,
    replications_of,
    scenario_of,
    simulate,
)
from melange.traces import Trace

QUICK = SimulationOptions(requests=1500, replications=3)


def test_requests_and_tokens_are_conserved_through_failures(plan, clocks):
    rules = (FailureRule.parse("A100-80GB@20+40"), FailureRule.parse("*~40+15"))
    options = replace(QUICK, failures=rules, warmup_share=0.0)
    scenario = scenario_of(plan, None, options, clocks=clocks)
    kept = replicate(scenario, 0)
    outcome = kept.outcome
    assert kept.outages > 5
    assert outcome.restarts.sum() > 0
    assert not np.isnan(outcome.e2e_s).any()
    arrived = scenario.arrivals(0)
    assert outcome.output_tokens.sum() == arrived.output_tokens.sum()
    assert kept.tokens_lost > 0
    assert (outcome.cause[(outcome.restarts > 0) & ~outcome.met] == list(CAUSES).index("failure")).all()


def test_requests_wait_for_a_replica_and_are_lost_only_when_none_returns(plan, clocks):
    back = replace(
        QUICK, failures=(FailureRule.parse("L4@10+30"), FailureRule.parse("A100-80GB@10+60")), warmup_share=0.0
    )
    assert simulate(plan, None, back, clocks=clocks).means.unserved_share == 0
    gone = replace(QUICK, failures=(FailureRule.parse("L4@10"), FailureRule.parse("A100-80GB@10")), warmup_share=0.0)
    report = simulate(plan, None, gone, clocks=clocks)
    assert report.means.unserved_share > 0.8
    assert report.attainment.mean < 0.2


@pytest.mark.parametrize("policy", ["paper", "shares", "power-of-two:oracle", "shares:predictor=0.6"])
def test_the_same_seed_gives_the_same_bytes(plan, clocks, policy):
    options = replace(QUICK, policy=policy_by_name(policy), failures=(FailureRule.parse("*~5+20"),))
    first, again = (json.dumps(simulate(plan, None, options, clocks=clocks).to_dict()) for _ in range(2))
    other = json.dumps(simulate(plan, None, replace(options, seed=1), clocks=clocks).to_dict())
    assert first == again
    assert first != other


def test_processes_change_nothing(plan, clocks):
    alone = simulate(plan, None, QUICK, clocks=clocks).to_dict()
    assert simulate(plan, None, replace(QUICK, jobs=2), clocks=clocks).to_dict() == alone


def test_attainment_does_not_rise_with_load_over_paired_seeds(plan, clocks):
    def attainments(rate: float) -> np.ndarray:
        scenario = scenario_of(plan, None, replace(QUICK, rate_rps=rate), clocks=clocks)
        return np.array([r.outcome.met.mean() for r in replications_of(scenario, 0, 6)])

    levels = [attainments(rate) for rate in (2.0, 4.0, 6.0, 9.0)]
    for less, more in pairwise(levels):
        difference = more - less
        error = difference.std(ddof=1) / np.sqrt(len(difference))
        assert difference.mean() <= 3 * error + 1e-12
    assert levels[-1].mean() < levels[0].mean()


def test_the_first_requests_warm_up_and_are_not_counted(plan, clocks):
    options = replace(QUICK, requests=200, warmup_share=0.25)
    scenario = scenario_of(plan, None, options, clocks=clocks)
    kept = replicate(scenario, 0)
    np.testing.assert_array_equal(kept.outcome.arrival_s, scenario.arrivals(0).arrival_s[50:])
    assert simulate(plan, None, options, clocks=clocks).warmup_requests == 50


def test_a_replayed_trace_keeps_its_times_and_sizes(plan, clocks):
    draw = np.random.default_rng(0)
    trace = Trace(
        input_tokens=draw.integers(0, 2500, 400),
        output_tokens=draw.integers(0, 600, 400),
        arrival_s=draw.exponential(0.4, 400).cumsum() + 1000,
    )
    inside = (trace.input_tokens > 0) & (trace.output_tokens > 0) & (trace.input_tokens <= 2000)
    report = simulate(plan, trace, SimulationOptions(warmup_share=0.0), clocks=clocks)
    assert report.requests == inside.sum()
    assert report.replications == 1
    recorded = inside.sum() / np.ptp(trace.arrival_s)
    assert report.arrivals == f"trace, {sum(b.rate_rps for b in plan.buckets):g} req/s (recorded: {recorded:.4g})"
    assert report.attainment.low is None
    assert any(f"{400 - inside.sum()} requests of the trace" in text for text in report.warnings)


def replayed(plan, clocks, trace, **options):
    return scenario_of(plan, trace, SimulationOptions(**options), clocks=clocks).arrivals(0)


def test_a_replayed_trace_is_scaled_to_the_rate_and_keeps_its_order(plan, clocks):
    trace = Trace(
        input_tokens=np.array([30, 20, 10, 40, 5000]),
        output_tokens=np.array([3, 2, 1, 4, 1]),
        arrival_s=np.array([6.0, 2.0, 0.0, 2.0, 8.0]),
    )
    # Four requests inside in 8 s: half a request a second.
    slow = replayed(plan, clocks, trace, rate_rps=0.5)
    assert slow.arrival_s.tolist() == [0, 2, 2, 6]
    assert slow.input_tokens.tolist() == [10, 20, 40, 30]
    fast = replayed(plan, clocks, trace, rate_rps=2.0)
    np.testing.assert_allclose(fast.arrival_s, slow.arrival_s / 4)
    assert fast.output_tokens.tolist() == slow.output_tokens.tolist()
    part = replayed(plan, clocks, trace, rate_rps=2.0, requests=2)
    np.testing.assert_allclose(part.arrival_s, [0, 0.5])


def test_a_replayed_trace_runs_at_the_plans_rate_by_default(plan, clocks):
    times = np.random.default_rng(0).exponential(3.0, 600).cumsum()
    trace = Trace(input_tokens=np.full(600, 100), output_tokens=np.full(600, 50), arrival_s=times)
    rate = sum(b.rate_rps for b in plan.buckets)
    drawn = replayed(plan, clocks, trace)
    assert 600 / drawn.arrival_s[-1] == pytest.approx(rate)
    gaps = np.diff(drawn.arrival_s), np.diff(times)
    assert gaps[0].std() / gaps[0].mean() == pytest.approx(gaps[1].std() / gaps[1].mean())


@pytest.mark.parametrize("times", [[7.0], [7.0, 7.0]])
def test_a_trace_of_one_instant_cannot_be_scaled(plan, clocks, times):
    sizes = np.full(len(times), 50)
    trace = Trace(input_tokens=sizes, output_tokens=sizes, arrival_s=np.array(times))
    with pytest.raises(InputError, match=r"arrive in one instant.*--arrivals poisson"):
        scenario_of(plan, trace, SimulationOptions(), clocks=clocks)
    assert len(replayed(plan, clocks, trace, process=Process.parse("poisson"), requests=5)) == 5


def test_arrivals_are_by_default_as_uneven_as_the_workload_says(plan, clocks):
    bursty = replace(plan, workload=replace(plan.workload, burstiness_cv=3.0))
    report = simulate(bursty, None, QUICK, clocks=clocks)
    asked = simulate(plan, None, replace(QUICK, process=Process.parse("gamma:3")), clocks=clocks)
    assert report.arrivals.startswith("gamma:3,")
    assert report.attainment == asked.attainment
    poisson = simulate(bursty, None, replace(QUICK, process=Process.parse("poisson")), clocks=clocks)
    assert poisson.attainment == simulate(plan, None, QUICK, clocks=clocks).attainment


def test_bursty_arrivals_attain_less(plan, clocks):
    shares = {}
    for name in ("poisson", "gamma:3", "mmpp"):
        options = replace(QUICK, requests=4000, process=Process.parse(name), rate_rps=6.0)
        shares[name] = simulate(plan, None, options, clocks=clocks).attainment.mean
    assert shares["gamma:3"] < shares["poisson"]
    assert shares["mmpp"] < shares["poisson"]


def test_policies_meet_the_same_requests_and_blind_ones_do_worse(plan):
    reports = compare_policies(plan, ["shares", "random", "round-robin"], None, QUICK)
    assert reports["shares"].attainment.mean > reports["random"].attainment.mean + 0.2
    assert len({r.means.offered_rps for r in reports.values()}) == 1


def test_t_intervals_cover_the_long_run_attainment(plan, clocks):
    options = replace(QUICK, requests=600, rate_rps=5.0, policy=policy_by_name("shares:oracle"))
    scenario = scenario_of(plan, None, options, clocks=clocks)
    values = [r.outcome.met.mean() for r in replications_of(scenario, 0, 200)]
    truth = float(np.mean(values))
    covered = 0
    for start in range(0, 200, 8):
        estimate = Estimate.of(values[start : start + 8])
        covered += estimate.low <= truth <= estimate.high
    assert covered >= 20  # of 25; 95% would be 23.75


def test_calibrated_clocks_carry_the_mix_at_the_plans_rates(plan, clocks):
    for entry in clocks.values():
        assert entry.median_error < 0.1
        seconds = entry.weights / (1 + entry.errors)
        rates = np.array([b.max_rate_rps[entry.config] for b in plan.buckets if b.max_rate_rps[entry.config]])
        weights = np.array([b.rate_rps for b in plan.buckets if b.max_rate_rps[entry.config]])
        keep = weights >= 1e-3 * weights.sum()
        planned = (weights[keep] / rates[keep]).sum()
        simulated = (weights[keep] / rates[keep] / (1 + entry.errors)).sum()
        assert simulated == pytest.approx(planned, rel=1e-9)
        assert seconds.min() > 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"process": Process(kind="trace")}, "no trace was given"),
        ({"requests": 0}, "requests is 0"),
        ({"warmup_share": 1.0}, "warm-up share"),
        ({"rate_rps": -1.0}, "rate is -1"),
        ({"failures": (FailureRule.parse("H100@5"),)}, "'H100'"),
        ({"failures": (FailureRule.parse("spot@5"),)}, "spot instance"),
    ],
)
def test_bad_options_are_one_clear_line(plan, clocks, change, words):
    with pytest.raises(InputError, match=words) as caught:
        simulate(plan, None, replace(QUICK, **change), clocks=clocks)
    assert "\n" not in str(caught.value)


def test_a_plan_without_its_profile_is_refused(plan):
    bare = replace(plan, buckets=tuple(replace(b, max_rate_rps={}) for b in plan.buckets))
    with pytest.raises(InputError, match="profile is gone"):
        simulate(bare, None, QUICK)
    shapeless = replace(plan, configs={n: replace(c, model_shape=None) for n, c in plan.configs.items()})
    with pytest.raises(InputError, match="model figures"):
        simulate(shapeless, None, QUICK)
    with pytest.raises(InputError, match="rents nothing"):
        simulate(replace(plan, replicas={}), None, QUICK)


def test_a_trace_that_cannot_be_used_is_refused(plan, clocks):
    untimed = Trace(input_tokens=np.array([10]), output_tokens=np.array([10]))
    with pytest.raises(InputError, match="no arrival times"):
        simulate(plan, untimed, replace(QUICK, process=Process(kind="trace")), clocks=clocks)
    huge = Trace(input_tokens=np.array([100_000]), output_tokens=np.array([10]))
    with pytest.raises(InputError, match="lies within the plan's sizes"):
        simulate(plan, huge, QUICK, clocks=clocks)
