"""Distil measured kernel times into the few figures of a GPU that the model takes: profiles/kernels/nvidia.yaml.

    pip download --no-deps aiconfigurator-core==0.12.0 && unzip aiconfigurator_core-*.whl -d package
    python tests/benchmarks/distil_kernels.py package/aiconfigurator_core/systems/data -o profiles/kernels/nvidia.yaml

Every figure is a fit or a median over the latest version of each engine's measurements in that folder; how far the fits
lie off, in the median, is written beside them. The package is NVIDIA's, under the Apache License 2.0 (see NOTICE).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import numpy as np
import pandas as pd
import yaml
from scipy.optimize import least_squares, nnls

from melange.catalog.hardware import load_catalog
from melange.catalog.precisions import BYTES_PER_PARAMETER
from melange.files.text import write_atomic

SYSTEMS = {
    "A100-80GB": "a100_sxm", "L40S": "l40s", "H100": "h100_sxm", "H200": "h200_sxm", "B200": "b200_sxm",
    "B300": "b300_sxm", "GB200": "gb200", "GB300": "gb300", "RTX-PRO-6000": "rtx_pro_6000_server",
}  # fmt: skip
GEMMS = {"bf16": ("bfloat16",), "fp8": ("fp8", "fp8_block"), "nvfp4": ("nvfp4",), "int8": ("sq",),
         "w8a16": ("int8_wo",), "int4": ("int4_wo",)}  # fmt: skip
EXPERTS = {"bf16": ("bfloat16",), "fp8": ("fp8", "fp8_block"), "nvfp4": ("nvfp4",), "int4": ("int4_wo",),
           "mxfp4": ("w4a16_mxfp4", "w4a8_mxfp4_mxfp8")}  # fmt: skip
SMALL, LARGE = (8, 16, 32), (4096, 8192)  # tokens at which weights are read, and at which products are computed
WORST = 0.35  # of a fit that is kept
THINNEST = 256  # width of an expert on one GPU
OVERLAP = 4.0  # of reading and computing, as StepClock.overlap_exponent


def latest(folder: Path, kind: str, file: str) -> pd.DataFrame:
    """All engines' measurements of one kind, each in its latest version; empty where there are none."""
    parts = []
    for engine in ("vllm", "sglang", "trtllm"):
        found = sorted((folder / kind / engine).glob(f"*/{file}_perf.parquet"), key=lambda path: _version(path.parent))
        if found:
            parts.append(pd.read_parquet(found[-1]).assign(engine=engine))
    return pd.concat(parts) if parts else pd.DataFrame()


def _version(path: Path) -> list[int]:
    return [int(part) for part in path.name.replace("rc", ".").replace("post", ".").split(".") if part.isdigit()]


def gemm(rows: pd.DataFrame) -> dict[str, Any]:
    """Microseconds: launch, then per 1e6 of n x k, per 1e3 of n and of k; computing, the last three per 1000 tokens."""
    rows = rows[(rows.n >= 256) & (rows.k >= 256)]
    rows = rows.groupby(["m", "n", "k"]).latency.median().reset_index()
    small, large = rows[rows.m.isin(SMALL)], rows[rows.m.isin(LARGE)]
    read, off = _affine(small, small.latency.to_numpy() * 1e3, constant=True)
    compute, far = _affine(large, large.latency.to_numpy() * 1e6 / large.m.to_numpy(), constant=False)
    return {"launch_us": read[0], "read_us": read[1:], "compute_us": compute, "median_errors": [off, far]}


def _affine(rows: pd.DataFrame, times: np.ndarray, *, constant: bool) -> tuple[list[float], float]:
    n, k = rows.n.to_numpy(float), rows.k.to_numpy(float)
    columns = [np.ones(len(rows))] if constant else []
    design = np.stack([*columns, n * k / 1e6, n / 1e3, k / 1e3], 1)
    found, _ = nnls(design / times[:, None], np.ones(len(rows)))
    off = float(np.median(np.abs(design @ found / times - 1)))
    return [_short(value) for value in found], _short(off)


def experts(rows: pd.DataFrame, precision: str) -> dict[str, Any]:
    """Launch in microseconds, GB/s that weights are read at and TFLOPS, of a whole layer's routed experts.

    Tokens choose experts by a power law, as the package measured beside an even choice: imbalance is in the figures.
    """
    uneven = rows[rows.distribution.astype(str).str.startswith("power_law_1.01")]
    rows = uneven if len(uneven) else rows
    # Slices as they are served: all experts on each GPU, none cut so thin that tiles stay empty.
    rows = rows[(rows.moe_ep_size == 1) & (rows.inter_size / rows.moe_tp_size >= THINNEST)]
    keys = ["num_tokens", "hidden_size", "inter_size", "topk", "num_experts", "moe_tp_size", "moe_ep_size"]
    rows = rows.groupby(keys).latency.min().reset_index()
    held = rows.num_experts / rows.moe_ep_size
    touched = held * (1 - (1 - rows.topk / rows.num_experts) ** rows.num_tokens)
    matrix = 3.0 * rows.hidden_size * rows.inter_size / rows.moe_tp_size
    read = (touched * matrix * BYTES_PER_PARAMETER[precision]).to_numpy()
    flop = (2.0 * matrix * rows.num_tokens * rows.topk / rows.moe_ep_size).to_numpy()
    times = rows.latency.to_numpy() * 1e-3

    def modelled(logs: np.ndarray) -> np.ndarray:
        launch, byte_s, flop_s = np.exp(logs)
        return np.asarray(launch + ((read * byte_s) ** OVERLAP + (flop * flop_s) ** OVERLAP) ** (1 / OVERLAP))

    start = np.log([3e-5, 5e-13, 5e-15])
    found = least_squares(lambda logs: np.log(modelled(logs) / times), start, loss="soft_l1", f_scale=0.2)
    launch, byte_s, flop_s = np.exp(found.x)
    off = float(np.median(np.abs(modelled(found.x) / times - 1)))
    return {
        "launch_us": _short(1e6 * launch),
        "read_gb_s": _short(1e-9 / byte_s),
        "tflops": _short(1e-12 / flop_s),
        "median_error": _short(off),
    }


