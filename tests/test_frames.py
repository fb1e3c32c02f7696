"""Tables as DataFrames: their index, columns and values are those of the values they come from."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from melange import (
    ConfigKey,
    SimulationOptions,
    Trace,
    attain,
    cost_efficiency,
    load_catalog,
    load_profile,
    plan_fleet,
    read_profile_set,
    simulate,
    sweep_prices,
    sweep_rates,
)

EDGES = ["input_tokens_max", "output_tokens_max"]


@pytest.fixture(scope="module")
def plan(module_spec):
    return plan_fleet(module_spec)


def test_a_plans_buckets(plan):
    frame = plan.to_frame()
    assert list(frame.index.names) == EDGES
    assert frame.rate_rps.sum() == pytest.approx(3.5)
    shares = [name for name in frame if name.endswith("_share")]
    assert {name.removesuffix("_share") for name in shares} == set(plan.replicas)
    assert frame[shares].sum(axis=1).to_numpy() == pytest.approx(1)
    bucket = plan.buckets[0]
    row = frame.loc[(bucket.input_tokens_max, bucket.output_tokens_max)]
    assert row["L4_max_rate_rps"] == bucket.max_rate_rps["L4"]


def test_a_plans_fleets(plan):
    frame = plan.fleets_frame()
    assert frame.index[0] == "cheapest"
    assert frame.loc["cheapest", "cost_usd_per_hour"] == plan.cost_usd_per_hour
    assert frame.loc[f"{plan.best_single_type} only", "savings"] == plan.savings


def test_a_workloads_histogram(module_spec):
    workload = module_spec.workload
    frame = workload.to_frame()
    assert list(frame.index.names) == EDGES
    assert frame.loc[(100, 500), "rate_rps"] == workload.rate_rps[0, 1]
    assert frame.share.sum() == pytest.approx(1)


def test_a_profiles_tables(module_spec):
    profile = load_profile(module_spec)
    frame = profile.to_frame()
    assert list(frame.index.names) == [*ConfigKey._fields, "input_tokens", "output_tokens"]
    for key, config in profile.configs.items():
        square = frame.loc[key.order].max_rate_rps.unstack()
        assert np.array_equal(square.to_numpy(), config.max_rate_rps, equal_nan=True)
        assert list(square.index) == list(config.input_tokens)
    assert set(frame[frame.max_rate_rps.notna()].source) == {"published"}


def test_measurements():
    file = read_profile_set("melange-2024/llama-2-7b")[0]
    frame = file.to_frame()
    assert len(frame) == len(file.points)
    assert frame.achieved_rps.tolist() == [point.achieved_rps for point in file.points]


def test_latencies_of_measurements_are_one_column_a_statistic(tmp_path):
    from melange import LatencyStats, Measurement, append_measurements, read_measurements

    seen = Measurement(
        model="m", gpu="L4", input_tokens=10, output_tokens=5, achieved_rps=1.0, offered_rps=1.0,
        ttft_s=LatencyStats(mean=0.1, p99=0.4), sample_ttft_s=(0.1, 0.2), extra={"note": "x"},
    )  # fmt: skip
    append_measurements(tmp_path / "m.jsonl", None, [seen])
    frame = read_measurements(tmp_path / "m.jsonl").to_frame()
    assert frame.loc[0, ["ttft_mean_s", "ttft_p99_s"]].tolist() == [0.1, 0.4]
    assert not {"extra", "sample_ttft_s", "ttft_s"} & set(frame)


def test_a_sweep(module_spec):
    sweep = sweep_rates(module_spec, [1, 8])
    frame = sweep.to_frame()
    assert frame.index.name == "rate_rps"
    assert frame.index.tolist() == [1, 8]
    for rate, point in zip([1, 8], sweep.points, strict=True):
        assert frame.loc[rate, "cost_usd_per_hour"] == point.cost_usd_per_hour
        assert frame.loc[rate, "savings"] == point.plan.savings
        counts = {name: frame.loc[rate, f"{name}_count"] for name in point.plan.instances}
        assert counts == dict(point.plan.instances)
        assert frame.loc[rate, "L4_only_usd_per_hour"] == point.plan.baselines["L4"].cost_usd_per_hour


def test_a_sweep_names_its_axis(module_spec):
    assert sweep_prices(module_spec, "L4", [0.5]).to_frame().index.name == "price_usd_per_hour"


def test_a_simulation(plan):
    report = simulate(plan, options=SimulationOptions(requests=300, replications=2))
    frame = report.to_frame()
    assert list(frame.index.names) == EDGES
    assert frame.attainment.tolist() == [bucket.attainment for bucket in report.buckets]
    assert frame.tpot_p99_s.tolist() == [bucket.tpot.p99_s for bucket in report.buckets]
    configs = report.configs_frame()
    assert configs.share.sum() == pytest.approx(1)
    assert configs.replicas.to_dict() == dict(plan.replicas)


def test_a_closed_loop(module_spec):
    _, report = attain(module_spec, 0.9, simulation=SimulationOptions(requests=200))
    frame = report.to_frame()
    assert frame.index[:2].tolist() == ["cheapest", "mean load only"]
    assert frame.loc["cheapest", "attainment"] == report.fleet.attainment
    assert {f"{gpu} only" for gpu in report.single_type} == set(frame.index[2:])


def test_a_trace_without_times_has_no_times():
    trace = Trace(input_tokens=np.array([3, 5]), output_tokens=np.array([7, 9]))
    pd.testing.assert_frame_equal(trace.to_frame(), pd.DataFrame({"input_tokens": [3, 5], "output_tokens": [7, 9]}))


def test_the_catalog():
    catalog = load_catalog()
    gpus, models = catalog.gpus_frame(), catalog.models_frame()
    assert gpus.loc["L4", "memory_gib"] == catalog.gpu("L4").memory_gib
    assert np.isnan(gpus.loc["A10G", "fp8_tflops"])
    assert models.loc["llama-2-7b", "fp16_weight_gib"] == pytest.approx(12.55, abs=0.01)


def test_cost_efficiency(module_spec):
    table = cost_efficiency(module_spec)
    frame = table.to_frame()
    known = frame[frame.best.notna()]
    best = known.drop(columns="best").idxmax(axis=1).str.removesuffix("_tokens_per_usd")
    assert best.tolist() == known.best.tolist()
    assert len(known) > 50
    assert frame.drop(columns="best")[frame.best.isna()].isna().all(axis=None)
