from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, load_workload, plan_fleet
from melange.plan.file import read_plan, write_plan
from melange.planning.load import load_measure, load_scale_of, token_measure
from melange.planning.planner import choices_of
from melange.report.plans import render_plan
from melange.workload.load_scale import LoadScale
from melange.workload.windows import Window


@pytest.fixture
def windowed(small_spec):
    """The small workload at a quarter and at seven quarters of its rate, an hour each."""
    rate = small_spec.workload.rate_rps
    windows = [Window(start_s=s, length_s=3600, requests=rate * n) for s, n in ((0, 900), (3600, 6300))]
    return replace(small_spec, workload=replace(small_spec.workload, windows=windows))


def test_a_request_weighs_its_gpu_time_where_that_is_cheapest(small_spec):
    choices = choices_of(small_spec)
    cells = np.argwhere(small_spec.workload.rate_rps > 0)
    measure = load_measure(small_spec)
    price = np.array([config.instance.price_usd_per_hour for config in choices.configs])
    for (i, j), rates in zip(cells, choices.max_rate_rps, strict=True):
        costs = [p / r for p, r in zip(price, rates, strict=True) if r > 0]
        assert measure.weight[i, j] == pytest.approx(min(costs))
    assert np.isnan(measure.weight[1, 1])


def test_one_gpu_type_weighs_by_its_time_alone(small_spec):
    choices = choices_of(small_spec)
    cells = np.argwhere(small_spec.workload.rate_rps > 0)
    column = [config.instance.gpu for config in choices.configs].index("A100-80GB")
    weight = load_measure(small_spec, gpu="A100-80GB").weight
    ratio = [weight[i, j] * rate for (i, j), rate in zip(cells, choices.max_rate_rps[:, column], strict=True)]
    np.testing.assert_allclose(ratio, ratio[0])
    with pytest.raises(InputError, match="no rates of 'B200'; name one of L4, A10G"):
        load_measure(small_spec, gpu="B200")


def test_sizes_that_no_gpu_serves_weigh_by_tokens(small_spec):
    late = replace(small_spec, profiles=replace(small_spec.profiles, set="estimated/llama-2-7b", assume_slo=False))
    slo = replace(small_spec.workload.slo, tpot_s=1e-6)
    late = replace(late, workload=replace(late.workload, slo=slo))
    tokens = token_measure(late.workload)
    np.testing.assert_allclose(load_measure(late).weight, tokens.weight)
    assert load_measure(late).text == tokens.text
    assert tokens.weight[0, 0] == 60 + 4 * 50


def test_a_plan_for_the_peak_is_the_plan_at_its_rate(windowed, tmp_path):
    scale = load_scale_of(windowed, "peak", margin=0.2)
    assert (scale.load_ratio, scale.windows) == (pytest.approx(1.75), 2)
    plan = plan_fleet(windowed.with_load_scale(scale))
    plain = plan_fleet(windowed.with_rate(3.5 * 1.75 * 1.2))
    assert plan.instances == plain.instances
    assert plan.workload.rate_rps == pytest.approx(3.5 * 1.75 * 1.2)
    text = render_plan(plan)
    assert text.splitlines()[1] == "planned for 2.1 times 3.5 req/s (peak of 2 windows' load: 1.75; margin 20%)"
    write_plan(tmp_path / "plan.json", plan)
    assert read_plan(tmp_path / "plan.json").workload.load_scale == scale
    assert plan_fleet(windowed).workload.load_scale is None


def test_mean_and_margin_alone(windowed, small_spec):
    assert load_scale_of(windowed, "mean") == LoadScale(statistic="mean", windows=2)
    assert load_scale_of(windowed, "mean").describe(3.5) == "the mean load, 3.5 req/s"
    only = load_scale_of(small_spec, margin=0.15)
    assert only.describe(3.5 * 1.15) == "1.15 times 3.5 req/s (margin 15%)"


def test_a_scale_goes_on_top_of_any_mean_rate_and_takes_the_place_of_another(small_spec):
    scaled = small_spec.with_load_scale(LoadScale(margin=0.5))
    assert scaled.workload.total_rate_rps == pytest.approx(3.5 * 1.5)
    assert scaled.with_rate(2).workload.total_rate_rps == pytest.approx(3)
    again = scaled.with_load_scale(LoadScale(load_ratio=2.0))
    assert again.workload.total_rate_rps == pytest.approx(7)


def test_what_cannot_be_planned_for_is_refused(small_spec):
    with pytest.raises(InputError, match="workload small has no windows to take the p95 load of"):
        load_scale_of(small_spec, "p95")
    with pytest.raises(InputError, match=r"margin is -0\.1"):
        load_scale_of(small_spec, margin=-0.1)


def test_load_and_requests_differ_where_the_mix_moves():
    spec = load_workload("azure-conversation")
    scale = load_scale_of(spec, "peak")
    rates = spec.workload.window_rates_rps().sum(axis=(1, 2))
    assert scale.load_ratio > 1.2
    assert scale.load_ratio != pytest.approx(rates.max() / spec.workload.total_rate_rps, rel=0.005)