def attention(folder: Path) -> dict[str, Any]:
    """Launch of a decode step's kernel, GB/s that a large KV cache is read at by its type, TFLOPS of long prompts."""
    decode = latest(folder, "attention", "generation_attention")
    decode = decode[(decode.window_size == 0) & (decode.head_dim == 128)] if "window_size" in decode else decode
    heads = decode.num_key_value_heads.where(decode.num_key_value_heads > 0, decode.num_heads)
    width = np.where(decode.kv_cache_dtype.astype(str) == "fp8", 1, 2)
    size = decode.batch_size * (decode.isl + decode.step) * heads * 2 * decode.head_dim * width
    rate = size / decode.latency / 1e6  # bytes a millisecond in GB/s
    found: dict[str, Any] = {"launch_us": _short(float(1e3 * decode.latency[size < 1e6].median())), "kv_gb_s": {}}
    for name, element in (("bf16", 2), ("fp8", 1)):
        chosen = (size > 2e8) & (width == element)
        if chosen.any():
            found["kv_gb_s"][name] = _short(float(rate[chosen].median()))
    prompts = latest(folder, "attention", "context_attention")
    prompts = prompts[(prompts.head_dim == 128) & (prompts.isl >= 2048) & (prompts.num_heads >= 8)]
    if "window_size" in prompts:
        prompts = prompts[prompts.window_size == 0]
    pairs = prompts.batch_size * prompts.isl * (prompts.isl + 1) / 2
    flops = 4.0 * pairs * prompts.num_heads * prompts.head_dim / prompts.latency / 1e9
    return found | {"prefill_tflops": _short(float(flops.median()))}


def all_reduce(folder: Path) -> dict[int, dict[str, float]]:
    """By the number of GPUs: latency of a small message, and the GB/s of each link by a ring's count of bytes."""
    rows = latest(folder, "comm", "custom_allreduce")
    if "backend" in rows:
        rows = rows[~rows.backend.astype(str).str.contains("eager")]
    result = {}
    for gpus, own in rows.groupby("num_gpus"):
        count = int(str(gpus))
        large = own[
            (own.message_size >= 2**22) & (own.message_size <= 2**25)
        ]  # messages are counted in elements of two bytes
        ring = 2.0 * (count - 1) / count * 2.0 * large.message_size / (large.latency * 1e-3)
        result[count] = {
            "latency_us": _short(float(1e3 * own[own.message_size <= 16384].latency.median())),
            "gb_s": _short(float(ring.median() / 1e9)),
        }
    return result


def distilled(folder: Path) -> dict[str, Any]:
    """Everything of one GPU type."""
    dense, mixture = latest(folder, "gemm", "gemm"), latest(folder, "moe", "moe")
    result: dict[str, Any] = {"gemm": {}, "experts": {}}
    for name, kinds in GEMMS.items():
        rows = dense[dense.gemm_dtype.astype(str).isin(kinds)]
        if len(rows) > 500:
            result["gemm"][name] = gemm(rows)
    for name, kinds in EXPERTS.items():
        rows = mixture[mixture.moe_dtype.astype(str).isin(kinds)]
        found = experts(rows, name) if len(rows) > 200 else None
        if found is not None and found["median_error"] < WORST:
            result["experts"][name] = found
    return result | {"attention": attention(folder), "all_reduce": all_reduce(folder)}


def _short(value: float) -> float:
    return float(f"{value:.4g}")


@click.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, help="File to write.")
def main(folder: Path, output: str) -> None:
    """Read FOLDER, the package's systems/data, and write what the performance model takes of it."""
    gpus = {}
    for name, system in SYSTEMS.items():
        click.echo(f"{name}: {system}", err=True)
        load_catalog().gpu(name)
        gpus[name] = distilled(folder / system)
    head = (
        "# Kernel times of NVIDIA GPUs, distilled from the measurements of aiconfigurator-core 0.12.0 (NVIDIA,\n"
        "# Apache-2.0; see NOTICE) by tests/benchmarks/distil_kernels.py, which says what each figure is.\n"
    )
    write_atomic(
        output, head + yaml.safe_dump({"version": 1, "gpus": gpus}, sort_keys=False, default_flow_style=None, width=120)
    )


if __name__ == "__main__":
    main()
