"""Which of a profile's configurations a workload may use: its model by any name, its checkpoint's precision."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from melange import ConfigKey, InputError, Profile, ProfileChoice, ServingChoice, load_catalog
from melange.perfmodel.estimate import Rates
from melange.perfmodel.profile import table_of
from melange.planning.served import served_keys

CATALOG = load_catalog()
SIZES = np.array([100.0, 1000.0]), np.array([100.0, 500.0])


def profile(slo, **rates):
    """Keys written ``GPU_precision[_kv]`` with one rate at every size."""
    tables = {}
    for name, rate in rates.items():
        gpu, precision, *kv = name.split("_")
        key = ConfigKey("llama-3.1-8b", gpu, 1, precision, "vllm", *kv)
        every = np.full((2, 2), float(rate))
        tables[key] = table_of(key, *SIZES, Rates(rate_rps=every, low_rps=every, high_rps=every))
    return Profile(slo=slo, configs=tables)


@pytest.fixture
def spec(small_spec):
    workload = replace(small_spec.workload, model="llama-3.1-8b")
    return replace(small_spec, workload=workload, profiles=ProfileChoice(files=("f",)))


def names(spec, found):
    return {f"{key.gpu}_{key.precision}" for key in served_keys(spec, found, CATALOG)}


def test_the_checkpoints_precision_is_the_default_where_there_is_one(spec):
    found = profile(spec.workload.slo, L4_fp16=1, L4_fp8=2, H100_fp8=5)
    assert names(spec, found) == {"L4_fp16", "H100_fp8"}  # fp16 and bf16 are one; the H100 has nothing else


def test_named_precisions_may_be_mixed_and_any_takes_the_best_of_each_gpu(spec):
    found = profile(spec.workload.slo, L4_bf16=1, L4_fp8=2, A10G_bf16=2, A10G_fp8=1, H100_fp8=3, H100_int8=3)
    both = replace(spec, serving=ServingChoice(precisions=("bf16", "fp8")))
    assert names(both, found) == {"L4_bf16", "L4_fp8", "A10G_bf16", "A10G_fp8", "H100_fp8"}
    best = replace(spec, serving=ServingChoice(precisions=("any",)))
    assert names(best, found) == {"L4_fp8", "A10G_bf16", "H100_fp8"}


def test_an_fp8_cache_is_used_when_it_is_asked_for(spec):
    found = profile(spec.workload.slo, L4_bf16=1, L4_bf16_fp8=2)
    kinds = {
        asked: [
            key.kv_dtype for key in served_keys(replace(spec, serving=ServingChoice(kv_dtypes=asked)), found, CATALOG)
        ]
        for asked in ((), ("fp8",), ("auto", "fp8"))
    }
    assert kinds == {(): ["auto"], ("fp8",): ["fp8"], ("auto", "fp8"): ["auto", "fp8"]}


def test_a_token_budget_is_also_the_engines_own(spec):
    found = profile(spec.workload.slo, L4_bf16=1, H100_bf16=1)  # 2048 and 8192 when told nothing
    budget = replace(spec, serving=ServingChoice(batched_tokens=(8192,)))
    assert names(budget, found) == {"H100_bf16"}
    few = replace(spec, serving=ServingChoice(sequences=(256,)))  # 256 and 1024 when told nothing
    assert names(few, found) == {"L4_bf16"}


def test_a_model_is_known_by_any_of_its_names(spec):
    found = profile(spec.workload.slo, L4_bf16=1)
    for alias in ("meta-llama/Llama-3.1-8B-Instruct", "LLAMA-3.1-8b"):
        other = replace(spec, workload=replace(spec.workload, model=alias))
        assert names(other, found) == {"L4_bf16"}
    with pytest.raises(InputError, match=r"no model 'llama-3.1-9b'.*did you mean 'llama-3.1-8b'"):
        names(replace(spec, workload=replace(spec.workload, model="llama-3.1-9b")), found)
