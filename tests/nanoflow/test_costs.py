"""The cost model against the paper's printed tables, and against arithmetic done by hand."""

from __future__ import annotations

import csv
from decimal import Decimal
from pathlib import Path

import pytest

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.nanoflow.costs import (
    BatchShape,
    Device,
    analyse,
    layer_costs,
    optimal_tokens_per_s_per_gpu,
    requests_that_fit,
    service_batch,
)
from melange.nanoflow.paper import load_paper_set

WORKLOADS = {
    "lmsys_102_222": (102, 222),
    "splitwise_1155_211": (1155, 211),
    "sharegpt_246_322": (246, 322),
    "const_512_512": (512, 512),
    "const_1024_512": (1024, 512),
    "const_512_1024": (512, 1024),
}
ROWS = {
    "kqv": ("kqv",),
    "o": ("o",),
    "upgate": ("up_gate",),
    "down": ("down",),
    "decode_attention": ("decode_attention",),
    "prefill_attention": ("prefill_attention",),
    "network": ("o_all_reduce", "down_all_reduce"),
}


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def within_printed(value: float, printed: str) -> bool:
    """2% of the printed figure, or the rounding of its last digit."""
    exponent = Decimal(printed).as_tuple().exponent
    assert isinstance(exponent, int)
    return abs(value - float(printed)) <= max(0.02 * float(printed), 0.5 * 10.0**exponent * (1 + 1e-9))


def test_every_operation_of_the_printed_breakdown(shared: Path) -> None:
    paper = load_paper_set()
    device = paper.device("A100-80GB", gpus=8)
    model = paper.catalog.model("llama-2-70b")
    analysis = analyse(model, device, input_tokens=512, output_tokens=1024, batch_tokens=2048)
    printed = rows(shared / "reference/nanoflow/op_breakdown_llama2_70b.csv")
    assert {row["op"] for row in printed} == set(ROWS)
    for row in printed:
        costs = [cost for cost in analysis.operations if cost.kind in ROWS[row["op"]]]
        got = {
            "gflop": sum(cost.flop for cost in costs) * model.layers / 1e9,
            "gbyte": sum(cost.memory_bytes for cost in costs) * model.layers / 1e9,
        }
        for short, resource in (("comp", "compute"), ("mem", "memory"), ("net", "network")):
            got[f"t_{short}_ms"] = 1000 * model.layers * sum(cost.times_s(device)[resource] for cost in costs)
        for name, value in got.items():
            assert within_printed(value, row[name]), (row["op"], name, value, row[name])


def test_every_cell_of_the_printed_t_r(shared: Path) -> None:
    paper = load_paper_set()
    cells = 0
    for row in rows(shared / "reference/nanoflow/t_r.csv"):
        device = paper.device("A100-80GB", gpus=int(row["gpus"].split("x")[0]))
        for column, (input_tokens, output_tokens) in WORKLOADS.items():
            model = paper.catalog.model(row["model"])
            analysis = analyse(model, device, input_tokens=input_tokens, output_tokens=output_tokens)
            assert f"{analysis.t_r:.2f}" == f"{float(row[column]):.2f}", (row["model"], column)
            cells += 1
    assert cells == 24


def test_percent_of_optimal_within_two_points(shared: Path) -> None:
    paper = load_paper_set()
    stated = [row for row in rows(shared / "reference/nanoflow/throughput.csv") if row["percent_of_optimal"]]
    assert len(stated) == 4
    for row in stated:
        device = paper.device("A100-80GB", gpus=int(row["gpus"].split("x")[0]))
        optimal = optimal_tokens_per_s_per_gpu(paper.catalog.model(row["model"]), device)
        percent = 100 * float(row["tokens_per_s_per_gpu"]) / optimal
        assert percent == pytest.approx(float(row["percent_of_optimal"]), abs=2.0)


def test_a_layer_of_llama_3_8b_by_hand() -> None:
    """Grouped-query attention: 8 KV heads of 128 beside 32 query heads; 100 decodes at 1000, 156 prompt tokens."""
    batch = BatchShape(decode_tokens=100, prefill_tokens=156, context_tokens=1000, prompt_tokens=500)
    cost = {cost.kind: cost for cost in layer_costs(load_catalog().model("llama-3-8b"), batch)}
    assert cost["kqv"].flop == 2 * 256 * 4096 * (4096 + 2 * 1024)
    assert cost["kqv"].memory_bytes == 2 * (4096 * 6144 + 256 * (4096 + 6144))
    assert cost["decode_attention"].flop == 4 * 100 * 1000 * 4096
    assert cost["decode_attention"].memory_bytes == 100 * 1001 * 2 * 1024 * 2 + 2 * 100 * 4096 * 2
    assert cost["up_gate"].flop == 2 * 256 * 4096 * 2 * 14336
    assert set(cost) == {"kqv", "decode_attention", "prefill_attention", "o", "up_gate", "down"}


def test_multi_head_attention_reads_four_times_the_kv_of_grouped_query() -> None:
    batch = BatchShape(decode_tokens=100, prefill_tokens=0, context_tokens=1000, prompt_tokens=500)
    catalog = load_catalog()
    queries = 2 * 100 * 4096 * 2
    bytes_of = {
        name: {cost.kind: cost for cost in layer_costs(catalog.model(name), batch)}["decode_attention"].memory_bytes
        for name in ("llama-2-7b", "llama-3-8b")
    }
    assert bytes_of["llama-2-7b"] - queries == pytest.approx(4 * (bytes_of["llama-3-8b"] - queries))


