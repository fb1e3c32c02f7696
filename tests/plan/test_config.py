from __future__ import annotations

from dataclasses import replace

import pytest

from melange import ConfigKey, plan_fleet
from melange.plan.config import LeftOutOffer, PlanConfig

CONFIG = PlanConfig(
    gpu="L4", instance="g2-standard-24", instance_key="2x L4", gpus_per_instance=2, tp=2, precision="fp8",
    engine="vllm", model="llama-3.1-8b", price_usd_per_hour=2.0, kv_dtype="fp8", max_batched_tokens=2048,
    max_num_seqs=64,
)  # fmt: skip


def test_the_key_is_what_is_served_and_on_what():
    assert CONFIG.key == ConfigKey("llama-3.1-8b", "L4", 2, "fp8", "vllm", "fp8", 2048, 64)
    assert replace(CONFIG, model=None).key is None


@pytest.mark.parametrize(
    "change", [{"instance": "other"}, {"price_usd_per_hour": 9.0}, {"spot": True}, {"provider": "aws"}]
)
def test_who_rents_it_out_is_not_in_the_key(change):
    assert replace(CONFIG, **change).key == CONFIG.key


def test_what_is_not_told_is_left_to_the_engine_and_on_demand():
    plain = PlanConfig(
        gpu="L4", instance="a", instance_key="L4", gpus_per_instance=1, tp=1, precision="unspecified",
        engine="unspecified", model="m", price_usd_per_hour=1.0,
    )  # fmt: skip
    assert plain.key == ConfigKey("m", "L4", 1, "unspecified", "unspecified")
    assert (plain.spot, plain.headroom, plain.sources, plain.profile) == (False, 0.0, (), None)


def test_a_plans_configs_carry_their_price_hardware_and_rates(small_spec):
    configs = plan_fleet(small_spec).configs
    config = configs["L4"]
    assert (config.price_usd_per_hour, config.price_set, config.provider) == (0.7, "paper-2024", "paper")
    assert (config.hardware.name, config.model_shape.name) == ("L4", "llama-2-7b")
    assert config.profile.max_rate_rps[0][0] > config.profile.max_rate_rps[-1][-1] > 0
    assert all(configs[name].instance_key == name for name in configs)


def test_an_offer_that_was_left_out_says_why(small_spec):
    offer = LeftOutOffer(instance="dear", gpu="L4", provider="aws", reason="L4 of gcp is cheaper")
    plan = replace(plan_fleet(small_spec), dropped_offers=(offer,))
    assert plan.dropped_offers[0].reason == "L4 of gcp is cheaper"
    with pytest.raises(AttributeError):
        offer.reason = ""
