from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from late_workloads import profile_of, workload

import melange.analysis.uncertainty as module
from melange import InputError, Slo
from melange.analysis.uncertainty import VARIANCE_SHARES, _errors, judge_fleets, solve_with_uncertainty
from melange.planning.planner import plan_fleet, prepare
from melange.planning.workload_file import load_workload
from melange.report.plans import render_plan


def test_variance_divides_whole():
    assert sum(VARIANCE_SHARES.values()) == pytest.approx(1)


def test_errors_have_the_stated_size_and_hang_together(small_spec):
    choices = prepare(small_spec).choices
    rng = np.random.default_rng(0)
    draws = np.stack([_errors(choices, np.ones(choices.max_rate_rps.shape), rng) for _ in range(4000)])
    assert draws.std(axis=0) == pytest.approx(1.0, abs=0.05)
    across_gpus = np.corrcoef(draws[:, 0, 0], draws[:, 0, 1])[0, 1]
    within_gpu = np.corrcoef(draws[:, 0, 0], draws[:, 1, 0])[0, 1]
    assert across_gpus == pytest.approx(VARIANCE_SHARES["common"], abs=0.06)
    assert within_gpu > across_gpus + 0.2


def test_regret_is_never_negative_and_orders_the_fleets(small_spec):
    odds = judge_fleets(prepare(small_spec.with_rate(12)), draws=20, seed=1)
    regrets = [fleet.mean_regret_usd_per_hour for fleet in odds.fleets]
    assert regrets == sorted(regrets)
    assert regrets[0] >= -1e-6
    assert sum(fleet.share_optimal for fleet in odds.fleets) <= 1 + 1e-9
    for fleet in odds.fleets:
        assert fleet.mean_cost_usd_per_hour >= fleet.cost_usd_per_hour - 1e-9
        assert fleet.p5_cost_usd_per_hour <= fleet.p95_cost_usd_per_hour


def test_same_seed_same_answer(small_spec):
    one, two = (solve_with_uncertainty(small_spec, draws=10, seed=3) for _ in range(2))
    assert one == two
    assert one.uncertainty.draws == 10


def test_demand_is_redrawn_by_the_requests_behind_the_histogram_not_by_provenance(small_spec):
    def told(**facts):
        workload = replace(small_spec.workload, **facts)
        return judge_fleets(prepare(replace(small_spec, workload=workload)), draws=10).demand

    assert told(sample_requests=500, provenance={"kept": 7}) == "bootstrapped from 500 requests"
    assert told(provenance={"kept": 7}) == "fixed: the workload names no trace size"


def test_draws_solved_at_a_time_change_nothing_and_progress_ends_at_the_whole(small_spec):
    told = []
    build = prepare(small_spec.with_rate(12))
    alone = judge_fleets(build, draws=10, seed=4, progress=lambda *now: told.append(now))
    assert judge_fleets(build, draws=10, seed=4, jobs=2) == alone
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1][0] == told[-1][1]


def test_too_few_draws(small_spec):
    with pytest.raises(InputError, match="too few"):
        judge_fleets(prepare(small_spec), draws=3)


def test_independent_noise_would_invent_savings(monkeypatch):
    # Same total noise, split differently: noise of each cell's own lets every draw mix GPUs to advantage.
    case = prepare(load_workload("arena-120ms").with_rate(64))
    spread = np.full(case.choices.max_rate_rps.shape, 0.2)
    saved = {}
    for name, shares in {"as shipped": dict(VARIANCE_SHARES), "cell": {"cell": 1.0}, "common": {"common": 1.0}}.items():
        monkeypatch.setattr(module, "VARIANCE_SHARES", dict.fromkeys(VARIANCE_SHARES, 0.0) | shares)
        rng = np.random.default_rng(0)
        saved[name] = np.mean([_saved_by_mixing(module._drawn(case, spread, rng)) for _ in range(12)])
    nominal = _saved_by_mixing(case.problem)
    assert abs(saved["common"] - nominal) < 0.03
    assert saved["as shipped"] < nominal + 0.06
    assert saved["cell"] > max(saved["as shipped"], saved["common"]) + 0.03


