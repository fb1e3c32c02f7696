"""The performance model beside public measurements of serving: throughput, TPOT and TTFT, by load, age and source.

    python tests/benchmarks/bench_public_points.py [FILE]

FILE is profiles/public/serving-points.csv, which is the default, or one as collected, with the columns source,
url_or_repo_path, date, engine, engine_version, gpu, n_gpus, tp, model, precision, input_tokens, output_tokens,
concurrency, request_rate_rps, output_tok_per_s_total, ttft_ms_mean_or_p50, itl_ms_mean_or_p50, note.
Printed are the clock from datasheets, and that from measured kernels with the engines' costs that ship, which the
product uses. Those were fitted on public measurements: on these,
the error on held-out groups is what profiles/kernels/engines.yaml states; on others, what is printed here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from fit_engines import log_errors
from public_points import Point, read_points

from melange.files.shipped import data_path
from melange.measurements.public import SHIPPED

NAMES = ("throughput", "TPOT", "TTFT")
SATURATED = ("burst",)


def line(name: str, points: list[Point], logs: np.ndarray, chosen: Callable[[Point], bool]) -> str:
    """One row: ratio of predicted to measured, median error and 90th percentile of each figure."""
    mask = np.array([chosen(point) for point in points])
    cells = []
    for column, what in enumerate(NAMES):
        known = logs[mask, column] if mask.any() else np.zeros(0)
        known = known[np.isfinite(known)]
        if len(known):
            off = np.abs(np.expm1(known))
            ratio, middle, far = np.exp(np.median(known)), np.median(off), np.quantile(off, 0.9)
            cells.append(f"{what} n {len(known):4d} x{ratio:5.2f} median {middle:6.1%} p90 {far:7.1%}")
    return f"  {name:34s} " + " | ".join(cells)


def table(title: str, points: list[Point]) -> None:
    """Print one model's errors."""
    logs = np.array([log_errors(point) for point in points])
    print(title)
    print(line("2025 or later, at a stated load", points, logs, lambda p: p.is_recent and p.load not in SATURATED))
    print(line("2025 or later, saturated", points, logs, lambda p: p.is_recent and p.load in SATURATED))
    print(line("older", points, logs, lambda p: not p.is_recent))
    print(line("MI300X", points, logs, lambda p: p.modelled.gpu.name == "MI300X"))
    for source in sorted({point.source for point in points}):
        print(line(source[:34], points, logs, lambda p, source=source: p.source == source))


def main() -> None:
    """Print both tables of a file."""
    points, left = read_points(sys.argv[1] if len(sys.argv) > 1 else data_path(SHIPPED))
    print(f"{len(points)} points; left out: {', '.join(f'{count} {why}' for why, count in left.items()) or 'none'}")
    table("datasheet", [replace(point, modelled=replace(point.modelled, clock="datasheet")) for point in points])
    table("measured kernels", points)


if __name__ == "__main__":
    main()
