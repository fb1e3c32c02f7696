"""Profiles from the model: which configurations and sizes, cached prefixes, and a plan on them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.hardware import load_catalog
from melange.catalog.offers import PriceChoice, offers_on_sale, read_prices
from melange.errors import InputError
from melange.perfmodel.calibration import Calibration, write_calibration
from melange.perfmodel.estimate import max_rates_rps
from melange.perfmodel.hardware import ModelledEngine
from melange.planning.estimated import estimated_profile
from melange.planning.limits import Limits, TypeLimit
from melange.planning.planner import plan_fleet
from melange.planning.spec import ProfileChoice, ServingChoice
from melange.serving.considered import LeftOut
from melange.serving.efficiencies import Efficiencies
from melange.simulator.clocks import plan_clocks
from melange.slo import Slo

CATALOG = load_catalog()


@pytest.fixture
def spec(small_spec):
    workload = replace(small_spec.workload, model="llama-3.1-8b", slo=Slo(tpot_s=0.05, tpot_definition="decode"))
    return replace(
        small_spec,
        workload=workload,
        profiles=ProfileChoice(set="estimated/llama-3.1-8b"),
        prices=PriceChoice(),
    )


def test_every_rate_is_the_models(spec):
    profile = estimated_profile(spec)
    on_sale = {o.gpu for o in offers_on_sale(read_prices(), spec.prices)}
    assert {key.gpu for key in profile.configs} == on_sale
    assert "B200" in on_sale
    for key, table in profile.configs.items():
        assert table.sources == ("estimated",)
        modelled = ModelledEngine(
            model=CATALOG.model(key.model),
            gpu=CATALOG.gpu(key.gpu),
            tp=key.tp,
            precision=key.precision,
            max_batched_tokens=key.max_batched_tokens,
        )
        i, o = np.meshgrid(table.input_tokens, table.output_tokens, indexing="ij")
        np.testing.assert_allclose(table.max_rate_rps, max_rates_rps(modelled, spec.workload.slo, i, o))
    assert any("estimated" in warning for warning in profile.warnings)


def test_it_solves_out_of_the_box(spec):
    plan = plan_fleet(spec)
    assert plan.status == "optimal"
    assert any("estimated" in warning for warning in plan.warnings)


def test_a_70b_model_takes_degrees_that_fit(spec):
    workload = replace(spec.workload, model="llama-3.1-70b", slo=Slo())
    big = replace(spec, workload=workload, profiles=ProfileChoice(set="estimated/llama-3.1-70b"))
    degrees = {(k.gpu, k.tp) for k in estimated_profile(big).configs}
    assert ("H100", 1) not in degrees
    assert ("H100", 4) in degrees
    assert ("H200", 2) in degrees
    assert ("L4", 4) not in degrees


def test_fleet_and_serving_sections_choose_the_configurations(spec):
    narrow = replace(spec, limits=Limits(fleet=("H100", "L4")), serving=ServingChoice(tp=(2,), precisions=("fp8",)))
    keys = set(estimated_profile(narrow).configs)
    assert {(key.gpu, key.tp, key.precision) for key in keys} == {("H100", 2, "fp8")}  # no machine has two L4


def test_cached_prefixes_raise_the_rates(spec):
    cached = replace(spec, workload=replace(spec.workload, mean_cached_tokens=spec.workload.mean_input_tokens * 0.5))
    plain, hit = estimated_profile(spec), estimated_profile(cached)
    key = next(key for key in plain.configs if key.gpu == "H100" and key.tp == 1)
    assert (hit.configs[key].max_rate_rps[-2] > 1.05 * plain.configs[key].max_rate_rps[-2]).all()


def test_a_named_calibration_is_used(spec, tmp_path):
    slow = Calibration(name="slow", efficiencies=replace(Efficiencies(), overhead_s=0.04), label="throughput-only")
    write_calibration(tmp_path / "c.yaml", slow)
    calibrated = replace(
        spec, profiles=ProfileChoice(set="estimated/llama-3.1-8b", calibration=str(tmp_path / "c.yaml"))
    )
    plain, other = estimated_profile(spec), estimated_profile(calibrated)
    key = next(key for key in plain.configs if key in other.configs)
    assert (other.configs[key].max_rate_rps <= plain.configs[key].max_rate_rps).all()
    assert any("rests on priors" in warning for warning in other.warnings)


def test_an_unknown_or_another_model_is_refused(spec):
    with pytest.raises(InputError, match="did you mean"):
        estimated_profile(
            replace(
                spec,
                workload=replace(spec.workload, model=None),
                profiles=ProfileChoice(set="estimated/llama-3.1-9b"),
            )
        )
    with pytest.raises(InputError, match="its profiles are for"):
        estimated_profile(replace(spec, profiles=ProfileChoice(set="estimated/llama-3.1-70b")))


def test_a_model_that_fits_nowhere_says_why(spec):
    nowhere = replace(
        spec,
        workload=replace(spec.workload, model="llama-3.1-70b"),
        profiles=ProfileChoice(set="estimated/llama-3.1-70b"),
        limits=Limits(fleet=("L4",)),
        serving=ServingChoice(tp=(1,)),
    )
    with pytest.raises(InputError, match="GiB per GPU are missing"):
        estimated_profile(nowhere)


def test_names_of_what_was_not_tried_are_no_errors(spec):
    for limits in (Limits(exclude=("H100",)), Limits(only=("L40S",), types={"H100": TypeLimit(maximum=2)})):
        plan = plan_fleet(replace(spec, limits=limits))
        assert plan.considered is not None
        assert "H100" not in plan.considered.gpus
        assert LeftOut(gpu="H100", reason="not allowed") in plan.considered.left_out
    with pytest.raises(InputError, match="no offer of MI300X"):
        plan_fleet(replace(spec, limits=Limits(fleet=("L4", "MI300X"))))


def test_the_simulator_runs_a_configs_own_settings(spec):
    one = spec.limited(only=["H100"]).with_serving(tp=[1], kv_dtypes=["auto", "fp8"])
    clocks = {}
    for budget in (8192, 512):
        found = plan_clocks(plan_fleet(one.with_serving(batched_tokens=[budget])))
        clocks |= {name: entry.clock for name, entry in found.items()}
    assert {"H100", "H100/bt512", "H100/kv-fp8", "H100/kv-fp8/bt512"} <= set(clocks)  # 8192 is an H100's own
    plain, narrow, small = (clocks[name] for name in ("H100", "H100/bt512", "H100/kv-fp8"))
    assert (plain.max_batched_tokens, plain.max_num_seqs) == (8192, 1024)
    assert (narrow.max_batched_tokens, narrow.max_num_seqs) == (512, 512)
    assert small.kv_capacity_tokens == pytest.approx(2 * plain.kv_capacity_tokens, rel=1e-3)
