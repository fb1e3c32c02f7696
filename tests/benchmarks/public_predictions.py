"""What the performance model says of public points: throughput, TTFT and TPOT under the load of each."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from public_points import Point

from melange.perfmodel.clock import StepClock
from melange.perfmodel.engine_costs import EngineCosts
from melange.perfmodel.hardware import step_clock
from melange.perfmodel.published import FEW_ROUNDS
from melange.perfmodel.steady import SteadyState
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica

MOST_PLAYED = 1000
SPREAD_SIZES = (
    "GPUStack performance lab",
    "dstack benchmarks",
    "vLLM issue 17788",
)  # conversations, where they are short


@dataclass(frozen=True, slots=True, kw_only=True)
class Predicted:
    """Per replica, NaN where the load says nothing of it."""

    output_tokens_per_s: float
    ttft_s: float
    tpot_s: float


def predicted(point: Point, costs: EngineCosts | None = None) -> Predicted:
    """The model's answer to one point.

    ``costs`` stand in place of the engine's own.

    A run of few requests for its concurrency is played as it was, with its fill and its drain; the others are steady.
    """
    clock = step_clock(point.modelled, costs=costs)
    if point.load != "closed":
        return _played(point, clock)
    if point.load == "closed" and point.requests < FEW_ROUNDS * point.concurrency:
        return _played(point, replace(clock, max_num_seqs=max(min(clock.max_num_seqs, round(point.concurrency)), 1)))
    return _closed(point, SteadyState(clock, point.input_tokens, point.output_tokens))


def _closed(point: Point, state: SteadyState) -> Predicted:
    found = state.clients(point.concurrency)
    return Predicted(
        output_tokens_per_s=float(found.rate_rps) * point.output_tokens,
        ttft_s=float(found.ttft_s),
        tpot_s=float(found.tpot_decode_s),
    )


def _played(point: Point, clock: StepClock) -> Predicted:
    count = point.requests if point.load == "batch" else min(point.requests, MOST_PLAYED)
    draw = np.random.default_rng(0)
    inputs, outputs = np.full(count, point.input_tokens), np.full(count, point.output_tokens)
    if point.source in SPREAD_SIZES and point.input_tokens < 400:
        inputs, outputs = (mean * draw.gamma(1.5, 1 / 1.5, count) for mean in (point.input_tokens, point.output_tokens))
    gaps = draw.exponential(1.0 / point.rate_rps, count) if point.load == "open" else np.zeros(count)
    arrivals = Arrivals(
        arrival_s=np.cumsum(gaps),
        input_tokens=np.maximum(inputs.round(), 1).astype(np.int64),
        output_tokens=np.maximum(outputs.round(), 1).astype(np.int64),
        cached_tokens=np.zeros(count, dtype=np.int64),
    )
    requests = play_replica(clock, arrivals).requests
    typical = np.median if point.is_median else np.mean
    sent_s = _sent_s(requests.end_s, round(point.concurrency)) if point.load == "closed" else requests.arrival_s
    steps = np.maximum(requests.output_tokens - 1, 1)
    scale = point.requests / count if point.load == "burst" else 1.0
    return Predicted(
        output_tokens_per_s=float(requests.output_tokens.sum() / requests.end_s.max()),
        ttft_s=float(typical(requests.first_s - sent_s)) * scale,
        tpot_s=float(typical((requests.end_s - requests.first_s) / steps)),
    )


def _sent_s(end_s: np.ndarray, clients: int) -> np.ndarray:
    """When a closed loop of so many clients sends each request: the first at once, another at every end."""
    return np.concatenate([np.zeros(min(clients, len(end_s))), np.sort(end_s)[: max(len(end_s) - clients, 0)]])
