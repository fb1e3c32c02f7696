"""Clocks from measured kernels: what ships, what is taken from a kin, and what holds for every GPU and model."""

from __future__ import annotations

from dataclasses import replace

import pytest

from melange.catalog.hardware import Gpu, load_catalog
from melange.errors import InputError
from melange.perfmodel.engine_costs import EngineCosts, engine_costs
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib, step_clock
from melange.perfmodel.kernels import kernels_of, kin_of

CATALOG = load_catalog()
MEASURED = {"A100-80GB", "L40S", "H100", "H200", "B200", "B300", "GB200", "GB300", "RTX-PRO-6000"}


def clock(gpu: str, model: str = "llama-3.1-8b", precision: str = "bf16", tp: int = 1, **costs: float):
    modelled = ModelledEngine(model=CATALOG.model(model), gpu=CATALOG.gpu(gpu), tp=tp, precision=precision)
    return step_clock(modelled, costs=EngineCosts(**costs))


def test_what_was_measured_is_told_from_what_a_kin_lends() -> None:
    assert {name for name, gpu in CATALOG.gpus.items() if kernels_of(gpu).measured} == MEASURED


def test_a_product_on_an_h100_takes_what_was_measured() -> None:
    # 4096 x 14336 in bf16 at 16 tokens: 45 microseconds in the package's table, of which 3 are the launch.
    gemm = kernels_of(CATALOG.gpu("H100")).gemm("bf16")
    assert gemm.launch_s + gemm.read(4096 * 14336, 14336, 4096) == pytest.approx(45e-6, rel=0.15)


@pytest.mark.parametrize("gpu", sorted(CATALOG.gpus))
@pytest.mark.parametrize("precision", ["bf16", "fp8", "int8", "w8a16", "int4", "nvfp4", "mxfp4"])
def test_every_gpu_has_kernels_in_every_precision_and_narrow_weights_are_read_faster(gpu: str, precision: str) -> None:
    kernels = kernels_of(CATALOG.gpu(gpu))
    wide, narrow = kernels.gemm("bf16"), kernels.gemm(precision)
    nk = 4096.0 * 8192.0
    assert 0 < narrow.read(nk, 8192, 4096) <= wide.read(nk, 8192, 4096) * 1.001
    assert narrow.compute(nk, 8192, 4096) > 0
    assert kernels.expert(precision).s_per_flop > 0


@pytest.mark.parametrize("model", ["llama-3.1-70b", "gpt-oss-120b", "deepseek-v3", "qwen3.5-35b-a3b", "gemma-3-27b"])
def test_clocks_of_all_kinds_of_models(model: str) -> None:
    for gpu in ("H100", "B200", "MI300X", "L4"):
        for tp in (1, 8):
            modelled = ModelledEngine(
                model=CATALOG.model(model), gpu=CATALOG.gpu(gpu), tp=tp, precision=CATALOG.model(model).precision
            )
            if missing_memory_gib(modelled):
                continue
            found = step_clock(modelled, costs=engine_costs(modelled.gpu))
            assert 1e-4 < float(found.iteration_s(decodes=1, kv_tokens=1000)) < 1.0


def test_faster_memory_and_more_gpus_take_less_time() -> None:
    step = {
        gpu: float(clock(gpu).iteration_s(decodes=8, kv_tokens=8000)) for gpu in ("L4", "A100-80GB", "H100", "H200")
    }
    assert sorted(step, key=step.__getitem__, reverse=True) == ["L4", "A100-80GB", "H100", "H200"]
    assert clock("H100", tp=4).weights_s < clock("H100", tp=1).weights_s


def test_costs_are_of_an_engine_s_kind() -> None:
    h100, mi300x = CATALOG.gpu("H100"), CATALOG.gpu("MI300X")
    assert engine_costs(h100, "vllm", "0.6.3") == engine_costs(h100, "vllm", "0.7.3") != engine_costs(h100)
    assert engine_costs(h100, "vllm", "0.11.0") != engine_costs(h100) == engine_costs(h100, "unknown")
    assert engine_costs(mi300x, "vllm", "0.6.3") == engine_costs(mi300x) != engine_costs(h100)


def test_kernel_time_and_the_host_count() -> None:
    plain, slow = clock("H100", kernel_time=1.0, host_s=1e-3), clock("H100", kernel_time=2.0, host_s=2e-3)
    assert slow.weights_s == pytest.approx(2 * plain.weights_s)
    assert slow.overhead_s == pytest.approx(2 * plain.overhead_s)
    with pytest.raises(InputError, match="kernel_time is 0"):
        EngineCosts(kernel_time=0.0)


def described(gpu: str, **figures: object) -> Gpu:
    return replace(CATALOG.gpu(gpu), **figures)


def test_figures_that_differ_in_memory_or_links_alone_are_other_gpus() -> None:
    own = CATALOG.gpu("RTX-PRO-6000")
    before = kernels_of(own).all_reduce
    assert kernels_of(described("RTX-PRO-6000", memory_gib=own.memory_gib + 1)).all_reduce == before
    faster = kernels_of(described("RTX-PRO-6000", interconnect_gb_s=2 * own.interconnect_gb_s)).all_reduce
    assert faster[8][1] == pytest.approx(2 * before[8][1])
    assert kernels_of(own).all_reduce == before


def test_a_slower_link_is_slower_however_it_is_spelled() -> None:
    slow = kernels_of(described("H100", name="mine H100", interconnect="nvlink 4", interconnect_gb_s=45.0))
    assert slow.all_reduce[8][1] == pytest.approx(0.1 * kernels_of(CATALOG.gpu("H100")).all_reduce[8][1])


def test_a_name_holds_another_as_a_word_of_its_own() -> None:
    assert kin_of(described("L40S", name="L40")) == "L40S"
    assert kin_of(described("H200", name="my H100, modified")) == "H100"


def test_formats_that_were_not_measured() -> None:
    h100, v100, b300 = (kernels_of(CATALOG.gpu(name)) for name in ("H100", "V100-32GB", "B300"))
    nk = 4096.0 * 8192.0
    assert h100.gemm("fp32").read(nk, 0, 0) == pytest.approx(2 * h100.gemm("bf16").read(nk, 0, 0))
    assert h100.gemm("fp32").compute(nk, 0, 0) > 8 * h100.gemm("bf16").compute(nk, 0, 0)
    assert v100.gemm("int8").compute(nk, 0, 0) > 0.9 * v100.gemm("bf16").compute(nk, 0, 0)  # it only stores them
    assert b300.gemm("int8").compute(nk, 0, 0) > 10 * b300.gemm("fp8").compute(nk, 0, 0)


def test_eight_cards_on_pcie_are_no_slower_than_eight_slower_ones() -> None:
    steps = {
        gpu: float(clock(gpu, "llama-3.1-70b", "fp8", tp=8).iteration_s(decodes=32, kv_tokens=32_000))
        for gpu in ("L40S", "A10G", "L4", "T4")
    }
    assert sorted(steps, key=steps.__getitem__)[:2] == ["L40S", "A10G"]
