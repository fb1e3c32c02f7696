from __future__ import annotations

import pytest

from melange import Gpu, InputError, Model, load_catalog

ISSUE_GPUS = ["T4", "L4", "A10G", "L40S", "A100-40GB", "A100-80GB", "H100", "H100-NVL", "H200", "B200", "MI300X"]
ISSUE_MODELS = [
    "llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-3-8b", "llama-3-70b", "llama-3.1-8b", "llama-3.1-70b",
    "qwen2-72b", "qwen3-8b", "qwen3-32b", "deepseek-67b", "mixtral-8x7b",
]  # fmt: skip


def test_the_catalog_holds_what_is_promised_with_sources():
    catalog = load_catalog()
    assert list(catalog.gpus) == ISSUE_GPUS
    assert list(catalog.models) == ISSUE_MODELS
    assert all(entry.source for entry in (*catalog.gpus.values(), *catalog.models.values()))


def parameters(m: Model) -> float:
    """Parameters counted from the shape alone: embeddings, attention, (expert) MLPs, norms, output head."""
    attention = m.hidden * m.head_size * (2 * m.heads + 2 * m.kv_heads)
    mlp = 3 * m.hidden * m.intermediate * m.experts + (m.hidden * m.experts if m.experts > 1 else 0)
    return m.layers * (attention + mlp + 2 * m.hidden) + 2 * m.vocabulary * m.hidden + m.hidden


@pytest.mark.parametrize("name", ISSUE_MODELS)
def test_parameters_agree_with_the_shape(name):
    model = load_catalog().model(name)
    assert model.parameters == pytest.approx(parameters(model), rel=0.002)


def test_bare_a100_is_skypilots_40_gb_card():
    assert load_catalog().gpu("A100").name == "A100-40GB"
    assert load_catalog().gpu("a100-80g").name == "A100-80GB"


def test_unknown_names_suggest_the_nearest():
    with pytest.raises(InputError, match=r"did you mean .*H100"):
        load_catalog().gpu("H1000")
    with pytest.raises(InputError, match=r"llama-3\.1-8b"):
        load_catalog().model("llama-3.1-8B-instruct")


def test_fp8_is_native_on_l4_and_only_stored_on_a100():
    catalog = load_catalog()
    assert catalog.gpu("L4").is_native("fp8")
    a100 = catalog.gpu("A100-80GB")
    assert not a100.is_native("fp8")
    assert a100.compute_tflops("fp8") == a100.tflops["fp16"]


SHAPE = {
    "name": "x", "parameters": 1e9, "layers": 2, "hidden": 64, "heads": 4, "kv_heads": 2, "head_size": 16,
    "intermediate": 128, "vocabulary": 100,
}  # fmt: skip


@pytest.mark.parametrize("bad", [{"kv_heads": 3}, {"layers": 0}, {"experts_per_token": 2}, {"active_parameters": 2e9}])
def test_impossible_models_are_refused(bad):
    with pytest.raises(InputError):
        Model(**{**SHAPE, **bad})


@pytest.mark.parametrize("bad", [{"bandwidth_gb_s": 0}, {"tflops": {"fp8": 1.0}}, {"memory_gib": float("nan")}])
def test_impossible_gpus_are_refused(bad):
    figures = {
        "name": "x", "memory_gib": 10, "bandwidth_gb_s": 10, "tflops": {"fp16": 1.0}, "interconnect": "",
        "interconnect_gb_s": 1,
    }  # fmt: skip
    with pytest.raises(InputError):
        Gpu(**{**figures, **bad})
