"""Simulated latencies beside those of a real vLLM on the CPU, under the same requests at the same times.

The clock is fitted to load points of single sizes, once to a profile and once to Poisson arrivals measured just before;
then mixed sizes arrive as a Poisson process at half and four fifths of the rate that the engine sustains for that mix.
Each load is played twice, because on a small machine, where engine and client share the cores, two runs of the same
requests differ, and no clock can be nearer than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from melange.catalog.described import extended_catalog
from melange.catalog.hardware import load_catalog
from melange.measurements.curve import measured_curves
from melange.measurements.file import read_measurements
from melange.measurements.measurement import Measurement
from melange.perfmodel.calibrate import fit, group_of
from melange.perfmodel.clock import StepClock
from melange.perfmodel.hardware import ModelledEngine, step_clock
from melange.profiler.client import CompletionsClient, Endpoint, PromptSource
from melange.profiler.load import Load, RequestRecord, Size
from melange.profiler.loadgen import undisturbed
from melange.profiler.loadpoint import Subject, summarise
from melange.profiler.serving import Serving, probe
from melange.profiler.session import live_measure
from melange.serving.config import ConfigKey
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica

CPU = Path(__file__).resolve().parents[1] / "perfmodel" / "vllm_cpu" / "gpus.yaml"
KEY = ConfigKey("tiny", "CPU", 1, "bf16", "vllm")
SIZES = (Size(16, 64), Size(64, 32), Size(256, 16), Size(256, 64))
IN_FLIGHT = 32
QUANTILES = (50, 99)
LOADS = (0.5, 0.8)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """One quantile in ms: two runs of the same requests on the engine, and simulated by two clocks.

    ``simulated_ms`` is by the clock fitted just before, ``by_profile_ms`` by the one fitted to a profile.
    """

    load: float
    name: str
    measured_ms: tuple[float, float]
    simulated_ms: float
    by_profile_ms: float

    def row(self) -> str:
        first, again = self.measured_ms
        mean, goal = (first + again) / 2, "10%" if "p50" in self.name else "20%"
        return (
            f"{self.load:5.0%} {self.name:9} {first:9.2f} {again:8.2f} {self.simulated_ms:10.2f} "
            f"{self.simulated_ms / mean - 1:+7.1%} {self.by_profile_ms / mean - 1:+15.1%}  {goal}"
        )


HEADING = f"{'load':>5} {'':9} {'measured':>9} {'again':>8} {'simulated':>10} {'error':>7} {'by the profile':>15}  goal"


def compared(url: str, profile: Path, model: Path, *, requests: int, point_s: float) -> Iterator[Compared]:
    """The quantiles of ``requests`` mixed requests at each load, one load after the other."""
    serving = probe(Endpoint(url=url, model="tiny", headers={}))
    fresh = clock_of(poisson_points(serving, point_s), profile, model)
    shared = clock_of([], profile, model)
    capacity_rps = sustained_rps(serving, requests // 2)
    for load in LOADS:
        arrivals = mixed(load * capacity_rps, requests, 2)
        real, again = measured_quantiles(serving, arrivals), measured_quantiles(serving, arrivals)
        simulated, older = simulated_quantiles(fresh, arrivals), simulated_quantiles(shared, arrivals)
        for name in real:
            yield Compared(
                load=load,
                name=name,
                measured_ms=(real[name], again[name]),
                simulated_ms=simulated[name],
                by_profile_ms=older[name],
            )


def poisson_points(serving: Serving, point_s: float) -> list[Measurement]:
    """Single sizes at shares of the rate that 16 requests in flight reach."""
    measure, points = live_measure(serving), []
    for size in SIZES:
        run = measure(Load(size=size, concurrency=16, max_s=point_s, min_requests=100), never, ignore)
        reached_rps = len(run.records) / run.elapsed_s
        for share in (0.25, 0.5, 0.75):
            load = Load(size=size, rate_rps=share * reached_rps, max_s=point_s, min_requests=10**6)
            points.append(summarise(measure(load, never, ignore), Subject(key=KEY)))
    return [point for point in points if point.samples]


def never(run: object) -> bool:
    return False


def ignore(run: object) -> None:
    return None


def clock_of(points: list[Measurement], profile: Path, model: Path) -> StepClock:
    """The clock that load points give, on the engine whose limits the profile's header tells."""
    catalog = extended_catalog(load_catalog(), [CPU], [model / "config.json"])
    shape = next(m for m in catalog.models.values() if m.name not in load_catalog().models)
    (curve,) = measured_curves([read_measurements(profile)])
    assert curve.engine_settings is not None
    assert curve.engine_settings.max_num_seqs == 16
    modelled = ModelledEngine(model=shape, gpu=catalog.gpu("CPU"), precision="bf16", settings=curve.engine_settings)
    chosen = tuple(points) or curve.deciding
    return step_clock(modelled, fit([group_of(modelled, chosen)]).efficiencies)


