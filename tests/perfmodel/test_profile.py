"""The sizes of estimated profiles, and the cached tokens that they assume at them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange.catalog.hardware import load_catalog
from melange.perfmodel.hardware import ModelledEngine
from melange.perfmodel.profile import cached_tokens_at, estimated_table, kernel_notes, profile_sizes
from melange.serving.engine_settings import default_settings
from melange.slo import Slo


def test_sizes_reach_the_largest_request(small_spec):
    inputs, outputs = profile_sizes(small_spec.workload)
    assert inputs[-1] >= 600
    assert outputs[-1] >= 250
    edges = replace(small_spec.workload, representative="upper_edge")
    inputs, outputs = profile_sizes(edges)
    assert {100.0, 1000.0} <= set(inputs)
    assert {100.0, 500.0} <= set(outputs)


def test_the_cached_share_grows_with_the_prompt(small_spec):
    workload = replace(small_spec.workload, mean_cached_tokens=small_spec.workload.mean_input_tokens * 0.5)
    np.testing.assert_allclose(cached_tokens_at(workload, [50, 500, 5000]), [25, 250, 2500])


def test_an_estimate_knows_rates_without_a_limit_where_the_slo_lets_requests_miss():
    catalog = load_catalog()
    engine = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=catalog.gpu("L4"), tp=1, precision="bf16")
    mean, share = Slo(tpot_s=0.05), Slo(tpot_s=0.05, attainment=0.9)
    assert estimated_table(engine, mean, [100, 4000], [100]).unlimited_rps is None
    found = estimated_table(engine, share, [100, 4000], [100])
    assert found.unlimited_rps == pytest.approx(estimated_table(engine, Slo(), [100, 4000], [100]).max_rate_rps)
    assert (found.unlimited_rps >= found.max_rate_rps).all()


def test_lent_kernels_and_engines_that_were_not_fitted_are_told():
    catalog = load_catalog()

    def told(gpu: str, engine: str = "vllm", **values: object) -> str:
        card = catalog.gpu(gpu)
        settings = default_settings(card, engine)
        one = ModelledEngine(model=catalog.model("llama-3.1-8b"), gpu=card, settings=settings, **values)
        return "; ".join(kernel_notes([one]))

    assert told("H100") == ""
    assert told("L4") == "kernels of L4 are those of the L40S, scaled"
    assert told("H100", "sglang") == "what sglang adds to its kernels was not fitted: it is the newest vLLM's"
    assert "on AMD GPUs was last measured in 2024-11" in told("MI300X")
    assert told("L4", clock="datasheet") == ""
