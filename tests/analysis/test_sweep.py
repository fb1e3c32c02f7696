"""Sweeps over rates, TPOT limits and prices."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from melange import InputError, LatencyStats, Measurement, ProfileChoice, plan_fleet, read_prices
from melange.analysis.sweep import repriced, sweep_prices, sweep_rates, sweep_tpot
from melange.measurements.file import Header, append_measurements
from melange.slo import Slo


def test_each_rate_is_the_plan_of_that_rate(small_spec):
    sweep = sweep_rates(small_spec, [1, 4, 20])
    assert [point.value for point in sweep.points] == [1, 4, 20]
    for point in sweep.points:
        alone = plan_fleet(small_spec.with_rate(point.value))
        assert point.plan is not None
        assert point.plan == alone
    assert sweep.gpus == tuple(sweep.points[0].plan.baselines)


def test_infeasible_points_are_rows_with_a_reason(small_spec):
    sweep = sweep_rates(small_spec.limited(maximum={"L4": 1}, only=("L4",)), [0.05, 100])
    assert [point.status for point in sweep.points] == ["optimal", "infeasible"]
    assert sweep.points[0].reason is None
    assert sweep.points[1].reason
    assert sweep.points[1].cost_usd_per_hour is None


def test_a_dearer_gpu_never_makes_the_fleet_cheaper(small_spec):
    spec = replace(small_spec, workload=small_spec.workload.at_rate(8))
    sweep = sweep_prices(spec, "A100-80GB", [0.5, 1, 2, 3, 4, 8])
    costs = [point.cost_usd_per_hour for point in sweep.points]
    assert all(low <= high + 1e-9 for low, high in pairwise(costs))
    assert costs[0] < costs[-1]
    assert set(sweep.points[0].plan.instances) == {"A100-80GB"}
    assert "A100-80GB" not in sweep.points[-1].plan.instances
    alone = [point.plan.baselines["A100-80GB"].cost_usd_per_hour for point in sweep.points]
    assert alone == pytest.approx([alone[0] * point.value / 0.5 for point in sweep.points])


def test_the_listed_price_changes_nothing(small_spec):
    listed = plan_fleet(small_spec)
    sweep = sweep_prices(small_spec, "L4", [0.7])
    assert sweep.points[0].plan.cost_usd_per_hour == listed.cost_usd_per_hour
    assert sweep.points[0].plan.provenance["prices"]["source"]["L4"] == "set by the user"


def test_repricing_is_by_gpu(small_spec):
    offers, changed = read_prices(), repriced(small_spec, "H100", 1.5).offers
    assert {o.price_usd_per_hour / o.gpus for o in changed if o.gpu == "H100"} == {1.5}
    assert [o for o in changed if o.gpu != "H100"] == [o for o in offers if o.gpu != "H100"]


def measured_spec(folder, spec):
    """Two load points a size on an L4: slow ones keep 50 ms a token, fast ones 100 ms."""
    points = [
        Measurement(
            model="llama-2-7b", gpu="L4", input_tokens=inputs, output_tokens=outputs, offered_rps=rate,
            achieved_rps=rate, samples=100, tpot_decode_s=LatencyStats(mean=tpot),
        )
        for inputs in (100, 1000)
        for outputs in (100, 500)
        for rate, tpot in ((1.0, 0.05), (2.0, 0.1))
    ]  # fmt: skip
    append_measurements(folder / "m.jsonl", Header(facts={}), points)
    workload = replace(spec.workload, slo=Slo(tpot_s=0.1, tpot_definition="decode"))
    return replace(spec, workload=workload, profiles=ProfileChoice(files=(str(folder / "m.jsonl"),)))


def test_tpot_limits_solve_the_profile_again(tmp_path, small_spec):
    spec = measured_spec(tmp_path, small_spec)
    sweep = sweep_tpot(spec, [0.04, 0.06, 0.1])
    assert [point.status for point in sweep.points] == ["not_measured", "optimal", "optimal"]
    assert "not measured" in sweep.points[0].reason
    # 3.5 requests/s of sizes that one L4 serves at 1 (under 60 ms) or 2 (at 100 ms) requests/s
    assert [p.plan.instances for p in sweep.points[1:]] == [{"L4": 4}, {"L4": 2}]


def test_nothing_measured_anywhere_is_an_error(tmp_path, small_spec):
    with pytest.raises(InputError, match="not measured"):
        sweep_tpot(measured_spec(tmp_path, small_spec), [0.01, 0.02])


def test_an_assumed_slo_is_not_swept(small_spec):
    with pytest.raises(InputError, match="saturation throughputs without an SLO"):
        sweep_tpot(small_spec, [0.04, 0.12])


@pytest.mark.parametrize("values", [[], [0], [-1, 2], [float("nan")], [float("inf")]])
def test_values_are_checked_before_anything_is_solved(small_spec, values):
    told = []
    with pytest.raises(InputError):
        sweep_rates(small_spec, values, progress=lambda done, total: told.append(done))
    with pytest.raises(InputError):
        sweep_prices(small_spec, "L4", values)
    with pytest.raises(InputError):
        sweep_tpot(small_spec, values)
    assert told == []


def test_unknown_gpu(small_spec):
    with pytest.raises(InputError, match="unknown GPU"):
        sweep_prices(small_spec, "L5", [1])
    with pytest.raises(InputError, match="not in the profile"):
        sweep_prices(small_spec, "B200", [1])


def test_progress_counts_points(small_spec):
    told = []
    sweep_rates(small_spec, [1, 2], progress=lambda done, total: told.append((done, total)))
    assert told == [(1, 2), (2, 2)]


def test_points_solved_at_a_time_are_the_same_points(tmp_path, small_spec):
    assert sweep_rates(small_spec, (1, 4), jobs=2) == sweep_rates(small_spec, (1, 4))
    spec = measured_spec(tmp_path, small_spec)
    assert sweep_tpot(spec, (0.04, 0.08), jobs=2) == sweep_tpot(spec, (0.04, 0.08))