def mixed(rate_rps: float, count: int, seed: int) -> Arrivals:
    draw = np.random.default_rng(seed)
    row = draw.integers(0, len(SIZES), count)
    return Arrivals(
        arrival_s=np.cumsum(draw.exponential(1 / rate_rps, count)),
        input_tokens=np.array([SIZES[k].input_tokens for k in row]),
        output_tokens=np.array([SIZES[k].output_tokens for k in row]),
        cached_tokens=np.zeros(count, dtype=np.int64),
    )


def play_for_real(serving: Serving, arrivals: Arrivals, in_flight: int | None = None) -> list[RequestRecord]:
    """Send every request at its time, or as soon as fewer than ``in_flight`` are under way."""

    async def run() -> list[RequestRecord]:
        async with CompletionsClient(serving.endpoint, dialect=serving.dialect) as client:
            began = client.clock()
            gate = asyncio.Semaphore(in_flight or len(arrivals))

            async def one(index: int) -> RequestRecord:
                size = Size(int(arrivals.input_tokens[index]), int(arrivals.output_tokens[index]))
                prompt = PromptSource(size, serving.dialect, index).next()
                if in_flight is None:
                    await asyncio.sleep(float(arrivals.arrival_s[index]) - (client.clock() - began))
                async with gate:
                    return await client.complete(prompt, size, began_s=began)

            with undisturbed():
                return await asyncio.gather(*(one(index) for index in range(len(arrivals))))

    records = asyncio.run(run())
    assert all(record.ok for record in records)
    return records


def sustained_rps(serving: Serving, requests: int) -> float:
    """Throughput of the mix while new requests keep arriving, which take the front end's time too."""
    ends = np.sort([record.end_s for record in play_for_real(serving, mixed(1.0, requests, 1), IN_FLIGHT)])
    first, last = requests // 5, 9 * requests // 10 - 1
    return float((last - first) / (ends[last] - ends[first]))


def quantiles(first_s, end_s, arrival_s, tokens) -> dict[str, float]:
    ttft, tpot = 1000 * (first_s - arrival_s), 1000 * (end_s - first_s) / (tokens - 1)
    kept = slice(len(ttft) // 10, None)
    return {
        f"{name} p{q}": float(np.percentile(values[kept], q))
        for name, values in (("TTFT", ttft), ("TPOT", tpot))
        for q in QUANTILES
    }


def measured_quantiles(serving: Serving, arrivals: Arrivals) -> dict[str, float]:
    records = play_for_real(serving, arrivals)
    columns = (np.array([getattr(r, name) for r in records]) for name in ("first_s", "end_s", "sent_s"))
    return quantiles(*columns, arrivals.output_tokens)


def simulated_quantiles(clock: StepClock, arrivals: Arrivals) -> dict[str, float]:
    done = play_replica(clock, arrivals).requests
    return quantiles(done.first_s, done.end_s, done.arrival_s, arrivals.output_tokens)
