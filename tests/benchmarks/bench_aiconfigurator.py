"""The performance model and NVIDIA's aiconfigurator beside the same public measurements, where both can answer.

    python tests/benchmarks/bench_aiconfigurator.py FILE --python PATH [--held-out]

FILE is as bench_public_points.py takes it; PATH is the Python of an environment with aiconfigurator 0.12, where
aiconfigurator_worker.py runs. Both are told the model's sizes, the GPU, the engine, the TP degree (experts are divided
as all else is), the precision, that of the KV cache, the mean input and output tokens, the load and the most sequences
that the engine runs at once. Beyond that:

- Mélange is told the engine's version, its other arguments and the number of requests, and plays runs that are no
  steady load. Its engines' costs were fitted on public measurements: where FILE holds those, it has seen them. So a
  second row has the costs that a fit starts from or, with --held-out (minutes longer), those of fits on FILE that left
  out the point's source, GPU and model, as fit_engines.py does (of engines with too few points, those that ship).
- aiconfigurator takes the newest measurements of kernels it has for the GPU and the engine, whatever the version, so
  that engines of 2024 are slower than it knows. A closed load is as many requests at once as there are clients, a
  stated rate as many as serve that rate by its own count, a burst all its requests: fewer where they do not fit. It
  estimates a steady load, and its TTFT has no queue before the engine, so of bursts, of short runs and of more clients
  than the engine takes it says little. Batches that run alone are its static mode. Its aggregated serving wants a
  number of prompt tokens an iteration: shown are its default (one prompt), and that of those its sweep tries which
  has the highest throughput by its own count.
- FP8 is the format of the checkpoint that was served where aiconfigurator ships its config; gpt-oss is as published.

Points that it refuses, or has no GPU or model for, are counted. All errors of a group are over the very same points.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import numpy as np
from bench_public_points import NAMES, SATURATED, line
from fit_engines import LEAST_POINTS, PRIORS, by_kind, fitted, folds, log_errors
from public_points import Point, read_points

from melange.catalog.models import Model
from melange.errors import InputError
from melange.perfmodel.engine_costs import EngineCosts, engine_kind

WORKER = Path(__file__).with_name("aiconfigurator_worker.py")
SYSTEMS = {"A100-80GB": "a100_sxm", "H100": "h100_sxm", "H200": "h200_sxm", "B200": "b200_sxm", "B300": "b300_sxm",
           "L4": "l4", "L40S": "l40s", "RTX-PRO-6000": "rtx_pro_6000_server"}  # fmt: skip
BACKENDS = {"vllm": "vllm", "sglang": "sglang", "tensorrt-llm": "trtllm"}
DENSE, MIXTURE, HYBRID = "meta-llama/Meta-Llama-3.1-8B", "mistralai/Mixtral-8x7B-v0.1", "Qwen/Qwen3.5-27B"
# Models whose own config it ships, by precision where there are several checkpoints.
SHIPPED = {
    ("qwen3-32b", "bf16"): "Qwen/Qwen3-32B",
    ("qwen3-32b", "fp8"): "Qwen/Qwen3-32B-FP8",
    ("qwen3-235b-a22b", "bf16"): "Qwen/Qwen3-235B-A22B",
    ("qwen3-235b-a22b", "fp8"): "Qwen/Qwen3-235B-A22B-FP8",
    ("deepseek-v3.2", "fp8"): "deepseek-ai/DeepSeek-V3.2",
    ("qwen3.5-35b-a3b", "fp8"): "Qwen/Qwen3.5-35B-A3B",
    ("llama-3.3-70b", "fp8"): "nvidia/Llama-3.1-70B-Instruct-FP8",
    **{(f"gpt-oss-{size}", kind): f"openai/gpt-oss-{size}"
       for size in ("20b", "120b") for kind in ("mxfp4", "fp8", "nvfp4")},
}  # fmt: skip
AS_PUBLISHED = ("gpt-oss", "deepseek", "qwen3-32b", "qwen3-235b", "llama-3.3-70b")
FORMATS = {"bf16": ("bfloat16", "bfloat16"), "fp16": ("bfloat16", "bfloat16"), "int4": ("int4_wo", "int4_wo"),
           "w8a16": ("int8_wo", "bfloat16"), "int8": ("sq", "bfloat16"), "fp8": ("fp8", "fp8")}  # fmt: skip
LINEAR_VALUE_HEADS = {"qwen3.5-9b": 32}
OURS = ("Mélange", "Mélange, costs not fitted")
HELD_OUT = ("Mélange", "Mélange, held out")
ITS = ("aiconfigurator", "aiconfigurator, best budget")


def job_of(point: Point) -> dict[str, Any]:
    """What aiconfigurator is told of a point; InputError with why it cannot be asked."""
    system = SYSTEMS.get(point.modelled.gpu.name)
    if system is None:
        raise InputError(f"no GPU {point.modelled.gpu.name}")
    most = point.modelled.engine.max_num_seqs
    asked = {"closed": point.concurrency, "batch": point.concurrency, "burst": point.requests, "open": most}[point.load]
    return {
        **_model(point),
        "experts": point.modelled.model.experts > 1,
        "system": system,
        "backend": BACKENDS[point.engine],
        "tp": point.public.tp,
        "load": point.load,
        "input_tokens": max(round(point.input_tokens), 1),
        "output_tokens": max(round(point.output_tokens), 1),
        "sequences": max(round(min(asked, most)), 1),
        "rate_rps": point.rate_rps if point.load == "open" else None,
    }


def _model(point: Point) -> dict[str, Any]:
    model, precision = point.modelled.model, point.public.precision
    shipped = SHIPPED.get((model.name, precision))
    kv = {"kvcache_quant_mode": "fp8"} if point.public.kv_dtype == "fp8" else {}
    if shipped is not None and model.name.startswith(AS_PUBLISHED):
        return {"like": shipped, "changes": {}, "quantisation": kv}
    if precision not in FORMATS:
        raise InputError(f"no format {precision}")
    blocks = precision == "fp8" and model.name.startswith("qwen3.5")
    gemm, moe = ("fp8_block", "fp8_block") if blocks else FORMATS[precision]
    quantisation = {"gemm_quant_mode": gemm, "moe_quant_mode": moe, "kvcache_quant_mode": "bfloat16", **kv}
    if shipped is not None:
        return {"like": shipped, "changes": {}, "quantisation": quantisation}
    return {
        "like": _like(model, point.input_tokens + point.output_tokens),
        "changes": _changes(model),
        "quantisation": quantisation,
    }


def _like(model: Model, longest_tokens: float) -> str:
    windowed = model.window_layers > 0 and longest_tokens > model.window_tokens
    if model.kv_latent_elements or windowed or (model.experts > 1 and not model.name.startswith("mixtral")):
        raise InputError(f"no model {model.name}")
    if model.linear_layers:
        return HYBRID
    return MIXTURE if model.experts > 1 else DENSE


def _changes(model: Model) -> dict[str, Any]:
    changes: dict[str, Any] = {
        "num_hidden_layers": model.layers,
        "hidden_size": model.hidden,
        "num_attention_heads": model.heads,
        "num_key_value_heads": model.kv_heads,
        "head_dim": model.head_size,
        "intermediate_size": model.intermediate,
        "vocab_size": model.vocabulary,
        "max_position_embeddings": model.max_context_tokens,
    }
    if model.experts > 1:
        changes |= {"num_local_experts": model.experts, "num_experts_per_tok": model.experts_per_token}
    if model.linear_layers:
        if model.name not in LINEAR_VALUE_HEADS:
            raise InputError(f"no model {model.name}")
        kinds = ["linear_attention"] * 3 + ["full_attention"]
        heads = LINEAR_VALUE_HEADS[model.name]
        changes |= {"layer_types": kinds * (model.layers // 4), "linear_num_value_heads": heads}
    return changes


def answers_of(python: str, jobs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Each job's answer by the worker."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            done = subprocess.run(
                [python, str(WORKER), folder],
                input="".join(json.dumps(job) + "\n" for job in jobs),
                stdout=subprocess.PIPE,
                text=True,
                encoding="utf-8",
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.ClickException(f"{python} does not run the worker: {error}") from error
    return [json.loads(text) for text in done.stdout.splitlines()]


def its_errors(point: Point, estimate: dict[str, float]) -> tuple[float, ...]:
    """Log errors of an estimate of aiconfigurator, as fit_engines.log_errors has them of Mélange."""
    throughput = np.nan if point.load == "open" else estimate["output_tokens_per_s"] / point.output_tokens_per_s
    ratios = (throughput, estimate["tpot_s"] / point.tpot_s, estimate["ttft_s"] / point.ttft_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(np.log(ratio)) for ratio in ratios)


def compared(
    points: list[Point], python: str, refused: Counter[str]
) -> tuple[list[Point], list[list[tuple[float, ...]]]]:
    """The points that aiconfigurator answers and its log errors on them; those it does not are counted with why."""
    asked, jobs = [], []
    for point in points:
        try:
            jobs.append(job_of(point))
        except InputError as error:
            refused[error.problem] += 1
        else:
            asked.append(point)
    both, errors = [], []
    for point, answer in zip(asked, answers_of(python, jobs), strict=True):
        if "refused" in answer:
            refused[answer["refused"]] += 1
        else:
            both.append(point)
            errors.append([its_errors(point, estimate) for estimate in answer["estimates"]])
    return both, errors


def second_costs(points: list[Point], is_held_out: bool) -> dict[tuple[str, str, str, str], EngineCosts]:
    """Costs of Mélange's second row, by kind of engine and group; those that ship where a group has none."""
    start = EngineCosts(**{name: value for name, (value, _) in PRIORS.items()})
    if not is_held_out:
        return {(_kind(point), *point.group): start for point in points}
    found = {}
    for kind, some in by_kind(points).items():
        for out, others in folds(some) if len(some) >= LEAST_POINTS else ():
            costs = EngineCosts(**fitted(others))
            found |= {(kind, *point.group): costs for point in out}
    return found


