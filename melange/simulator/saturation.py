"""The throughput of one replica that is never short of requests, as the compiled scheduler plays it."""

from __future__ import annotations

import numpy as np

from melange.arrays import FloatArray
from melange.perfmodel.clock import StepClock
from melange.simulator.arrivals import Arrivals
from melange.simulator.run import play_replica

ROUNDS = 4
"""How many times over the replica's room is filled."""
LEAST_REQUESTS = 200


def saturation_rps(clock: StepClock, input_tokens: FloatArray, output_tokens: FloatArray) -> FloatArray:
    """Requests/s of one replica with a queue that never empties, per size; (n,), sizes in whole tokens.

    The first requests to be admitted are cut short by different amounts, so that the others do not move in step; the
    rate is taken between the ends of the first and the last of them.
    """
    return np.array([_one(clock, round(i), round(o)) for i, o in zip(input_tokens, output_tokens, strict=True)])


def _one(clock: StepClock, input_tokens: int, output_tokens: int) -> float:
    longest = input_tokens + output_tokens
    held = float(clock.held_tokens(longest)) - output_tokens / 2
    room = min(clock.max_num_seqs, int(clock.kv_capacity_tokens / held) + 1)
    count = max(LEAST_REQUESTS, ROUNDS * room)
    outputs = np.full(count, output_tokens, dtype=np.int64)
    outputs[:room] = np.maximum(output_tokens * np.arange(1, room + 1) // room, 1)
    arrivals = Arrivals(
        arrival_s=np.zeros(count),
        input_tokens=np.full(count, input_tokens, dtype=np.int64),
        output_tokens=outputs,
        cached_tokens=np.zeros(count, dtype=np.int64),
    )
    ends = np.sort(play_replica(clock, arrivals).requests.end_s)
    first, last = room, count - 1 - room
    return float((last - first) / (ends[last] - ends[first]))
