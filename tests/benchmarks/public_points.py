"""Public measurements of serving as benchmarks take them: each with its engine modelled, and its costs.

A file is one of melange.measurements.public, such as profiles/public/serving-points.csv, or one as collected, whose
columns bench_public_points.py names: there names are the sources' own, and what a load was stands in notes. Rows that
cannot be modelled are counted with the reason. distil_points.py makes the one from the other.
"""

from __future__ import annotations

import csv
import math
import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from melange.catalog.hardware import load_catalog
from melange.errors import InputError
from melange.measurements.public import COLUMNS, PublicLoad, PublicPoint, read_public_points
from melange.perfmodel.hardware import ModelledEngine, missing_memory_gib
from melange.perfmodel.published import engine_of
from melange.serving.engine_args import option_value

GPUS: Mapping[str, str] = {
    "AMD MI300X GPU": "MI300X",
    "Nvidia A100 GPU": "A100-40GB",
    "Nvidia H100 GPU": "H100",
    "NVIDIA H100 80GB HBM3": "H100",
    "H100 NVL": "H100-NVL",
    "A100": "A100-80GB",
    "Tesla V100S-PCIE-32GB": "V100S-32GB",
    "NVIDIA A100-SXM4-40GB": "A100-40GB",
    "NVIDIA A100-SXM4-80GB": "A100-80GB",
    "NVIDIA A800-SXM4-80GB": "A800-80GB",
    "NVIDIA GeForce RTX 3090": "RTX3090",
    "NVIDIA GeForce RTX 4090": "RTX4090",
    "NVIDIA GeForce RTX 4090 D": "RTX4090D",
    "NVIDIA GeForce RTX 5090": "RTX5090",
    "NVIDIA RTX 6000 Ada Generation": "RTX6000-Ada",
    "NVIDIA RTX A6000": "A6000",
}
MODELS: Mapping[str, str] = {
    "llama-3.1 8B": "llama-3.1-8b",
    "llama-3 70B": "llama-3-70b",
    "mixtral 8x7B": "mixtral-8x7b",
    "DeepSeek-R1-0528": "deepseek-r1",
}
PRECISIONS: tuple[tuple[str, str], ...] = (
    ("W4A16", "int4"), ("AWQ", "int4"), ("INT4", "int4"), ("W8A16", "w8a16"), ("W8A8", "int8"), ("MXFP4", "mxfp4"),
    ("FP4", "nvfp4"), ("FP8", "fp8"), ("BF16", "bf16"), ("FP16", "fp16"),
)  # fmt: skip
ENGINES: Mapping[str, str] = {"vLLM": "vllm", "SGLang": "sglang", "TensorRT-LLM": "tensorrt-llm"}
# AccelMark's open runs are of a fixed number of requests, whatever the rate: so many that at the lowest one the elapsed
# time is that of their arrival and of the last one (rate x elapsed of suite A at 5 req/s is 340, of B at 2 req/s 220).
SUITE_REQUESTS: Mapping[str, int] = {"suite_A": 300, "suite_B": 200, "suite_C": 300, "suite_D": 100, "suite_G": 300}
SHAPING = (
    "--max-num-seqs", "--max-num-batched-tokens", "--block-size", "--max-model-len", "--gpu-memory-utilization",
    "--kv-cache-dtype",
)  # fmt: skip
NO_CHUNKS = "--no-enable-chunked-prefill"
IMPLIED = 0.5  # of a closed loop's concurrency, by Little's law from throughput and latencies
_EQUALS = {"--max-running-requests": "--max-num-seqs", "--max_batch_size": "--max-num-seqs",
           "--max_num_tokens": "--max-num-batched-tokens", "--chunked-prefill-size": "--max-num-batched-tokens",
           "--mem-fraction-static": "--gpu-memory-utilization"}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One row: who measured it, on what, under which load, and what came out; NaN where not stated.

    ``requests`` is how many requests came at once in a burst. ``tpot_s`` is decode TPOT (or ITL), NaN where an engine
    that gives out several tokens at a time made it something else.
    """

    source: str
    date: str
    engine: str
    engine_version: str
    public: PublicPoint
    modelled: ModelledEngine
    load: PublicLoad
    input_tokens: float
    output_tokens: float
    concurrency: float
    rate_rps: float
    requests: int
    output_tokens_per_s: float
    ttft_s: float
    tpot_s: float

    @property
    def group(self) -> tuple[str, str, str]:
        """What is held out together."""
        return self.source, self.modelled.gpu.name, self.modelled.model.name

    @property
    def is_median(self) -> bool:
        """Whether latencies are medians rather than means."""
        return self.public.is_median

    @property
    def is_recent(self) -> bool:
        """Whether the engine is of 2025 or later: vLLM from 0.7, and whatever was measured since then."""
        version = [int(part) for part in re.findall(r"\d+", self.engine_version)[:2]]
        if self.engine == "vllm" and version:
            return version >= [0, 7]
        return self.date[:4] >= "2025" if self.date else True


def read_points(file: str | Path) -> tuple[list[Point], dict[str, int]]:
    """The rows that can be modelled, and of the others how many for which reason."""
    with open(file, encoding="utf-8", newline="") as lines:
        rows = csv.DictReader(lines)
        if set(COLUMNS) <= set(rows.fieldnames or ()):
            return [modelled_point(point) for point in read_public_points(file)], {}
        points: list[Point] = []
        left: dict[str, int] = {}
        for row in rows:
            try:
                points.append(point_of(row))
            except InputError as error:
                left[error.problem] = left.get(error.problem, 0) + 1
    return points, left


def point_of(row: Mapping[str, str]) -> Point:
    """One row as collected; InputError with why it cannot be modelled."""
    point = modelled_point(public_point_of(row))
    if missing_memory_gib(point.modelled):
        raise InputError("it does not fit by the model's own count")
    return point


def modelled_point(public: PublicPoint) -> Point:
    """A public measurement with its engine modelled."""
    modelled = engine_of(public)

    def known(value: float | None) -> float:
        return math.nan if value is None else value

    return Point(
        source=public.source,
        date=public.date,
        engine=public.engine,
        engine_version=public.engine_version or "",
        public=public,
        modelled=modelled,
        load=public.load,
        input_tokens=public.input_tokens,
        output_tokens=public.output_tokens,
        concurrency=known(public.concurrency),
        rate_rps=known(public.rate_rps),
        requests=public.requests,
        output_tokens_per_s=known(public.output_tokens_per_s),
        ttft_s=known(public.ttft_s),
        tpot_s=known(public.tpot_s),
    )


def public_point_of(row: Mapping[str, str]) -> PublicPoint:
    """The facts of one row as collected; InputError with why it cannot be modelled."""
    note = row["note"]
    if "speculative" in note.lower() or "mtp" in note.lower():
        raise InputError("speculative decoding")
    if "different nodes" in note:
        raise InputError("pods on several machines")
    engine = ENGINES.get(row["engine"])
    if engine is None:
        raise InputError(f"engine {row['engine']}")
    args = _args(note)
    load, requests = _load(row, note)
    tpot, ttft = _number(row, "itl_ms_mean_or_p50") / 1e3, _number(row, "ttft_ms_mean_or_p50") / 1e3
    throughput = _number(row, "output_tok_per_s_total")
    concurrency = _number(row, "concurrency")
    if load == "closed" and throughput * (tpot + ttft / _number(row, "output_tokens")) < IMPLIED * concurrency:
        tpot = math.nan  # chunks of several tokens, as reasoning parsers give them out
    if load == "batch" and math.isnan(throughput):
        found = re.search(r"latency ([\d.]+) ms for the batch", note)
        throughput = (
            float(row["concurrency"]) * float(row["output_tokens"]) / (float(found[1]) / 1e3) if found else math.nan
        )
    rate = _number(row, "request_rate_rps")
    return PublicPoint(
        source=row["source"],
        url=_url(row["url_or_repo_path"]),
        date=row["date"],
        engine=engine,
        engine_version=row["engine_version"] or None,
        **_engine(row, args),
        kv_dtype="fp8" if row["source"] == "TensorRT-LLM perf-overview" else "auto",
        engine_args=tuple(_shaping(args)),
        load=load,
        requests=requests,
        input_tokens=_number(row, "input_tokens"),
        output_tokens=_number(row, "output_tokens"),
        concurrency=_stated(concurrency),
        rate_rps=_stated(rate),
        output_tokens_per_s=_stated(throughput),
        ttft_s=_stated(ttft),
        tpot_s=_stated(tpot if tpot > 1e-3 else math.nan),
        is_median="p50" in note,
    )


def _stated(value: float) -> float | None:
    """None where it is not; of what was converted, the digits that it had."""
    return float(f"{value:.12g}") if math.isfinite(value) else None


def _url(place: str) -> str:
    """``github.com/owner/name@commit:path`` and the like as an address."""
    found = re.fullmatch(r"(github\.com/[^@:]+)@(\w+):(.+)", place)
    if found:
        return f"https://{found[1]}/blob/{found[2]}/{found[3]}"
    place = place.split()[0]
    return place if "://" in place else f"https://{place}"


def _shaping(args: list[str]) -> Iterator[str]:
    """Of an engine's arguments those that shape its iterations."""
    for name in SHAPING:
        value = option_value(args, name)
        if value is not None:
            yield f"{name}={value}"
    if NO_CHUNKS in args:
        yield NO_CHUNKS


