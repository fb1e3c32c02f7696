from __future__ import annotations

import pytest

from melange import Gpu, InputError, Model, load_catalog

GPUS = [
    "T4", "L4", "A10G", "L40S", "A100-40GB", "A100-80GB", "H100", "H100-NVL", "H200", "B200", "MI300X", "H20", "A800",
    "RTX3090", "RTX4090", "RTX5090", "A6000", "RTX6000-Ada", "RTX-PRO-6000", "V100", "L20", "H100-PCIe", "GH200",
    "B300", "GB200", "MI325X", "MI355X",
]  # fmt: skip
ALIKE = [
    "llama-2-7b", "llama-2-13b", "llama-2-70b", "llama-3-8b", "llama-3-70b", "llama-3.1-8b", "llama-3.1-70b",
    "qwen2-72b", "qwen3-8b", "qwen3-32b", "deepseek-67b", "mixtral-8x7b",
]  # fmt: skip


def test_the_catalog_holds_what_is_promised_with_sources():
    catalog = load_catalog()
    assert all(catalog.gpu(name) for name in GPUS)
    assert len(catalog.models) >= 100
    assert all(entry.source for entry in (*catalog.gpus.values(), *catalog.models.values()))


def test_no_name_or_alias_is_used_twice():
    catalog = load_catalog()
    for entries in (catalog.gpus.values(), catalog.models.values()):
        names = [name.lower() for entry in entries for name in (entry.name, *entry.aliases)]
        assert len(names) == len(set(names))


def parameters(m: Model) -> float:
    """Parameters counted from the shape alone: embeddings, attention, (expert) MLPs, norms, output head."""
    attention = m.hidden * m.head_size * (2 * m.heads + 2 * m.kv_heads)
    mlp = 3 * m.hidden * m.intermediate * m.experts + (m.hidden * m.experts if m.experts > 1 else 0)
    return m.layers * (attention + mlp + 2 * m.hidden) + 2 * m.vocabulary * m.hidden + m.hidden


@pytest.mark.parametrize("name", ALIKE)
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


@pytest.mark.parametrize("bad", [{"bandwidth_gb_s": 0}, {"tflops": {"fp8": 1.0}}, {"memory_gib": float("nan")}])
def test_impossible_gpus_are_refused(bad):
    figures = {
        "name": "x", "memory_gib": 10, "bandwidth_gb_s": 10, "tflops": {"fp16": 1.0}, "interconnect": "",
        "interconnect_gb_s": 1,
    }  # fmt: skip
    with pytest.raises(InputError):
        Gpu(**{**figures, **bad})
