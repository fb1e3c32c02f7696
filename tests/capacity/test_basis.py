from __future__ import annotations

from dataclasses import replace

import pytest

from melange import InputError, load_profile, plan_fleet
from melange.capacity.basis import Basis
from melange.files.records import from_plain, to_plain
from melange.serving.efficiencies import Efficiencies
from melange.serving.engine_settings import VLLM_0_2


def test_nothing_is_known_until_told():
    assert to_plain(Basis(), keep_none=False) == {"curves": [], "gpu_efficiencies": {}, "clock": "datasheet"}


def test_a_plan_rests_on_what_its_profile_rests_on(small_spec):
    profile = load_profile(small_spec)
    assert profile.basis == Basis(engine_version="0.2.7", clock="kernels")
    basis = Basis(efficiencies=Efficiencies(gemm_scale=0.5), engine_settings=VLLM_0_2)
    assert plan_fleet(small_spec, profile=replace(profile, basis=basis)).basis == basis


def test_its_record_is_checked_by_its_parts():
    basis = Basis(efficiencies=Efficiencies(gemm_scale=0.5), engine_settings=VLLM_0_2, engine_version="0.2.7")
    record = to_plain(basis)
    assert from_plain(Basis, record, "no basis") == basis
    for change, message in (
        ({"efficiencies": {"gemm_scale": 50.0}}, "efficiency gemm_scale is 50"),
        ({"engine_version": 2}, "no basis: engine_version"),
        ({"curves": [1]}, "no basis: curves"),
    ):
        with pytest.raises(InputError, match=message):
            from_plain(Basis, {**record, **change}, "no basis")
