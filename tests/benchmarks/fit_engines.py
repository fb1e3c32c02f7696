"""Fit what each kind of engine adds to its kernels' times, on public measurements: profiles/kernels/engines.yaml.

    python tests/benchmarks/fit_engines.py serving_points.csv -o profiles/kernels/engines.yaml

Kinds are families and generations of engines, apart from one another, and AMD's GPUs apart from all: what one says of
another's software is nothing. Groups (source, GPU, model) weigh alike, however many points each has. Errors are of
groups held out in four folds.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import click
import numpy as np
import yaml
from public_points import Point, read_points
from public_predictions import predicted
from scipy.optimize import least_squares

from melange.files.text import write_atomic
from melange.perfmodel.engine_costs import EngineCosts, engine_kind
from melange.perfmodel.kernels import kernels_of

# Start, and the deviation of its logarithm that is believed beforehand.
PRIORS = {
    "kernel_time": (1.0, 0.1),
    "host_s": (1e-3, 1.0),
    "host_per_sequence_s": (1e-5, 1.2),
    "host_per_request_s": (2e-3, 0.6),
    "host_per_token_s": (1e-6, 1.0),
    "front_s": (1e-2, 1.0),
}
KIN_SPREAD = 0.5  # of kernel_time, where all kernels are a kin's
PRIOR_WEIGHT = 0.3
WEIGHTS = np.array([1.0, 0.8, 0.4])  # of throughput, TPOT and TTFT
CLIP = 3.0  # of a log error: what is that far off says no more
MOST_POINTS = 200
FOLDS = 4
LEAST_POINTS = 30


@dataclass(frozen=True, slots=True, kw_only=True)
class Errors:
    """Log errors (points, 3) of throughput, TPOT and TTFT, NaN where nothing is compared, and each point's weight."""

    logs: np.ndarray
    weights: np.ndarray


def errors_of(points: list[Point], values: dict[str, float]) -> Errors:
    """How far the model is off with these settings."""
    count: dict[object, int] = defaultdict(int)
    for point in points:
        count[point.group] += 1
    logs = [log_errors(point, EngineCosts(**values)) for point in points]
    return Errors(logs=np.array(logs), weights=np.array([count[point.group] ** -0.5 for point in points]))


def log_errors(point: Point, costs: EngineCosts | None = None) -> tuple[float, float, float]:
    """Of throughput (not where the load itself sets it), TPOT and TTFT."""
    found = predicted(point, costs)
    rate = np.nan if point.load == "open" else found.output_tokens_per_s / point.output_tokens_per_s
    ratios = (rate, found.tpot_s / point.tpot_s, found.ttft_s / point.ttft_s)
    with np.errstate(divide="ignore", invalid="ignore"):
        return tuple(float(np.log(ratio)) for ratio in ratios)  # type: ignore[return-value]


def fitted(points: list[Point]) -> dict[str, float]:
    """Settings that fit these points best, near their priors where the points say little.

    Where no GPU's kernels were measured, but are a kin's, kernels may take much longer than those.
    """
    some = points[:: max(len(points) // MOST_POINTS, 1)]
    starts = np.log([start for start, _ in PRIORS.values()])
    spreads = np.array([spread for _, spread in PRIORS.values()])
    if not any(kernels_of(point.modelled.gpu).measured for point in points):
        spreads[list(PRIORS).index("kernel_time")] = KIN_SPREAD

    def residuals(shifts: np.ndarray) -> np.ndarray:
        logs = starts + shifts - 1.0  # steps are relative: from 1, not from 0
        found = errors_of(some, _values(logs))
        off = np.where(np.isfinite(found.logs), np.clip(found.logs, -CLIP, CLIP), 0.0)
        weighted = off * WEIGHTS * found.weights[:, None]
        return np.concatenate([weighted.ravel(), PRIOR_WEIGHT * (logs - starts) / spreads])

    start = np.ones(len(starts))
    found = least_squares(residuals, start, loss="soft_l1", f_scale=0.2, diff_step=0.05, max_nfev=12)
    return _values(starts + found.x - 1.0)


def _values(logs: np.ndarray) -> dict[str, float]:
    return {name: float(f"{np.exp(log):.3g}") for name, log in zip(PRIORS, logs, strict=True)}


def folds(points: list[Point]) -> Iterator[tuple[list[Point], list[Point]]]:
    """The points of some groups, and those of all others, so that each group is once among the first."""
    groups = sorted({point.group for point in points})
    random.Random(0).shuffle(groups)
    for fold in range(min(FOLDS, len(groups))):
        out = set(groups[fold::FOLDS])
        yield [point for point in points if point.group in out], [point for point in points if point.group not in out]


def held_out(points: list[Point]) -> np.ndarray:
    """Log errors (points, 3) of each group, by settings that were fitted without it and some others."""
    return np.concatenate([errors_of(out, fitted(others)).logs for out, others in folds(points)])


def by_kind(points: list[Point]) -> dict[str, list[Point]]:
    """The points of each kind of engine."""
    kinds: dict[str, list[Point]] = defaultdict(list)
    for point in points:
        kinds[engine_kind(point.modelled.gpu, point.engine, point.modelled.engine_version)].append(point)
    return kinds


def summary(logs: np.ndarray) -> dict[str, Any]:
    """Median errors, and the deviation that 80% of the errors of throughput lie within, were they normal."""
    result: dict[str, Any] = {}
    for column, name in enumerate(("throughput", "tpot", "ttft")):
        known = logs[:, column][np.isfinite(logs[:, column])]
        if len(known):
            off = np.abs(np.expm1(known))
            result[name] = {
                "points": len(known),
                "median": _short(np.median(off)),
                "p90": _short(np.quantile(off, 0.9)),
            }
    rates = logs[:, 0][np.isfinite(logs[:, 0])]
    return {"model_error": _short(np.quantile(np.abs(rates), 0.8) / 1.2816), "errors": result}


def _short(value: float) -> float:
    return float(f"{value:.3g}")


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("-o", "--output", required=True, help="File to write.")
@click.option("--kind", "only", multiple=True, help="Only these kinds.")
def main(file: str, output: str, only: tuple[str, ...]) -> None:
    """Fit every kind of engine in FILE that has enough points."""
    found = {}
    for kind, points in sorted(by_kind(read_points(file)[0]).items()):
        if len(points) < LEAST_POINTS or (only and kind not in only):
            continue
        click.echo(f"{kind}: {len(points)} points", err=True)
        sources = ", ".join(sorted({point.source for point in points}))
        newest = max(point.date for point in points)
        found[kind] = {
            **fitted(points),
            **summary(held_out(points)),
            "measured_until": newest,
            "points": len(points),
            "sources": sources,
        }
    head = (
        "# What each kind of engine adds to its kernels' times, and how far the model is off on held-out groups of\n"
        "# public measurements: fitted by tests/benchmarks/fit_engines.py, which says how.\n"
    )
    content = yaml.safe_dump({"version": 1, "engines": found}, sort_keys=False, width=120)
    write_atomic(output, head + content)


if __name__ == "__main__":
    main()
