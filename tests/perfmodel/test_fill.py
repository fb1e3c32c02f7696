"""Filling: measured rates stay, capacities are cut to the SLO, gaps and other grids come from the model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.capacity.profile import profile_from
from melange.catalog.hardware import load_catalog
from melange.measurements.measurement import LatencyStats, Measurement
from melange.perfmodel.calibrate import points_of, read_sets
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import max_rates_rps
from melange.perfmodel.fill import bare_sizes, regridded
from melange.perfmodel.hardware import ModelledEngine
from melange.planning.estimated import filled_profile
from melange.planning.planner import plan_fleet
from melange.planning.spec import ProfileChoice
from melange.serving.engine_settings import VLLM_0_2
from melange.slo import Slo

CATALOG = load_catalog()
SLO = Slo(tpot_s=0.06, tpot_definition="decode")


@pytest.fixture
def published():
    return [point for file in read_sets(["melange-2024/llama-2-7b"]) for point in points_of(file)]


@pytest.fixture
def spec(small_spec):
    return replace(
        small_spec,
        workload=replace(small_spec.workload, slo=SLO),
        profiles=ProfileChoice(set="melange-2024/llama-2-7b", fill="estimated"),
    )


def test_a_capacity_becomes_the_lesser_of_itself_and_the_models_rate(spec, published):
    filled = filled_profile(spec, published)
    bare = profile_from(published, Slo())
    for key, table in filled.configs.items():
        measured = bare.configs[key]
        for i, size_in in enumerate(measured.input_tokens):
            for o, size_out in enumerate(measured.output_tokens):
                a, b = (
                    int(np.flatnonzero(table.input_tokens == size_in)[0]),
                    int(np.flatnonzero(table.output_tokens == size_out)[0]),
                )
                capacity, rate = measured.max_rate_rps[i, o], table.max_rate_rps[a, b]
                if np.isnan(capacity):
                    assert table.source[a, b] == "estimated"
                    continue
                assert rate <= capacity * (1 + 1e-12)
                assert (table.source[a, b] == "published") == (rate == capacity)
        assert np.isfinite(table.max_rate_rps).all()
    sources = {source for table in filled.configs.values() for source in table.sources}
    assert sources == {"published", "estimated"}


def test_without_an_slo_capacities_stay(spec, published):
    free = replace(spec, workload=replace(spec.workload, slo=Slo()))
    filled = filled_profile(free, published)
    for key, table in profile_from(published, Slo()).configs.items():
        known = np.isfinite(table.max_rate_rps)
        rows = np.isin(filled.configs[key].input_tokens, table.input_tokens)
        columns = np.isin(filled.configs[key].output_tokens, table.output_tokens)
        np.testing.assert_array_equal(
            filled.configs[key].max_rate_rps[np.ix_(rows, columns)][known], table.max_rate_rps[known]
        )


def test_solving_with_fill_marks_the_plan(spec):
    plan = plan_fleet(spec)
    assert plan.status == "optimal"
    assert any("filled by the model" in warning for warning in plan.warnings)


def measured(rate, tpot, inputs=500.0, outputs=100.0):
    return Measurement(
        model="llama-2-7b",
        gpu="A100-80GB",
        input_tokens=inputs,
        output_tokens=outputs,
        offered_rps=rate,
        achieved_rps=rate,
        tpot_decode_s=LatencyStats(mean=tpot),
        samples=100,
        engine_version="0.2.7",
    )


def test_measured_rates_under_the_slo_stay_whatever_the_model_says(spec):
    points = [measured(0.5, 0.03), measured(1.0, 0.05), measured(2.0, 0.09)]
    table = next(iter(filled_profile(spec, points).configs.values()))
    i, o = int(np.flatnonzero(table.input_tokens == 500)[0]), int(np.flatnonzero(table.output_tokens == 100)[0])
    assert table.max_rate_rps[i, o] == 1.0
    assert table.source[i, o] == "measured"
    assert (table.source == "measured").sum() == 1


def test_regridding_keeps_known_sizes_and_corrects_the_model_between_them():
    modelled = ModelledEngine(model=CATALOG.model("llama-2-7b"), gpu=CATALOG.gpu("A100-80GB"), settings=VLLM_0_2)
    model = float(max_rates_rps(modelled, SLO, 500.0, 100.0))
    (table,) = profile_from([measured(0.5 * model, 0.05)], SLO).configs.values()
    wide = regridded(table, modelled, SLO, [400, 500], [100], Calibration(settings=VLLM_0_2))
    assert wide.max_rate_rps[1, 0] == 0.5 * model
    beside = float(max_rates_rps(modelled, SLO, 400.0, 100.0))
    assert wide.max_rate_rps[0, 0] == pytest.approx(0.5 * beside)
    assert list(wide.source[:, 0]) == ["estimated", "measured"]
    assert np.isnan(wide.low_rps[1, 0])
    assert wide.low_rps[0, 0] < wide.max_rate_rps[0, 0]


def test_bare_sizes_are_those_without_load_points(published):
    assert len(bare_sizes([p for p in published if p.gpu == "L4"])) == 36
    assert not bare_sizes([measured(1.0, 0.05), replace(measured(2.0, 0.05), loop="capacity", tpot_decode_s=None)])


def test_filled_tables_know_rates_without_a_limit():
    slo = replace(SLO, attainment=0.9)
    stats = LatencyStats(mean=0.05, p50=0.05, p99=0.1)
    points = [replace(measured(rate, 0.05), tpot_decode_s=stats) for rate in (1.0, 2.0)]
    (table,) = profile_from(points, slo).configs.values()
    assert table.unlimited_rps.tolist() == [[2.0]]
    modelled = ModelledEngine(model=CATALOG.model("llama-2-7b"), gpu=CATALOG.gpu("A100-80GB"), settings=VLLM_0_2)
    found = regridded(table, modelled, slo, [400, 500], [100], Calibration(settings=VLLM_0_2))
    assert found.unlimited_rps[1, 0] == 2.0
    assert found.unlimited_rps[0, 0] >= found.max_rate_rps[0, 0] > 0
    assert regridded(table, modelled, SLO, [400, 500], [100], Calibration(settings=VLLM_0_2)).unlimited_rps is None
