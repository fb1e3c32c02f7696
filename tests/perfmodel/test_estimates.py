"""estimate: rates, load points and notes of configurations that nobody measured."""

from __future__ import annotations

import pytest

from melange import InputError, Slo, estimate, load_catalog, load_workload, plan_fleet
from melange.perfmodel.calibration import Calibration, basis_of
from melange.perfmodel.estimate import load_points
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import estimated_table
from melange.serving.speculation import Speculation

SLO = Slo(tpot_s=0.05, tpot_definition="decode")
SIZES = {"input_tokens": (250.0, 1000.0), "output_tokens": (100.0,)}


def test_it_is_the_performance_models_table_and_ladder():
    found = estimate("llama-3.1-8b", ["L4", "H100"], SLO, **SIZES)
    assert [key.gpu for key in found.profile.configs] == ["L4", "H100"]
    catalog = load_catalog()
    modelled = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=catalog.gpu("H100"), precision="bf16")
    table = estimated_table(modelled, SLO, *SIZES.values())
    assert found.profile.configs[table.key].max_rate_rps.tolist() == table.max_rate_rps.tolist()
    assert [point for point in found.points if point.gpu == "H100"] == load_points(modelled, *SIZES.values())


def test_one_gpu_may_be_given_alone_and_described_ones_as_values():
    catalog = load_catalog()
    by_value = estimate(catalog.model("llama-3.1-8b"), catalog.gpu("H100"), SLO, **SIZES)
    assert by_value.points == estimate("llama-3.1-8b", "H100", SLO, **SIZES).points


def test_twice_the_same_is_once():
    assert len(estimate("llama-3.1-8b", ["H100", "H100"], SLO, **SIZES).profile.configs) == 1


def test_it_says_what_does_not_fit_and_what_is_only_stored():
    notes = estimate("llama-3.1-70b", "A100-80GB", tp=(1, 2), precisions=("fp8",), **SIZES).notes
    assert any("only stores fp8" in note for note in notes)
    notes = estimate("llama-3.1-70b", "H100", tp=(1, 4), **SIZES).notes
    assert any("GiB per GPU are missing" in note for note in notes)
    with pytest.raises(InputError, match="GiB per GPU are missing"):
        estimate("llama-3.1-70b", "L4", **SIZES)
    with pytest.raises(InputError, match="no model of the engine 'tgi'"):
        estimate("llama-3.1-8b", "L4", engines=("tgi",))


def test_its_profile_says_what_clocks_its_rates_rest_on():
    assert estimate("llama-3.1-8b", "H100", SLO, **SIZES).profile.basis == basis_of(Calibration())
    drafting = estimate("llama-3.1-8b", "H100", SLO, speculation=Speculation(2, 0.5), **SIZES)
    assert any("speculative decoding" in warning for warning in drafting.profile.warnings)


def test_its_profile_plans_a_fleet():
    spec = load_workload("azure-conversation")
    found = estimate("llama-3.1-8b", ["L40S", "H100"], spec.workload.slo)
    plan = plan_fleet(spec, profile=found.profile)
    assert plan.solved
    assert {config.gpu for config in plan.configs.values()} == {"L40S", "H100"}


def test_kv_cache_dtypes_and_token_budgets_are_configurations_of_their_own():
    found = estimate(
        "llama-3.1-8b", "H100", kv_dtypes=("auto", "fp8"), batched_tokens=(None, 1024), input_tokens=[500.0],
        output_tokens=[250.0],
    )  # fmt: skip
    keys = {(key.kv_dtype, key.max_batched_tokens): table for key, table in found.profile.configs.items()}
    assert set(keys) == {("auto", None), ("auto", 1024), ("fp8", None), ("fp8", 1024)}
    assert keys["fp8", None].max_rate_rps[0, 0] > keys["auto", None].max_rate_rps[0, 0]
    few = estimate("llama-3.1-8b", "H100", sequences=(None, 16), input_tokens=[500.0], output_tokens=[250.0])
    assert [key.max_num_seqs for key in few.profile.configs] == [None, 16]
    rates = [float(table.max_rate_rps[0, 0]) for table in few.profile.configs.values()]
    assert rates[0] > rates[1] > 0
    with pytest.raises(InputError, match="holds no 4096 sequences"):
        estimate("llama-3.1-8b", "H100", sequences=(4096,), batched_tokens=(2048,))
    with pytest.raises(InputError, match="KV-cache dtype is 'fp4'; use one of auto, fp8"):
        estimate("llama-3.1-8b", "H100", kv_dtypes=("fp4",))
