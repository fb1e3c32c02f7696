"""import_results: load points that other tools measured, from their JSON files.

Read are ``vllm bench serve --save-result``, GuideLLM's benchmarks file, and AIPerf's ``profile_export_aiperf.json``.
What a tool leaves out stays absent: no percentile, bound or queue trend is invented.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from melange.capacity.bounds import mean_bounds
from melange.capacity.verdict import FALLS_BEHIND
from melange.errors import InputError
from melange.files.text import read_json_object
from melange.measurements.file import Header, append_measurements
from melange.measurements.measurement import LatencyStats, Measurement
from melange.serving.config import ConfigKey
from melange.slo import tpot_s

Json = Mapping[str, Any]


def import_results(
    files: Sequence[str | os.PathLike[str]],
    key: ConfigKey,
    *,
    engine_version: str | None = None,
    output: str | os.PathLike[str],
    warn: Callable[[str], None] | None = None,
) -> tuple[Measurement, ...]:
    """Read every file, then append all load points to ``output``; nothing is written where one cannot be read.

    ``warn`` takes what was odd about the end of ``output``.
    """
    points: list[Measurement] = []
    for file in files:
        points += read_result(file, key, engine_version=engine_version)
    names = [Path(file).name for file in files]
    header = Header(**key._asdict(), engine_version=engine_version, facts={"source": "measured", "imported": names})
    append_measurements(output, header, points, warn=warn)
    return tuple(points)


def read_result(
    file: str | os.PathLike[str], key: ConfigKey, *, engine_version: str | None = None
) -> list[Measurement]:
    """Load points of one result file, its format told by its content; InputError names what is missing."""
    content = _read(file)
    reader = _reader(content)
    if reader is None:
        raise InputError(
            "not a result of vllm bench serve, GuideLLM or AIPerf", file=file, fix="give the JSON that the tool wrote"
        )
    name, read = reader
    try:
        with np.errstate(over="raise", invalid="raise", divide="raise"):
            points = read(content, key)
    except InputError as error:
        raise error.located(file) from error
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError) as error:
        # Another tool's file may have any shape; and what numbers say that are no latencies, numpy's checks find.
        what = f"lacks {error}" if isinstance(error, KeyError) else f"is not as expected: {error}"
        raise InputError(f"result of {name} {what}", file=file, fix="export it again with a current version") from error
    return [replace(point, engine_version=engine_version, extra={"tool": name}) for point in points]


def _read(file: str | os.PathLike[str]) -> Json:
    return read_json_object(file, fix="give the JSON that the tool wrote")


def _reader(content: Json) -> tuple[str, Callable[[Json, ConfigKey], list[Measurement]]] | None:
    if "benchmarks" in content:
        return "GuideLLM", _guidellm
    if "request_throughput" in content and isinstance(content["request_throughput"], dict):
        return "AIPerf", _aiperf
    if "request_throughput" in content and "mean_ttft_ms" in content:
        return "vllm bench serve", _vllm_bench
    return None


def _point(key: ConfigKey, **values: Any) -> Measurement:
    return Measurement(**key._asdict(), source="measured", **values)


def _number(value: Any) -> float | None:
    """A finite positive number, or None for ``inf``, null and the like."""
    if isinstance(value, bool) or value is None:
        return None
    number = float(value)
    return number if math.isfinite(number) and number > 0 else None


def _keeping_up(offered: float | None, achieved: float) -> bool:
    return offered is None or achieved >= FALLS_BEHIND * offered


def _vllm_bench(content: Json, key: ConfigKey) -> list[Measurement]:
    completed = int(content["completed"])
    if completed < 1:
        raise InputError("no request completed", fix="import runs that succeeded")
    offered = _number(content.get("request_rate"))
    achieved = float(content["request_throughput"])
    detail = _vllm_detail(content)
    stats = detail or {f"{name}_s": _flat_stats(content, label) for name, label in _VLLM_NAMES.items()}
    concurrency = _number(content.get("max_concurrency"))
    return [
        _point(
            key,
            input_tokens=float(content["total_input_tokens"]) / completed,
            output_tokens=float(content["total_output_tokens"]) / completed,
            loop="open" if offered is not None else "closed",
            offered_rps=offered,
            achieved_rps=achieved,
            concurrency=concurrency,
            samples=completed,
            failures=int(content.get("failed", 0)),
            duration_s=float(content["duration"]),
            saturated=not _keeping_up(offered, achieved),
            date=_date(content.get("date")),
            **stats,
        )
    ]


_VLLM_NAMES = {"ttft": "ttft", "tpot_decode": "tpot", "e2e": "e2el"}


def _flat_stats(content: Json, label: str) -> LatencyStats | None:
    mean = content.get(f"mean_{label}_ms")
    if mean is None:
        return None
    shares = {f"p{q}": content.get(f"p{q}_{label}_ms") for q in (50, 90, 95, 99)}
    shares["p50"] = shares["p50"] if shares["p50"] is not None else content.get(f"median_{label}_ms")
    return LatencyStats(
        mean=float(mean) / 1000, **{name: float(v) / 1000 for name, v in shares.items() if v is not None}
    )


def _vllm_detail(content: Json) -> dict[str, Any] | None:
    """Per-request samples of ``--save-detailed``, successes only; None where it was not asked for."""
    if not all(isinstance(content.get(name), list) for name in ("ttfts", "itls", "output_lens")):
        return None
    errors = content.get("errors") or [""] * len(content["ttfts"])
    starts = content.get("start_times") or range(len(errors))
    rows = sorted(zip(starts, content["ttfts"], content["itls"], content["output_lens"], errors, strict=True))
    good = [(ttft, ttft + sum(gaps), tokens) for _, ttft, gaps, tokens, error in rows if not error]
    ttft, e2e, tokens = (np.array(column, float) for column in zip(*good, strict=True))
    series = {
        "ttft_s": ttft,
        "e2e_s": e2e,
        "tpot_decode_s": tpot_s("decode", e2e_s=e2e, ttft_s=ttft, output_tokens=tokens),
        "tpot_e2e_per_token_s": tpot_s("e2e_per_token", e2e_s=e2e, ttft_s=ttft, output_tokens=tokens),
    }
    return {
        **{name: _sample_stats(values) for name, values in series.items()},
        "sample_ttft_s": tuple(np.round(ttft, 6).tolist()),
        "sample_e2e_s": tuple(np.round(e2e, 6).tolist()),
        "sample_output_tokens": tuple(int(t) for t in tokens),
    }


def _sample_stats(values: Any) -> LatencyStats | None:
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    upper = mean_bounds(known).high
    quantiles = {f"p{q}": float(np.quantile(known, q / 100)) for q in (50, 90, 95, 99)}
    return LatencyStats(mean=float(known.mean()), mean_upper=upper if math.isfinite(upper) else None, **quantiles)


def _date(value: Any) -> str | None:
    """``20260131-120000`` -> ``2026-01-31``."""
    digits = str(value)[:8] if value is not None else ""
    return f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if digits.isdigit() and len(digits) == 8 else None


def _guidellm(content: Json, key: ConfigKey) -> list[Measurement]:
    points = [_guidellm_point(benchmark, key) for benchmark in content["benchmarks"]]
    if not points:
        raise InputError("no benchmarks in it", fix="import runs that succeeded")
    return points


def _guidellm_point(benchmark: Json, key: ConfigKey) -> Measurement:
    metrics = benchmark["metrics"]
    config = benchmark.get("config") or benchmark.get("args") or {}
    strategy = config.get("strategy") or {}
    kind = str(strategy.get("type_", ""))
    rate = _number(strategy.get("rate")) if kind in ("constant", "poisson", "async") else None
    streams = _number(strategy.get("streams")) if kind in ("concurrent", "synchronous") else None
    achieved = float(metrics["requests_per_second"]["successful"]["mean"])
    totals = metrics.get("request_totals") or {}
    return _point(
        key,
        input_tokens=float(metrics["prompt_token_count"]["successful"]["mean"]),
        output_tokens=float(metrics["output_token_count"]["successful"]["mean"]),
        loop="closed" if rate is None else "open",
        offered_rps=rate,
        achieved_rps=achieved,
        concurrency=streams if streams is not None else 1.0 if kind == "synchronous" else _in_flight(metrics),
        samples=int(totals.get("successful", 0)),
        failures=int(totals.get("errored", 0)),
        duration_s=_number(benchmark.get("duration")),
        saturated=not _keeping_up(rate, achieved),
        ttft_s=_nested_stats(metrics, "time_to_first_token_ms", 1e-3),
        tpot_decode_s=_nested_stats(metrics, "inter_token_latency_ms", 1e-3),
        tpot_e2e_per_token_s=_nested_stats(metrics, "time_per_output_token_ms", 1e-3),
        e2e_s=_nested_stats(metrics, "request_latency", 1.0),
    )


def _in_flight(metrics: Json) -> float | None:
    found = (metrics.get("request_concurrency") or {}).get("successful") or {}
    return _number(found.get("mean"))


def _nested_stats(metrics: Json, name: str, seconds: float) -> LatencyStats | None:
    found = (metrics.get(name) or {}).get("successful")
    if not found:
        return None
    shares = found.get("percentiles") or {}
    known = {p: float(shares[p]) * seconds for p in ("p50", "p90", "p95", "p99") if shares.get(p) is not None}
    return LatencyStats(mean=float(found["mean"]) * seconds, **known)


_UNIT_SECONDS = {"s": 1.0, "sec": 1.0, "seconds": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}


def _aiperf(content: Json, key: ConfigKey) -> list[Measurement]:
    achieved = float(content["request_throughput"]["avg"])
    load = _aiperf_load(content.get("input_config") or {})
    rate = _number(load.get("request_rate"))
    concurrency = _number(load.get("concurrency"))
    failures = (content.get("error_request_count") or {}).get("avg", 0)
    return [
        _point(
            key,
            input_tokens=float(content["input_sequence_length"]["avg"]),
            output_tokens=float(content["output_sequence_length"]["avg"]),
            loop="closed" if rate is None else "open",
            offered_rps=rate,
            achieved_rps=achieved,
            concurrency=concurrency,
            samples=int(content["request_count"]["avg"]),
            failures=int(failures),
            duration_s=_number((content.get("benchmark_duration") or {}).get("avg")),
            saturated=not _keeping_up(rate, achieved),
            ttft_s=_unit_stats(content, "time_to_first_token"),
            tpot_decode_s=_unit_stats(content, "inter_token_latency"),
            e2e_s=_unit_stats(content, "request_latency"),
        )
    ]


def _aiperf_load(config: Json) -> dict[str, Any]:
    """Rate and concurrency, wherever this version of AIPerf keeps them."""
    found: dict[str, Any] = {}
    for value in config.values():
        if isinstance(value, dict):
            found |= {name: value[name] for name in ("request_rate", "concurrency") if value.get(name) is not None}
    return found | {name: config[name] for name in ("request_rate", "concurrency") if config.get(name) is not None}


def _unit_stats(content: Json, name: str) -> LatencyStats | None:
    found = content.get(name)
    if not found or found.get("avg") is None:
        return None
    unit = str(found.get("unit", "ms"))
    if unit not in _UNIT_SECONDS:
        raise InputError(f"{name} is in {unit!r}", fix=f"known units are {', '.join(_UNIT_SECONDS)}")
    scale = _UNIT_SECONDS[unit]
    known = {p: float(found[p]) * scale for p in ("p50", "p90", "p95", "p99") if found.get(p) is not None}
    return LatencyStats(mean=float(found["avg"]) * scale, **known)