def rows(name: str, points: list[Point], logs: dict[str, np.ndarray], chosen: Callable[[Point], bool]) -> None:
    """Print one group's errors: logs (points, figures) by row, NaN in all rows where they are in one."""
    if not any(chosen(point) for point in points):
        return
    print(name)
    for who, own in logs.items():
        print(line(who, points, own, chosen))
    print(line("Mélange over aiconfigurator", points, logs[OURS[0]] - logs[ITS[0]], chosen))


def table(points: list[Point], logs: dict[str, np.ndarray]) -> None:
    """Print every group."""
    kinds: dict[str, Callable[[Point], bool]] = {
        "2025 or later, at a stated load": lambda p: p.is_recent and p.load not in SATURATED,
        "2025 or later, saturated": lambda p: p.is_recent and p.load in SATURATED,
        "2025 or later": lambda p: p.is_recent,
        "older": lambda p: not p.is_recent,
        "all": lambda _: True,
    }
    for name, chosen in kinds.items():
        rows(name, points, logs, chosen)
    for name in ("2025 or later", "older"):
        for tp in sorted({point.public.tp for point in points}):
            rows(f"{name}, TP {tp}", points, logs, lambda p, n=name, tp=tp: kinds[n](p) and p.public.tp == tp)
        for gpu in sorted({point.public.gpu for point in points}):
            rows(f"{name}, {gpu}", points, logs, lambda p, n=name, gpu=gpu: kinds[n](p) and p.public.gpu == gpu)
        for kind in sorted({_kind(point) for point in points}):
            rows(f"{name}, {kind}", points, logs, lambda p, n=name, kind=kind: kinds[n](p) and _kind(p) == kind)