def _number(row: Mapping[str, str], key: str) -> float:
    return float(row[key]) if row[key] else math.nan


def _args(note: str) -> list[str]:
    command = note.partition("cmd:")[2]
    try:
        found = shlex.split(command)
    except ValueError:
        found = command.split()
    result: list[str] = []
    for arg in found:
        name, equals, value = arg.partition("=")
        result.append(_EQUALS.get(name, name) + equals + value)
    return result


def _engine(row: Mapping[str, str], args: list[str]) -> dict[str, Any]:
    """GPU, model, TP degree and precision by the catalog's names."""
    catalog = load_catalog()
    gpu = catalog.gpu(_gpu_name(row["gpu"]))
    model = catalog.model(MODELS.get(row["model"], row["model"]))
    stated = row["precision"].upper()
    precision = next((kind for sign, kind in PRECISIONS if sign in stated), model.precision)
    if precision == "bf16" and "bf16" not in gpu.tflops:
        precision = "fp16"
    gpus = float(row["n_gpus"] or 1)
    tp_text = row["tp"] or option_value(args, "--tensor-parallel-size", "-tp", "--tp-size", "--tp", "--tp_size") or ""
    dp = option_value(args, "--data-parallel-size", "-dp", "--dp-size", "--dp")
    if "--enable-dp-attention" in args or tp_text.startswith("DEP"):
        raise InputError("attention data-parallel, experts spread")
    if dp is not None and int(dp) > 1:
        raise InputError("data parallel within an engine")
    # Where no data parallelism is asked for, further GPUs of the machine stay idle.
    tp = int(float(tp_text)) if tp_text else int(min(gpus, 8.0))
    return {"gpu": gpu.name, "model": model.name, "tp": tp, "precision": precision}


def _gpu_name(name: str) -> str:
    if name.startswith("A100 (README"):
        return "A100-80GB"
    return GPUS.get(name, name.removeprefix("NVIDIA "))


def _load(row: Mapping[str, str], note: str) -> tuple[PublicLoad, int]:
    rate = _number(row, "request_rate_rps")
    concurrency = _number(row, "concurrency")
    count = re.search(r"(\d+) (?:ShareGPT )?(?:requests|prompts)", note)
    requests = int(count[1]) if count else 1000
    if "static batch" in note:
        return "batch", int(concurrency)
    if math.isinf(rate) or (math.isnan(rate) and math.isnan(concurrency)):
        return "burst", min(requests, int(concurrency)) if "all prompts sent at once" in note else requests
    if math.isnan(rate) or rate >= 500:
        return ("closed", requests) if not math.isnan(concurrency) else ("burst", requests)
    suite = re.match(r"(suite_\w) online; finite run", note)
    return "open", SUITE_REQUESTS.get(suite[1], requests) if suite else requests


def each(points: list[Point], **values: object) -> Iterator[Point]:
    """The points whose attributes are these."""
    return (point for point in points if all(getattr(point, name) == value for name, value in values.items()))
