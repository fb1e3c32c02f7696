from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import InputError, PriceChoice, ServingChoice, Slo, TypeLimit


def test_each_change_leaves_the_rest_as_it_was(small_spec):
    asked = (
        small_spec.with_rate(7.0)
        .with_slo(Slo(ttft_s=1.0))
        .with_prices(PriceChoice(price_set="2026-11"))
        .with_headroom(0.1, {"L4": 0.2})
        .with_fill("estimated")
        .with_engines(["nanoflow"])
        .limited(maximum={"L4": 2})
    )
    assert asked.workload.total_rate_rps == pytest.approx(7.0)
    assert asked.workload.rate_rps == pytest.approx(2 * small_spec.workload.rate_rps)
    assert np.array_equal(asked.workload.mean_input_tokens, small_spec.workload.mean_input_tokens)
    assert asked.slo == Slo(ttft_s=1.0)
    assert asked.prices == PriceChoice(price_set="2026-11")
    assert (asked.headroom, dict(asked.headroom_by_config)) == (0.1, {"L4": 0.2})
    assert asked.profiles == replace(small_spec.profiles, fill="estimated")
    assert asked.serving.engines == ("nanoflow",)
    assert asked.limits.types == {"L4": TypeLimit(maximum=2)}


def test_the_slo_that_the_file_states_is_kept_in_mind_through_every_change(small_spec):
    assert small_spec.stated_slo is None
    twice = small_spec.with_slo(Slo(ttft_s=1.0)).with_rate(2).with_slo(Slo(ttft_s=2.0))
    assert twice.stated_slo == small_spec.slo


def test_other_prices_do_not_stand_where_the_file_has_its_own(small_spec):
    spec = replace(small_spec, file="w.yaml", places={"prices": (4, 1), "model": (2, 1)})
    error = InputError("wrong")
    assert spec.located(error, "prices").line == 4
    assert spec.with_prices(PriceChoice()).located(error, "prices").line is None
    assert spec.with_prices(PriceChoice()).located(error, "model").line == 2


@pytest.mark.parametrize("headroom", [-0.1, float("nan")])
def test_a_headroom_that_is_no_share_is_refused(small_spec, headroom):
    with pytest.raises(InputError, match="headroom is"):
        small_spec.with_headroom(headroom)
    with pytest.raises(InputError, match="headroom is"):
        small_spec.with_headroom(0.0, {"L4": headroom})


def test_the_two_16_bit_precisions_are_one_choice():
    with pytest.raises(InputError, match="both fp16 and bf16"):
        ServingChoice(precisions=("fp16", "bf16"))
