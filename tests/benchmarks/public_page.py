"""The part of docs/accuracy.md on public measurements: errors, held-out errors, bands, and what is still wrong."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from fit_engines import log_errors
from public_points import Point, read_points

from melange.files.shipped import shipped_yaml
from melange.perfmodel.estimate import rates_with_band
from melange.slo import Slo

WRONG = 0.6  # a group whose median is off by more in the logarithm, 1.8 times, is listed
LEAST = 2  # points of a listed group
NAMES = ("throughput", "TPOT", "TTFT")

# What is known of groups that are still wrong: engine, GPU and model (each "" for any), and why.
REASONS: tuple[tuple[str, str, str, str], ...] = (
    ("", "H100", "glm-4.5-air", "not known: the same source's 235B model on the same GPUs is predicted within 10%"),
    (
        "",
        "H200",
        "deepseek-v3.2",
        "not known: the first releases with sparse attention, and no later ones in the data",
    ),
    ("", "MI300X", "", "ROCm of 2024: its kernels are a kin's, all slowed by one factor; large models need another"),
    ("vllm", "V100S-32GB", "", "Volta's attention was not measured; its kin is the A100"),
    ("tensorrt-llm", "B200", "gpt-oss", "not known: the vendor's own best run"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicErrors:
    """Points with the log errors (points, 3) of both clocks, and which throughputs lie within their 80% band."""

    points: list[Point]
    datasheet: np.ndarray
    kernels: np.ndarray
    inside: np.ndarray


def public_errors(file: str | Path) -> PublicErrors:
    """Predict every point of a file that can be modelled, with both clocks."""
    points = read_points(file)[0]
    sheets = [replace(point, modelled=replace(point.modelled, clock="datasheet")) for point in points]
    kernels = np.array([log_errors(point) for point in points])
    return PublicErrors(
        points=points,
        datasheet=np.array([log_errors(point) for point in sheets]),
        kernels=kernels,
        inside=np.abs(kernels[:, 0]) <= np.array([_half_band(point) for point in points]),
    )


def _half_band(point: Point) -> float:
    """Logarithm of a band's upper end over the rate, of the highest rate at the point's size."""
    band = rates_with_band(point.modelled, Slo(), point.input_tokens, point.output_tokens)
    return math.log(float(band.high_rps / band.rate_rps)) if band.rate_rps > 0 else math.nan


def render_public(found: PublicErrors) -> list[str]:
    """Lines of the page."""
    loaded: dict[str, Callable[[Point], bool]] = {
        "engines of 2025 on, at a stated load": lambda p: p.is_recent and p.load != "burst",
        "engines of 2025 on, saturated": lambda p: p.is_recent and p.load == "burst",
        "older engines": lambda p: not p.is_recent,
        "MI300X (ROCm of 2024)": lambda p: p.modelled.gpu.name == "MI300X",
    }
    sources = {s: (lambda p, s=s: p.source == s) for s in sorted({point.source for point in found.points})}
    return [
        "## Public measurements",
        "",
        f"Predicted beside measured on {len(found.points)} public points, as median (90th percentile) of the absolute",
        "error; in brackets the median of predicted / measured. The engines' costs were fitted to these points: the",
        "next table says what they are worth on groups (source, GPU, model) that were held out.",
        "",
        *table(
            ("points", "clock", *NAMES),
            [
                (name, clock, *(_cell(logs[:, column][_mask(found, chosen)]) for column in range(3)))
                for name, chosen in loaded.items()
                for clock, logs in (("datasheet", found.datasheet), ("measured kernels", found.kernels))
            ],
        ),
        "",
        *table(
            ("source", *NAMES),
            [
                (name, *(_cell(found.kernels[:, column][_mask(found, chosen)]) for column in range(3)))
                for name, chosen in sources.items()
            ],
        ),
        "",
        "Held out in four folds by group (`profiles/kernels/engines.yaml`, made by `tests/benchmarks/fit_engines.py`):",
        "",
        *table(("kind of engine", "points", *NAMES, "model_error"), list(_held_out())),
        "",
        f"80% bands hold {_percent(found.inside[np.isfinite(found.kernels[:, 0])].mean())} of the throughputs.",
        "",
        "## What is still wrong",
        "",
        "Groups whose throughput is off by more than 1.8 times in the median, and why as far as is known.",
        "",
        *table(("group", "points", "predicted / measured", "why"), list(_wrong(found))),
        "",
    ]


def _mask(found: PublicErrors, chosen: Callable[[Point], bool]) -> np.ndarray:
    return np.array([chosen(point) for point in found.points])


def _cell(logs: np.ndarray) -> str:
    known = logs[np.isfinite(logs)]
    if not len(known):
        return "-"
    off = np.abs(np.expm1(known))
    middle, far = _percent(float(np.median(off))), _percent(float(np.quantile(off, 0.9)))
    return f"{middle} ({far}) [{np.exp(np.median(known)):.2f}] n={len(known)}"


def _held_out() -> Sequence[tuple[str, ...]]:
    rows = []
    for kind, row in shipped_yaml("profiles/kernels/engines.yaml")["engines"].items():
        errors = row["errors"]
        cells = [
            f"{_percent(errors[name]['median'])} ({_percent(errors[name]['p90'])})" if name in errors else "-"
            for name in ("throughput", "tpot", "ttft")
        ]
        rows.append((kind, str(row["points"]), *cells, f"{row['model_error']:.2f}"))
    return rows


def _wrong(found: PublicErrors) -> Sequence[tuple[str, ...]]:
    groups: dict[tuple[str, str, str, int, str], list[float]] = {}
    for point, logs in zip(found.points, found.kernels, strict=True):
        modelled = point.modelled
        key = (point.engine, modelled.gpu.name, modelled.model.name, modelled.tp, modelled.precision)
        if np.isfinite(logs[0]):
            groups.setdefault(key, []).append(float(logs[0]))
    worst = sorted(groups.items(), key=lambda item: -abs(float(np.median(item[1]))))
    return [
        (
            f"{model} ({precision}) on {tp} x {gpu}, {engine}",
            str(len(logs)),
            f"{np.exp(np.median(logs)):.2f}",
            next((why for e, g, m, why in REASONS if e in engine and g in gpu and m in model), "not known"),
        )
        for (engine, gpu, model, tp, precision), logs in worst
        if abs(float(np.median(logs))) > WRONG and len(logs) >= LEAST
    ]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a Markdown table."""
    return [
        "| " + " | ".join(columns) + " |",
        "|" + "---|" * len(columns),
        *("| " + " | ".join(row) + " |" for row in rows),
    ]


def _percent(value: float) -> str:
    return f"{100 * value:.0f}%"
