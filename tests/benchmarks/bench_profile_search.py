"""The capacity search against an exhaustive ladder, on simulated engines with known capacities.

The ladder runs 10 geometric rates from 0.1 to 2 times the truth, each for as long as our longest load point of the
cell. Printed: how often either interval holds the truth, how often ours is wider than one rung of the ladder, and the
share of the ladder's load time that the search took.

    python tests/benchmarks/bench_profile_search.py [cells]
"""

from __future__ import annotations

import random
import sys
import time

import numba
import numpy as np

from melange.measurements import ConfigKey, Measurement
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject, judge, summarise
from melange.profiler.search import Capacity, SearchSettings, next_step
from melange.slo import Slo
from melange.testing.simulated_engine import SimulatedEngine, serve

RUNGS = 10
RUNG = (2 / 0.1) ** (1 / (RUNGS - 1))
REQUESTS = 1000
TRUTH_REQUESTS = 100_000
LADDER_EVERY = 10  # cells; the ladder itself is slow to simulate
SUBJECT = Subject(key=ConfigKey("m", "g", 1, "bf16", "vllm"))
FAST_SERVE = numba.njit(serve)


def cell(number: int) -> tuple[SimulatedEngine, Size, Slo]:
    """A seeded engine, size and SLO: TPOT of both definitions, TTFT, or joint attainment, tight to loose."""
    draw = random.Random(number)
    engine = SimulatedEngine(
        step_s=draw.choice([0.002, 0.008, 0.012, 0.03]),
        step_per_sequence_s=draw.choice([1e-4, 3e-4, 1e-3]),
        prefill_s_per_token=draw.choice([1e-5, 5e-5, 2e-4]),
        max_sequences=draw.choice([8, 32, 128, 256]),
    )
    size = Size(draw.choice([32, 128, 512, 2000]), draw.choice([16, 64, 256, 1000]))
    kind, looseness = draw.choice(["tpot", "tpot", "e2e", "ttft", "attainment"]), draw.choice([1.3, 2, 4])
    step = engine.step_s + engine.step_per_sequence_s
    prefill = engine.prefill_s_per_token * size.input_tokens
    if kind == "tpot":
        return engine, size, Slo(tpot_s=looseness * step)
    if kind == "e2e":
        per_token = looseness * engine.lone_e2e_s(size) / size.output_tokens
        return engine, size, Slo(tpot_s=per_token, tpot_definition="e2e_per_token")
    if kind == "ttft":
        return engine, size, Slo(ttft_s=prefill * looseness + 2 * engine.step_s)
    return engine, size, Slo(tpot_s=looseness * step, ttft_s=1.0 + 3 * prefill, attainment=0.9)


def measured(engine: SimulatedEngine, load: Load, slo: Slo, *, early: bool) -> Measurement:
    run = engine.run(load, lambda run: early and judge(summarise(run, SUBJECT), slo) != "undecided")
    return summarise(run, SUBJECT)


def search(engine: SimulatedEngine, size: Size, settings: SearchSettings) -> tuple[Capacity, float, float]:
    """The capacity found, the seconds it took, and the longest load point."""
    points: list[Measurement] = []
    longest = 0.0
    while True:
        step = next_step(size, points, settings)
        if isinstance(step, Capacity):
            return step, sum(p.duration_s or 0.0 for p in points), longest
        points.append(measured(engine, step, settings.slo, early=True))
        longest = max(longest, step.max_s if step.loop == "open" else 0.0)


def ladder(
    engine: SimulatedEngine, size: Size, slo: Slo, truth: float, seconds: float, seed: int
) -> tuple[float, float]:
    """The interval of the exhaustive ladder: the highest rung that passes, and the next one."""
    rates = [0.1 * truth * RUNG**n for n in range(RUNGS)]
    low = 0.0
    for number, rate in enumerate(rates):
        load = Load(size=size, rate_rps=rate, max_s=seconds, min_requests=16, seed=1000 * seed + number)
        if judge(measured(engine, load, slo, early=False), slo) == "pass":
            low = rate
    return low, low * RUNG


def main(cells: int) -> None:
    began = time.perf_counter()
    holds = ladder_holds = wide = counted = 0
    near = ladders = 0
    shares = []
    for number in range(cells):
        engine, size, slo = cell(number)
        truth = engine.true_capacity_rps(size, slo, requests=TRUTH_REQUESTS, serve_with=FAST_SERVE)
        if truth == 0:
            continue
        counted += 1
        settings = SearchSettings(
            slo=slo,
            resolution=RUNG,
            point_s=2 * REQUESTS / truth + 60 * engine.lone_e2e_s(size),
            requests=REQUESTS,
            seed=number,
        )
        found, seconds, longest = search(engine, size, settings)
        ours = found.high_rps is not None and found.low_rps <= truth <= found.high_rps
        holds += ours
        near += found.high_rps is not None and found.low_rps <= 1.03 * truth and truth <= 1.03 * found.high_rps
        wide += found.width > RUNG * (1 + 1e-9)
        if number % LADDER_EVERY == 0:
            low, high = ladder(engine, size, slo, truth, longest, number)
            ladder_holds += low <= truth <= high
            ladders += 1
        shares.append(seconds / (RUNGS * longest))
    print(f"cells: {counted} (one rung is a factor {RUNG:.3f}; up to {REQUESTS} requests a load point)")
    print(f"interval holds the truth: {100 * holds / counted:.1f}%")
    print(f"interval, with 3% of slack, holds the truth: {100 * near / counted:.1f}%")
    print(f"interval of the ladder itself, at the same seconds a point: {ladder_holds} of {ladders}")
    print(f"interval wider than one rung: {100 * wide / counted:.1f}%")
    median, high = np.quantile(shares, (0.5, 0.95))
    print(f"load time over the ladder's: mean {np.mean(shares):.3f}, median {median:.3f}, p95 {high:.3f}")
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 200)
