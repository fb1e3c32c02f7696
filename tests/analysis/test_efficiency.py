"""Tokens per dollar, and costs without whole GPUs."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, Slo, load_workload, plan_fleet
from melange.analysis.efficiency import cost_efficiency, fractional_costs
from melange.files.shipped import data_path


def test_tokens_per_dollar_of_one_cell(small_spec):
    """An L4 serves 25.14 requests/s of 25 + 25 tokens for $0.70/h (published table, paper's price)."""
    table = cost_efficiency(small_spec)
    assert table.tokens_per_usd["L4"][0, 0] == pytest.approx(25.14 * 50 * 3600 / 0.7)
    assert np.isnan(table.tokens_per_usd["L4"][table.input_tokens.tolist().index(12000)]).all()


def test_advantage_is_relative_to_the_first(small_spec):
    table = cost_efficiency(small_spec)
    ours, theirs = table.tokens_per_usd["A10G"], table.tokens_per_usd["A100-80GB"]
    gain = table.advantage("A10G", "A100-80GB")
    assert gain[0, 0] == pytest.approx((ours[0, 0] - theirs[0, 0]) / ours[0, 0])
    assert np.isnan(gain[-1, -1])
    with pytest.raises(InputError, match="no config 'A10'"):
        table.advantage("A10", "L4")


def test_best_has_the_most_tokens_per_dollar(small_spec):
    table = cost_efficiency(small_spec)
    for i, row in enumerate(table.best()):
        for j, name in enumerate(row):
            known = [np.nan_to_num(values[i, j]) for values in table.tokens_per_usd.values()]
            assert max(known) == (0 if name is None else table.tokens_per_usd[name][i, j])


def test_published_table_agrees_with_the_paper_s_figure_3b():
    """31 of 36 cells to 2 points, counting both sides as rounded to whole points; the other 5 are an older table."""
    lines = data_path("profiles/melange-2024/paper-heatmap-a10g-a100.csv").read_text().splitlines()
    table = cost_efficiency(load_workload("arena-120ms"))
    gain = 100 * table.advantage("A10G", "A100-80GB")
    near = 0
    for row in csv.DictReader(line for line in lines if not line.startswith("#")):
        i = table.input_tokens.tolist().index(float(row["input_tokens"]))
        j = table.output_tokens.tolist().index(float(row["output_tokens"]))
        sign = 1 if row["best"] == "A10G" else -1
        near += abs(round(gain[i, j]) - sign * int(row["percent_relative_to_a10g"])) <= 2
    assert near >= 30


def test_fractions_cost_no_more_than_whole_gpus(small_spec):
    for rate in (0.1, 1.0, 30.0):
        asked = small_spec.with_rate(rate)
        plan, fractions = plan_fleet(asked), fractional_costs(asked)
        assert fractions.mixed_usd_per_hour <= plan.cost_usd_per_hour + 1e-9
        assert set(fractions.single_usd_per_hour) == set(plan.baselines)
        for gpu, cost in fractions.single_usd_per_hour.items():
            assert fractions.mixed_usd_per_hour <= cost + 1e-9
            assert cost <= plan.baselines[gpu].cost_usd_per_hour + 1e-9


def test_fractional_costs_by_hand(small_spec):
    """Each bucket's rate times the seconds and dollars that its cheapest config takes."""
    from melange.planning.planner import prepare

    case = prepare(small_spec)
    prices = [c.instance.price_usd_per_hour for c in case.choices.configs]
    expected = sum(
        min(rate / best * price for best, price in zip(row, prices, strict=True))
        for rate, row in zip(case.choices.rate_rps, case.choices.max_rate_rps, strict=True)
    )
    fractions = fractional_costs(small_spec)
    assert fractions.mixed_usd_per_hour == pytest.approx(expected)
    costs = [cost for cost in fractions.single_usd_per_hour.values() if cost is not None]
    assert fractions.savings == pytest.approx(1 - expected / min(costs))


def test_whole_gpus_stop_mattering_at_high_rates(small_spec):
    """The plan's cost is at most one replica of each config above the fractional cost."""
    asked = small_spec.with_rate(2000.0)
    plan, fractions = plan_fleet(asked), fractional_costs(asked)
    one_of_each = sum(config.price_usd_per_hour for config in plan.configs.values())
    assert plan.cost_usd_per_hour <= fractions.mixed_usd_per_hour + one_of_each
    assert plan.savings == pytest.approx(fractions.savings, abs=0.01)


def test_what_no_config_can_serve(tmp_path, small_spec):
    from melange import Measurement, ProfileChoice
    from melange.measurements.file import Header, append_measurements

    points = [
        Measurement(model="llama-2-7b", gpu="L4", input_tokens=i, output_tokens=o, loop="capacity", achieved_rps=0.0)
        for i in (100, 1000)
        for o in (100, 500)
    ]
    append_measurements(tmp_path / "m.jsonl", Header(facts={}), points)
    spec = replace(
        small_spec,
        profiles=ProfileChoice(files=(str(tmp_path / "m.jsonl"),)),
        workload=replace(small_spec.workload, slo=Slo()),
    )
    with pytest.raises(InputError, match="no config can serve size 100x100"):
        fractional_costs(spec)
