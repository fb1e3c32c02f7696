"""From the catalog to a clock: hand-computed rooflines, NanoFlow's table, memory."""

from __future__ import annotations

import csv
from dataclasses import replace

import pytest

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.perfmodel.hardware import (
    ModelledEngine,
    kv_bytes_per_token,
    kv_capacity_tokens,
    memory_use,
    missing_memory_gib,
    step_clock,
    weights_bytes,
)
from melange.serving.efficiencies import GEMM_SHARE, Efficiencies
from melange.serving.engine_settings import VLLM_0_2

CATALOG = load_catalog()
GIB = 2.0**30


def modelled(model, gpu, **values):
    """Under the datasheet's clock, whose figures are computed by hand here."""
    values = {"clock": "datasheet", **values}
    return ModelledEngine(model=CATALOG.model(model), gpu=CATALOG.gpu(gpu), **values)


def ideal(gpu):
    """Efficiencies at which this GPU reaches its datasheet: no overheads, all of its bandwidth and FLOP/s."""
    return replace(
        Efficiencies(),
        gemm_scale=min(1 / GEMM_SHARE[gpu], 1.1),
        bandwidth_share=0.98,
        kv_bandwidth_share=0.98,
        activation_passes=0.05,
        overhead_s=1e-5,
        per_sequence_s=1e-7,
        per_request_s=1e-5,
        per_token_s=1e-8,
    )


def test_llama_2_7b_on_an_l4_takes_at_least_44_ms_a_token():
    # 6.738e9 parameters less the input embedding, 32000 x 4096 = 0.131e9, of 2 bytes each over 300 GB/s:
    # 13.214e9 / 300e9 = 44.05 ms (44.9 ms if the embedding were read as well).
    clock = step_clock(modelled("llama-2-7b", "L4"), ideal("L4"))
    assert clock.weights_s * 0.98 == pytest.approx(44.05e-3, rel=1e-3)
    assert 44e-3 <= float(clock.iteration_s(decodes=1, kv_tokens=100)) <= 46.5e-3


def test_one_decode_step_of_llama_3_1_8b_on_an_h100():
    # Read: 8.030e9 - 128256 x 4096 = 7.505e9 parameters x 2 bytes / (3350e9 x 0.98) = 4.572 ms.
    # KV: 2 x 8 x 128 x 32 x 2 bytes = 131,072 a token; 1000 tokens / (3350e9 x 0.98) = 0.0399 ms.
    # Batch 1 computes 2 x 6.979e9 FLOP / (989e12 x 0.803) = 0.018 ms beside the reading: nothing.
    h100 = replace(ideal("H100"), gemm_scale=1.1)
    clock = step_clock(modelled("llama-3.1-8b", "H100"), h100)
    assert clock.weights_s == pytest.approx(4.572e-3, rel=1e-3)
    assert float(clock.iteration_s(decodes=1, kv_tokens=1000)) == pytest.approx(4.572e-3 + 0.0399e-3, rel=5e-3)
    # Batch 256 over 256 x 1000 tokens: KV 10.22 ms; compute 256 x 17.58 us = 4.50 ms; with k = 4 the GEMMs take
    # (4.572^4 + 4.50^4)^(1/4) = 5.394 ms; logits 256 x 2 x 0.5253e9 / (989e12 x 0.803) = 0.339 ms.
    step = float(clock.iteration_s(decodes=256, kv_tokens=256_000))
    assert step == pytest.approx((10.22 + 5.394 + 0.339) * 1e-3, rel=0.01)


def test_nanoflows_network_and_compute_times(shared):
    with open(shared / "reference/nanoflow/op_breakdown_llama2_70b.csv") as file:
        rows = {row["op"]: row for row in csv.DictReader(file)}
    a100 = replace(CATALOG.gpu("A100-80GB"), name="ideal")  # no share of its own: 0.70 x 1.1 x ... is divided out
    clock = step_clock(
        ModelledEngine(model=CATALOG.model("llama-2-70b"), gpu=a100, tp=8, clock="datasheet"),
        replace(Efficiencies(), gemm_scale=1.0, network_share=1.0),
    )
    assert clock.collective_s_per_token * 2048 == pytest.approx(float(rows["network"]["t_net_ms"]) * 1e-3, rel=2e-3)
    dense = sum(float(rows[op]["t_comp_ms"]) for op in ("kqv", "o", "upgate", "down"))
    assert clock.compute_s_per_token * 0.70 * 2048 == pytest.approx(dense * 1e-3, rel=2e-3)


