"""``engine: nanoflow`` in estimates, profiles and fleets."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.capacity.basis import Basis
from melange.catalog.hardware import load_catalog
from melange.nanoflow.profile import with_nanoflow
from melange.perfmodel.calibration import Calibration
from melange.perfmodel.estimate import load_points, max_rates_rps, rates_with_band, under_calibration
from melange.perfmodel.hardware import ModelledEngine
from melange.planning.planner import plan_fleet
from melange.planning.profile_source import load_profile
from melange.planning.spec import ProfileChoice, ServingChoice, WorkloadSpec
from melange.serving.engine_settings import VLLM_0_2, default_settings
from melange.slo import Slo

SIZES = np.meshgrid([100.0, 1000.0, 16000.0], [100.0, 500.0, 2000.0], indexing="ij")


def modelled(engine: str, gpu: str = "A100-80GB", model: str = "llama-2-7b") -> ModelledEngine:
    catalog = load_catalog()
    card = catalog.gpu(gpu)
    return ModelledEngine(model=catalog.model(model), gpu=card, settings=default_settings(card, engine))


@pytest.mark.parametrize("gpu", ["L4", "A10G", "A100-80GB", "H100"])
@pytest.mark.parametrize("slo", [Slo(), Slo(tpot_s=0.1), Slo(tpot_s=0.1, ttft_s=1.0, attainment=0.99)])
def test_the_engine_takes_the_better_of_both_at_every_size_and_slo(gpu: str, slo: Slo) -> None:
    one, both = (max_rates_rps(modelled(engine, gpu), slo, *SIZES) for engine in ("vllm", "nanoflow"))
    assert (both >= one).all()
    assert ((one == 0) == (both == 0)).all()


def test_overlap_gains_on_an_a100_where_decode_attention_and_dense_work_balance() -> None:
    one, both = (max_rates_rps(modelled(engine), Slo(), 1000.0, 500.0) for engine in ("vllm", "nanoflow"))
    assert 1.02 < float(both / one) < 1.5


def test_bands_of_the_engine_hold_its_rates() -> None:
    band = rates_with_band(modelled("nanoflow"), Slo(), *SIZES)
    assert band.rate_rps == pytest.approx(max_rates_rps(modelled("nanoflow"), Slo(), *SIZES))
    known = band.rate_rps > 0
    assert (band.low_rps[known] < band.rate_rps[known]).all()


def test_load_points_are_filed_under_the_engine_as_estimates() -> None:
    points = load_points(modelled("nanoflow"), [500], [250])
    assert {(point.engine, point.source) for point in points} == {("nanoflow", "estimated")}


def test_a_calibration_keeps_the_engine() -> None:
    calibration = Calibration(settings=VLLM_0_2)
    assert under_calibration(modelled("nanoflow"), calibration).engine == replace(VLLM_0_2, name="nanoflow")
    assert under_calibration(modelled("vllm"), calibration).engine == VLLM_0_2


def test_rows_beside_a_published_profile(small_spec: WorkloadSpec) -> None:
    profile = load_profile(small_spec)
    wider = with_nanoflow(profile)
    assert len(wider.configs) == 2 * len(profile.configs)
    for key, table in profile.configs.items():
        mine = wider.configs[key._replace(engine="nanoflow")]
        known = table.max_rate_rps > 0
        assert (mine.max_rate_rps[known] >= table.max_rate_rps[known]).all()
        assert (np.isnan(mine.max_rate_rps) == np.isnan(table.max_rate_rps)).all()
        assert set(mine.sources) == {"estimated"}
        assert wider.configs[key] is table
    assert "predictions, not measured" in wider.warnings[-1]
    assert set(with_nanoflow(wider).configs) == set(wider.configs)


def test_what_the_rates_rest_on_stays(small_spec: WorkloadSpec) -> None:
    for choice in (small_spec.profiles, ProfileChoice(set="estimated/llama-2-7b")):
        profile = load_profile(replace(small_spec, profiles=choice))
        assert profile.basis != Basis()
        assert with_nanoflow(profile).basis == profile.basis


def test_a_workload_may_ask_for_both_engines(small_spec: WorkloadSpec) -> None:
    both = replace(small_spec, serving=ServingChoice(engines=("vllm", "nanoflow")))
    assert {key.engine for key in load_profile(both).configs} == {"vllm", "nanoflow"}
    assert {key.engine for key in load_profile(small_spec).configs} == {"vllm"}
    assert {config.engine for config in plan_fleet(both).configs.values()} == {"vllm", "nanoflow"}
