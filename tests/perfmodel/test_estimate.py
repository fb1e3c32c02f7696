"""Estimates: bands, ladders, and what must order how."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from melange.capacity.profile import profile_from
from melange.catalog.hardware import load_catalog
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import (
    all_rates_with_band,
    fitting,
    load_points,
    max_rates_rps,
    rates_with_band,
    under_calibration,
)
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.serving.efficiencies import PRIORS
from melange.serving.engine_settings import VLLM_0_2
from melange.slo import Slo
from melange.workload.sizes import SizeGrid

CATALOG = load_catalog()
DECODE_40 = Slo(tpot_s=0.04, tpot_definition="decode")


def modelled(gpu="H100", model="llama-3.1-8b", **values):
    return ModelledEngine(model=CATALOG.model(model), gpu=CATALOG.gpu(gpu), **values)


def test_an_l4_cannot_serve_7b_in_fp16_at_40_ms_but_can_in_fp8():
    inputs, outputs = SizeGrid.paper(2000).upper_edges()
    fp16, fp8 = (
        max_rates_rps(modelled("L4", "llama-2-7b", precision=p), DECODE_40, inputs, outputs) for p in ("fp16", "fp8")
    )
    assert not fp16.any()
    assert fp8.any()


@pytest.mark.parametrize("slo", [Slo(), DECODE_40, Slo(ttft_s=1.0, e2e_s=20.0), Slo(tpot_s=0.1, attainment=0.9)])
def test_faster_hardware_serves_more(slo):
    rates = [max_rates_rps(modelled(gpu), slo, [250, 1500], [100, 400]) for gpu in ("L4", "A10G", "A100-80GB", "H100")]
    for slower, faster in pairwise(rates):
        assert (faster >= slower).all()
    assert (rates[-1] > rates[0]).all()


def test_the_band_holds_the_rate_and_narrows_with_knowledge():
    known = Calibration(spreads=dict.fromkeys(PRIORS, 0.02), model_error=0.05, label="full", name="test")
    wide = rates_with_band(modelled(), DECODE_40, [250, 1500], [100, 400])
    narrow = rates_with_band(modelled(), DECODE_40, [250, 1500], [100, 400], calibration=known)
    np.testing.assert_allclose(wide.rate_rps, narrow.rate_rps)
    for band in (wide, narrow):
        assert (band.low_rps < band.rate_rps).all()
        assert (band.rate_rps < band.high_rps).all()
    assert (narrow.high_rps / narrow.low_rps < 0.6 * wide.high_rps / wide.low_rps).all()
    np.testing.assert_allclose(narrow.high_rps / narrow.rate_rps, np.exp(1.2816 * 0.05), rtol=0.05)


def test_the_band_is_that_of_one_efficiency_when_only_one_is_uncertain():
    spreads = dict.fromkeys(PRIORS, 0.0) | {"per_request_s": 0.5}
    lone = Calibration(spreads=spreads, model_error=0.0, label="full")
    band = rates_with_band(modelled(), Slo(), [25], [25], calibration=lone)
    from dataclasses import replace

    slow = replace(lone.efficiencies, per_request_s=lone.efficiencies.per_request_s * np.exp(0.5))
    shifted = max_rates_rps(modelled(), Slo(), [25], [25], efficiencies=slow)
    assert float(band.high_rps[0] / band.rate_rps[0]) == pytest.approx(
        float(band.rate_rps[0] / shifted[0]) ** 1.2816, rel=1e-6
    )


@pytest.mark.parametrize(
    "slo", [Slo(), DECODE_40, Slo(tpot_s=0.05), Slo(tpot_s=0.03, ttft_s=0.2, tpot_definition="decode")]
)
def test_a_ladder_answers_any_slo_nearly_as_the_model_does(slo):
    points = load_points(modelled(), [250, 1500], [100, 400])
    assert {point.source for point in points} == {"estimated"}
    (table,) = profile_from(points, slo, assume_slo=True).configs.values()
    direct = max_rates_rps(modelled(), slo, [[250], [1500]], [[100, 400]])
    ratio = table.max_rate_rps / direct
    assert (ratio <= 1.001).all()
    assert (ratio > 0.6).all()


def test_ladder_rows_are_consistent():
    for point in load_points(modelled("A10G"), [500], [200]):
        if point.loop == "capacity":
            assert point.ttft_s is None
            continue
        e2e = point.ttft_s.mean + (point.output_tokens - 1) * point.tpot_decode_s.mean
        assert point.e2e_s.mean == pytest.approx(e2e, rel=1e-3)
        assert point.tpot_e2e_per_token_s.mean == pytest.approx(e2e / point.output_tokens, rel=1e-3)
        assert point.low_rps < point.achieved_rps < point.high_rps
        assert point.concurrency == pytest.approx(point.achieved_rps * point.e2e_s.mean, rel=0.2)


def test_sizes_that_do_not_fit_get_a_capacity_of_zero():
    points = load_points(modelled("L4"), [250, 40_000], [100])
    assert [p.achieved_rps for p in points if p.input_tokens == 40_000] == [0.0]
    assert [p.loop for p in points if p.input_tokens == 40_000] == ["capacity"]


def test_pairs_that_do_not_fit_are_told_apart():
    fit, reasons = fitting([modelled("L4", "llama-3.1-70b"), modelled("L4")])
    assert [d.model.name for d in fit] == ["llama-3.1-8b"]
    assert "GiB per GPU are missing" in reasons[0]


def test_a_calibrations_engine_settings_take_over():
    assert under_calibration(modelled(), Calibration(settings=VLLM_0_2)).engine == VLLM_0_2
    assert under_calibration(modelled(), Calibration()).engine.chunked_prefill


def test_a_throughput_only_calibration_is_less_sure_under_a_latency_limit():
    sure = Calibration(spreads=dict.fromkeys(PRIORS, 0.0), model_error=0.05, label="throughput-only", name="test")
    free = rates_with_band(modelled(), Slo(), [250], [100], calibration=sure)
    bound = rates_with_band(modelled(), DECODE_40, [250], [100], calibration=sure)
    assert bound.high_rps[0] / bound.rate_rps[0] > 1.15 * free.high_rps[0] / free.rate_rps[0]


def test_what_a_gpu_only_stores():
    assert modelled("A100-80GB", precision="fp8").is_stored_only
    assert modelled("H100", precision="int4").is_stored_only
    assert not modelled("H100", precision="fp8").is_stored_only
    assert not modelled("A100-80GB").is_stored_only


@pytest.mark.parametrize("model", sorted(CATALOG.models))
def test_every_configuration_of_the_catalog_has_finite_ordered_rates(model):
    inputs, outputs = SizeGrid.paper().upper_edges()
    for gpu in CATALOG.gpus.values():
        for precision in ("fp16", "fp8", "int4"):
            for tp in (1, 8):
                heads = CATALOG.model(model).heads, CATALOG.model(model).kv_heads
                if heads[0] % tp or max(heads[1], tp) % min(heads[1], tp):
                    continue
                candidate = modelled(gpu.name, model, precision=precision, tp=tp)
                if missing_memory_gib(candidate):
                    continue
                saturation = max_rates_rps(candidate, Slo(), inputs, outputs)
                under = max_rates_rps(candidate, Slo(tpot_s=0.05, ttft_s=1.0, attainment=0.95), inputs, outputs)
                assert np.isfinite(saturation).all()
                assert (under <= saturation * (1 + 1e-9)).all()
                served = saturation[saturation[:, 0] > 0]
                assert (np.diff(served, axis=0) <= 1e-9).all(), "longer prompts cannot be served faster"
                assert (np.diff(served, axis=1) <= 1e-9).all(), "longer outputs cannot be served faster"


def test_many_at_once_are_what_each_is_alone():
    slo = Slo(tpot_s=0.05, ttft_s=1.0, tpot_definition="decode", attainment=0.95)
    sizes = np.array([100.0, 2000.0]), np.array([50.0, 400.0])
    several = [
        ModelledEngine(model=CATALOG.model("llama-3.1-8b"), gpu=CATALOG.gpu(gpu), tp=tp, precision=precision, **values)
        for gpu, tp, precision, values in (
            ("L4", 1, "bf16", {}),
            ("H100", 2, "fp8", {"max_batched_tokens": 1024}),
            ("A100-80GB", 4, "fp8", {"kv_dtype": "fp8"}),
            ("H100", 1, "bf16", {"settings": VLLM_0_2}),
        )
    ]
    together = all_rates_with_band(several, slo, *sizes)
    for modelled, found in zip(several, together, strict=True):
        alone = rates_with_band(modelled, slo, *sizes)
        for name in ("rate_rps", "low_rps", "high_rps"):
            np.testing.assert_allclose(getattr(found, name), getattr(alone, name), rtol=1e-9)
        np.testing.assert_allclose(found.rate_rps, max_rates_rps(modelled, slo, *sizes), rtol=1e-9)
