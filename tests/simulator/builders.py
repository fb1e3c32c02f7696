"""Clocks and arrivals for tests."""

from __future__ import annotations

import numpy as np

from melange.perfmodel.clock import StepClock
from melange.simulator.arrivals import Arrivals


def clock(**changes: object) -> StepClock:
    values: dict[str, object] = {
        "overhead_s": 2e-3,
        "per_sequence_s": 1e-4,
        "per_request_s": 1e-3,
        "weights_s": 8e-3,
        "kv_read_s_per_token": 5e-7,
        "compute_s_per_token": 6e-5,
        "attention_s_per_pair": 4e-9,
        "kv_capacity_tokens": 16000,
        "max_num_seqs": 32,
        "max_batched_tokens": 512,
    }
    return StepClock(**{**values, **changes})  # type: ignore[arg-type]


def server(service_s: float = 1e-3) -> StepClock:
    """One request at a time, each iteration ``service_s`` long whatever it holds: a single server."""
    tiny = 1e-15
    return clock(
        overhead_s=service_s,
        per_sequence_s=0.0,
        per_request_s=0.0,
        weights_s=tiny,
        kv_read_s_per_token=tiny,
        compute_s_per_token=tiny,
        attention_s_per_pair=1e-20,
        kv_capacity_tokens=10_000_000,
        max_num_seqs=1,
        max_batched_tokens=100_000,
    )


def arrivals(times: object, inputs: object, outputs: object, cached: object = 0) -> Arrivals:
    arrival_s = np.asarray(times, float)
    whole = [np.broadcast_to(np.asarray(v, np.int64), arrival_s.shape).copy() for v in (inputs, outputs, cached)]
    return Arrivals(arrival_s=arrival_s, input_tokens=whole[0], output_tokens=whole[1], cached_tokens=whole[2])


def poisson(rate_rps: float, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).exponential(1 / rate_rps, count).cumsum()