def _saved_by_mixing(problem):
    single = [module._cheapest(problem.only_instances({key})) for key in problem.instances]
    return 1 - module._cheapest(problem)[1] / min(answer[1] for answer in single if answer)


def test_draws_beyond_a_cap_are_counted(small_spec):
    free = plan_fleet(small_spec.with_rate(12))
    tight = small_spec.with_rate(12).limited(max_cost_usd_per_hour=free.cost_usd_per_hour * 1.02)
    odds = judge_fleets(prepare(tight), draws=30, seed=1)
    assert 0 < odds.share_unservable < 1
    for fleet in odds.fleets:
        assert fleet.p95_cost_usd_per_hour <= free.cost_usd_per_hour * 1.02 + 1e-6
        assert fleet.mean_regret_usd_per_hour >= -1e-6
    stuck = [fleet.share_stuck for fleet in odds.fleets]
    assert stuck == sorted(stuck)
    text = render_plan(solve_with_uncertainty(tight, draws=30, seed=1), "table")
    assert "no fleet within the limits carries the load" in " ".join(text.split())


def test_a_fleet_that_cannot_be_added_to_is_stuck(small_spec):
    case = prepare(small_spec.with_rate(12))
    fleet, cost = module._cheapest(case.problem)
    full = replace(case.problem, max_cost_usd_per_hour=cost)
    other = tuple(1 if not count else 0 for count in fleet)
    assert module._with_recourse(full, fleet) == pytest.approx(cost)
    assert np.isnan(module._with_recourse(full, other))


def test_a_band_is_read_as_80_percent_of_the_nearest_size(small_spec):
    choices = prepare(small_spec).choices
    key = choices.configs[0].key
    table = choices.profile.configs[key]
    low, high = np.full(table.source.shape, np.nan), np.full(table.source.shape, np.nan)
    # The buckets' loads lie at 60 and 600 input tokens; nearest profiled sizes are 100 (or 25) and 500.
    row = int(np.abs(np.log(table.input_tokens) - np.log(choices.load_tokens[0, 0])).argmin())
    low[row], high[row] = np.exp(-1.2816 * 0.4), np.exp(1.2816 * 0.4)
    banded = replace(table, low_rps=low, high_rps=high)
    profile = replace(choices.profile, configs={**choices.profile.configs, key: banded})
    spread = module._spreads(replace(choices, profile=profile))
    near = choices.load_tokens[:, 0] == choices.load_tokens[0, 0]
    assert spread[near, 0] == pytest.approx(0.4, rel=1e-3)
    assert spread[~near, 0] == pytest.approx(module.SPREAD_BY_SOURCE["published"])


def test_a_draw_with_too_much_that_only_late_machines_serve_has_no_fleet():
    # A kept request in ten is large, and 20% of them may be late by design; some draws have more.
    slo = Slo(tpot_s=0.1, attainment=0.6)
    spec = workload([9.0, 1.0], slo).limited(only=("L4",))
    spec = replace(spec, workload=replace(spec.workload, sample_requests=10))
    spec = spec.limited(only=("L4", "H100"), maximum={"H100": 0})
    case = prepare(spec, None, profile_of({"L4": [5, 0], "H100": [5, 5]}, slo, {"L4": [9, 5], "H100": [9, 9]}))
    odds = module.judge_fleets(case, draws=60, seed=1)
    # Binomial: more than 2 of 10.
    assert odds.share_unservable == pytest.approx(0.07, abs=0.06)
    assert odds.share_unservable > 0
    draw = module._drawn(case, np.full((2, 2), 0.1), np.random.default_rng(0))
    assert np.isfinite(draw.lateness.load).tolist() == [[False, False], [True, False]]
    assert draw.lateness.load[1, 0] != case.problem.lateness.load[1, 0]
