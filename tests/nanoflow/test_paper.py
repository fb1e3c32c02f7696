"""The figures that the NanoFlow paper's tables assume."""

from __future__ import annotations

import pytest

from melange.errors import InputError
from melange.nanoflow.paper import load_paper_set

PAPER = load_paper_set()


def test_units_are_those_of_the_catalog() -> None:
    """Printed: 80 GB of 1e9 bytes, 600 GB/s in both directions together, 312 dense TFLOPS."""
    gpu = PAPER.catalog.gpu("A100-80GB")
    assert gpu.memory_gib * 2**30 == pytest.approx(80e9)
    assert (gpu.bandwidth_gb_s, gpu.interconnect_gb_s, gpu.tflops["fp16"]) == (2000, 300, 312)
    assert "2408.12757" in gpu.source


def test_gemms_reach_what_the_paper_implies_where_it_does() -> None:
    a100, h100 = PAPER.device("A100-80GB", gpus=8), PAPER.device("H100")
    assert a100.gpus == 8
    assert a100.gemm_flop_s == pytest.approx(8 * 260e12)
    assert a100.compute_flop_s == pytest.approx(8 * 312e12)
    assert a100.network_bytes_s == pytest.approx(8 * 300e9)
    assert dict(PAPER.gemm_tflops) == {"A100-80GB": 260}
    assert h100.compute_flop_s == pytest.approx(989e12)
    assert h100.gemm_flop_s <= h100.compute_flop_s


def test_models_are_the_papers() -> None:
    assert set(PAPER.catalog.models) == {"llama-3-8b", "llama-2-70b", "llama-3-70b", "qwen2-72b", "deepseek-67b"}
    assert PAPER.catalog.model("qwen2-72b").parameters == 72.0e9
    with pytest.raises(InputError):
        PAPER.device("L4")