def test_kv_capacity_of_llama_2_7b_on_an_a10g():
    d = modelled("llama-2-7b", "A10G", settings=VLLM_0_2)
    # A token: 2 x 4096 x 32 layers x 2 bytes = 0.5 MiB. 22.0 GiB x 0.9 = 19.8; less weights 12.55, reserve 0.5 and
    # activations (4 x 4096 + 3 x 11008) x 2 bytes x 4096 tokens = 0.377 GiB, more than 2 x 4 x 256 x 32000 of logits.
    assert kv_bytes_per_token(d) == 2**19
    assert memory_use(d).activation_bytes / GIB == pytest.approx(0.377, abs=1e-3)
    assert kv_capacity_tokens(d) == pytest.approx((19.8 - 12.55 - 0.5 - 0.377) * 2048, rel=2e-3)
    # The paper limits A10G and L4 to requests under 12,000 tokens.
    assert kv_capacity_tokens(d) < 16_000


def test_a_32b_model_on_one_h100_takes_a_prompt_of_32000_tokens():
    """As measured in vLLM 0.11 (GPUStack performance lab), with its default arguments."""
    assert kv_capacity_tokens(modelled("qwen3-32b", "H100", precision="bf16")) > 32_000 + 77


def test_a_model_that_does_not_fit_says_by_how_much():
    d = modelled("llama-3.1-70b", "A100-80GB")
    missing = missing_memory_gib(d)
    assert missing == pytest.approx(70.554e9 * 2 / GIB - 79.1 * 0.9 + 0.5 + 0.6, abs=0.6)
    with pytest.raises(InputError, match=rf"does not fit: {missing:.1f} GiB per GPU are missing"):
        step_clock(d)
    assert missing_memory_gib(modelled("llama-3.1-70b", "A100-80GB", tp=4)) == 0


def test_quantised_weights_keep_the_embeddings_at_16_bits():
    model = CATALOG.model("llama-3.1-8b")
    embeddings = 2 * 128256 * 4096
    assert weights_bytes(model, "fp8") == pytest.approx(model.parameters - embeddings + 2 * embeddings)
    assert weights_bytes(model, "int4") == pytest.approx(
        (model.parameters - embeddings) * (0.5 + 2 / 128) + 2 * embeddings
    )


def test_fp8_computes_natively_on_h100_and_is_only_stored_on_a100():
    for gpu, gain in (("H100", 0.88 * 1979 / 989), ("A100-80GB", 0.8)):
        fp16, fp8 = (step_clock(modelled("llama-3.1-8b", gpu, precision=p)) for p in ("fp16", "fp8"))
        assert fp16.compute_s_per_token / fp8.compute_s_per_token == pytest.approx(gain, rel=1e-3)
        assert fp8.weights_s < 0.6 * fp16.weights_s


def test_experts_are_read_by_share_and_computed_by_choice():
    clock = step_clock(modelled("mixtral-8x7b", "H100", tp=2))
    assert clock.expert_share == 0.25
    # 32 layers x 8 experts x 3 x 4096 x 14336 = 45.1e9 of the 46.7e9 parameters are in experts.
    assert clock.expert_weights_s / (clock.expert_weights_s + clock.weights_s) == pytest.approx(45.1 / 46.57, rel=2e-3)


def test_tensor_parallelism_divides_work_and_adds_collectives():
    one, four = (step_clock(modelled("llama-3.1-8b", "H100", tp=tp)) for tp in (1, 4))
    assert four.weights_s == pytest.approx(one.weights_s / 4)
    assert four.kv_read_s_per_token == pytest.approx(one.kv_read_s_per_token / 4)
    assert one.collective_s == one.collective_s_per_token == 0
    assert four.collective_s > 0
    sixteen = step_clock(modelled("llama-3.1-8b", "H100", tp=16))
    assert sixteen.kv_read_s_per_token == pytest.approx(one.kv_read_s_per_token / 8)  # 8 KV heads, each on two GPUs


@pytest.mark.parametrize(("tp", "why"), [(3, "32 attention heads do not divide"), (0, "do not divide")])
def test_degrees_that_do_not_divide_are_refused(tp, why):
    with pytest.raises(InputError, match=why):
        modelled("llama-3.1-8b", "H100", tp=tp)