def _kind(point: Point) -> str:
    return engine_kind(point.modelled.gpu, point.engine, point.modelled.engine_version)


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--python", required=True, help="Python of the environment that has aiconfigurator.")
@click.option("--held-out", is_flag=True, help="Costs of the second row: fitted without the point's group.")
def main(file: str, python: str, held_out: bool) -> None:
    """Print both models' errors on the points of FILE that both can answer."""
    points, left = read_points(file)
    refused = Counter(left)
    both, its = compared(points, python, refused)
    print(f"{len(both)} of {len(points)} points answered; not answered:")
    for why, count in refused.most_common():
        print(f"  {count:4d} {why}")
    sys.stdout.flush()
    kinds = {_kind(point) for point in both}
    costs = second_costs([point for point in points if _kind(point) in kinds], held_out)
    ours = [(log_errors(point), log_errors(point, costs.get((_kind(point), *point.group)))) for point in both]
    logs = np.concatenate([np.reshape(part, (len(both), 2, len(NAMES))) for part in (ours, its)], axis=1)
    logs[~np.isfinite(logs).all(axis=1, keepdims=True).repeat(logs.shape[1], axis=1)] = np.nan
    names = (*(HELD_OUT if held_out else OURS), *ITS)
    table(both, {name: logs[:, row] for row, name in enumerate(names)})


if __name__ == "__main__":
    main()