@pytest.mark.parametrize(("tokens", "experts"), [(1, 2.0), (2, 3.5), (4096, 8.0)])
def test_mixture_of_experts_reads_the_experts_it_touches(tokens: int, experts: float) -> None:
    """Two of Mixtral's eight experts a token: 8 (1 - (3/4)^n) distinct ones, the FLOPs of two."""
    model = load_catalog().model("mixtral-8x7b")
    batch = BatchShape(decode_tokens=tokens, prefill_tokens=0, context_tokens=100, prompt_tokens=100)
    down = next(cost for cost in layer_costs(model, batch) if cost.kind == "down")
    moved = 2 * 2 * tokens * (4096 + 14336)
    assert down.flop == 2 * 2 * tokens * 4096 * 14336
    assert (down.memory_bytes - moved) / (2 * 4096 * 14336) == pytest.approx(experts)


def test_network_bytes_by_hand() -> None:
    """Two all-reduces of 64 tokens over 4 GPUs: 2 x 3 x 64 x 4096 x 2 bytes each; none on one GPU."""
    batch = BatchShape(decode_tokens=64, prefill_tokens=0, context_tokens=100, prompt_tokens=100)
    model = load_catalog().model("llama-3-8b")
    reduced = [cost.network_bytes for cost in layer_costs(model, batch, gpus=4) if cost.network_bytes]
    assert reduced == [2 * 3 * 64 * 4096 * 2] * 2
    assert not any(cost.network_bytes for cost in layer_costs(model, batch))


@pytest.mark.parametrize("gpu", list(load_catalog().gpus))
@pytest.mark.parametrize("model", list(load_catalog().models))
def test_every_model_on_every_gpu_is_analysed_or_refused_for_memory(model: str, gpu: str) -> None:
    catalog = load_catalog()
    for gpus in (1, 8):
        device = Device.of(catalog.gpu(gpu), gpus=gpus)
        fits = device.memory_bytes > catalog.model(model).weight_bytes("fp16")
        if not fits:
            with pytest.raises(InputError, match="GB more than"):
                analyse(catalog.model(model), device, input_tokens=1024, output_tokens=512)
            continue
        analysis = analyse(catalog.model(model), device, input_tokens=1024, output_tokens=512)
        times = {"compute": analysis.t_comp_s, "memory": analysis.t_mem_s, "network": analysis.t_net_s}
        assert times[analysis.bound] == max(times.values())
        assert (analysis.t_net_s > 0) == (gpus > 1)
        assert 0 < analysis.attainable_tokens_per_s_per_gpu <= analysis.optimal_tokens_per_s_per_gpu * (1 + 1e-9)


def test_operations_add_up_to_the_service_compute() -> None:
    """All dense FLOPs of all layers are 2 n per layer weight: P without embeddings and output layer."""
    model = load_catalog().model("llama-3-8b")
    batch = BatchShape(decode_tokens=1000, prefill_tokens=0, context_tokens=1, prompt_tokens=1)
    dense = sum(cost.flop for cost in layer_costs(model, batch) if not cost.kind.endswith("attention")) * model.layers
    in_layers = model.parameters - 2 * model.vocabulary * model.hidden
    assert dense == pytest.approx(2 * 1000 * in_layers, rel=0.001)


def test_fp8_computes_natively_only_where_the_gpu_does() -> None:
    catalog = load_catalog()
    model = catalog.model("llama-3-8b")
    speed_up = {
        gpu: optimal_tokens_per_s_per_gpu(model, Device.of(catalog.gpu(gpu), precision="fp8"))
        / optimal_tokens_per_s_per_gpu(model, Device.of(catalog.gpu(gpu)))
        for gpu in ("A100-80GB", "H100")
    }
    assert speed_up["A100-80GB"] == 1.0
    assert speed_up["H100"] == pytest.approx(2.0, rel=0.01)


def test_a_service_batch_fits_the_memory() -> None:
    catalog = load_catalog()
    model, device = catalog.model("llama-3-8b"), Device.of(catalog.gpu("L4"))
    tokens, decode = service_batch(model, device, input_tokens=1024, output_tokens=512)
    assert decode <= requests_that_fit(model, device, 1024, 512) + 1
    assert decode == pytest.approx(tokens / 3, abs=1)
    with pytest.raises(InputError, match="the memory holds"):
        service_batch(model, device, input_tokens=1024, output_tokens=512, batch_tokens=tokens + 1)


def test_bad_figures_are_refused() -> None:
    catalog = load_catalog()
    model, device = catalog.model("llama-3-8b"), Device.of(catalog.gpu("A100-80GB"))
    for sizes in ({"input_tokens": 0, "output_tokens": 5}, {"input_tokens": 5, "output_tokens": float("nan")}):
        with pytest.raises(InputError, match="positive"):
            analyse(model, device, **sizes)
    with pytest.raises(InputError, match="batch holds"):
        analyse(model, device, input_tokens=5, output_tokens=5, batch_tokens=-1)
    with pytest.raises(InputError, match="peak"):
        Device.of(catalog.gpu("A100-80GB"), gemm_tflops=500)
    with pytest.raises(InputError, match="at least 1"):
        Device.of(catalog.gpu("A100-80GB"), gpus=0)
