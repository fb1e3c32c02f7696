"""The capacity search against an exhaustive ladder, on simulated engines with known capacities.

The search runs with the product's defaults, only that slow cells get the time that their requests take unless seconds
are given. The ladder runs 10 geometric rates from 0.1 to 2 times the truth, each for as long as the search allows the
load point nearest to the truth. Printed: how often either interval holds the truth, how often ours is wider than one
rung of the ladder, and the share of the ladder's load time that the search took, closed loops and undecided points
included.

    python tests/benchmarks/bench_profile_search.py [cells] [requests a load point] [most seconds a load point]
"""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import numba
import numpy as np

from melange.capacity.verdict import judge
from melange.measurements.measurement import Measurement
from melange.profiler.load import Load, Size
from melange.profiler.loadpoint import Subject, summarise
from melange.profiler.search import REQUESTS, RESOLUTION, Capacity, SearchSettings, next_step
from melange.serving.config import ConfigKey
from melange.slo import Slo
from melange.testing import simulated_engine
from melange.testing.simulated_engine import SimulatedEngine, serve

RUNGS = 10
RUNG = (2 / 0.1) ** (1 / (RUNGS - 1))
TRUTH_REQUESTS = 100_000
LADDER_EVERY = 10  # cells; the ladder itself is slow to simulate
SUBJECT = Subject(key=ConfigKey("m", "g", 1, "bf16", "vllm"))
FAST_SERVE = numba.njit(serve)
PROGRESS_EVERY = 20  # cells


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


def measured(engine: SimulatedEngine, load: Load, stop: Callable[[Measurement], bool]) -> Measurement:
    return summarise(engine.run(load, lambda run: stop(summarise(run, SUBJECT))), SUBJECT)


def search(
    engine: SimulatedEngine, size: Size, settings: SearchSettings
) -> tuple[Capacity, float, list[tuple[float, float]]]:
    """The capacity found, the seconds it took, and the rates and longest seconds of its Poisson loads."""
    points: list[Measurement] = []
    allowed: list[tuple[float, float]] = []
    while True:
        step = next_step(size, points, settings)
        if isinstance(step, Capacity):
            return step, sum(p.duration_s or 0.0 for p in points), allowed
        points.append(measured(engine, step, lambda point: judge(point, settings.slo) != "undecided"))
        if step.rate_rps is not None:
            allowed.append((step.rate_rps, step.max_s))


def ladder(
    engine: SimulatedEngine, size: Size, slo: Slo, truth: float, seconds: float, seed: int
) -> tuple[float, float]:
    """The interval of the exhaustive ladder: the highest rung that passes, and the next one."""
    rates = [0.1 * truth * RUNG**n for n in range(RUNGS)]
    low = 0.0
    for number, rate in enumerate(rates):
        load = Load(size=size, rate_rps=rate, max_s=seconds, min_requests=16, seed=1000 * seed + number)
        if judge(measured(engine, load, lambda point: False), slo) == "pass":
            low = rate
    return low, low * RUNG


@dataclass(slots=True)
class Tally:
    """What the cells so far came to; the shares are of the ladder's load time."""

    cells: int = 0
    holds: int = 0
    near: int = 0
    wide: int = 0
    too_high: int = 0
    ladders: int = 0
    ladder_holds: int = 0
    shares: list[float] = field(default_factory=list)

    def add(self, found: Capacity, truth: float, share: float) -> None:
        high = math.inf if found.high_rps is None else found.high_rps
        known = found.high_rps is not None
        self.cells += 1
        self.holds += known and found.low_rps <= truth <= high
        self.near += known and found.low_rps <= 1.03 * truth and truth <= 1.03 * high
        self.too_high += found.low_rps > truth
        self.wide += found.width > RUNG * (1 + 1e-9)
        self.shares.append(share)

    def describe(self) -> str:
        median, high = np.quantile(self.shares, (0.5, 0.95))
        return (
            f"{self.cells} cells: interval holds the truth {100 * self.holds / self.cells:.1f}% "
            f"(with 3% of slack {100 * self.near / self.cells:.1f}%, wholly above it {self.too_high}), "
            f"wider than a rung {100 * self.wide / self.cells:.1f}%, load time over the ladder's: "
            f"mean {np.mean(self.shares):.3f}, median {median:.3f}, p95 {high:.3f}"
        )


def main(cells: int, requests: int, longest_s: float) -> None:
    began = time.perf_counter()
    simulated_engine.serve = FAST_SERVE  # the same loops, compiled
    tally = Tally()
    for number in range(cells):
        engine, size, slo = cell(number)
        truth = engine.true_capacity_rps(size, slo, requests=TRUTH_REQUESTS, serve_with=FAST_SERVE)
        if truth == 0:
            continue
        enough_s = 2 * requests / truth + 60 * engine.lone_e2e_s(size)
        settings = SearchSettings(slo=slo, requests=requests, point_s=min(longest_s, enough_s), seed=number)
        found, seconds, allowed = search(engine, size, settings)
        nearest = min(allowed, key=lambda load: abs(math.log(load[0] / truth)), default=(truth, settings.point_s))
        point_s = nearest[1]
        tally.add(found, truth, seconds / (RUNGS * point_s))
        if number % LADDER_EVERY == 0:
            low, high = ladder(engine, size, slo, truth, point_s, number)
            tally.ladder_holds += low <= truth <= high
            tally.ladders += 1
        if (number + 1) % PROGRESS_EVERY == 0:
            print(f"{time.perf_counter() - began:.0f} s, {tally.describe()}", file=sys.stderr, flush=True)
    limit = f", {longest_s:g} s" if math.isfinite(longest_s) else ""
    print(f"one rung is a factor {RUNG:.3f}; brackets to {RESOLUTION:g}; up to {requests} requests{limit} a load point")
    print(tally.describe())
    print(f"interval of the ladder itself, at the same seconds a point: {tally.ladder_holds} of {tally.ladders}")
    print(f"took {time.perf_counter() - began:.0f} s")


if __name__ == "__main__":
    given = [float(word) for word in sys.argv[1:]]
    cells, requests, longest_s = given + [200, REQUESTS, math.inf][len(given) :]
    main(int(cells), int(requests), longest_s)
