"""What a request takes on an idle replica, in closed form: the least latency that any routing can give it there."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.perfmodel.clock import StepClock


def lone_latency_s(
    clock: StepClock, input_tokens: ArrayLike, output_tokens: ArrayLike, cached_tokens: ArrayLike = 0
) -> tuple[FloatArray, FloatArray]:
    """(TTFT, E2E) in seconds of requests that have the replica to themselves; elementwise, whole tokens.

    A chunked prompt of n new tokens takes ceil(n / max batched tokens) iterations; then each further output token takes
    one iteration over everything computed so far.
    """
    inputs, outputs = np.asarray(input_tokens, float), np.asarray(output_tokens, float)
    cached = np.minimum(np.asarray(cached_tokens, float), inputs - 1.0)
    ttft = clock.front_s + _prompt_s(clock, inputs - cached, cached)
    steps = outputs - 1.0
    bounded = clock.bounded_read_tokens(inputs + outputs / 2.0)
    fixed = clock.iteration_s(decodes=1.0, kv_tokens=0.0) + clock.kv_read_s_per_token * bounded
    # Step g of the decode reads input + g - 1 computed tokens, g = 1 .. steps.
    read = steps * inputs + steps * (steps - 1.0) / 2.0
    return ttft, ttft + steps * fixed + clock.kv_read_s_per_token * read


def _prompt_s(clock: StepClock, new: FloatArray, cached: FloatArray) -> FloatArray:
    size = float(clock.max_batched_tokens) if clock.chunked_prefill else np.inf
    shape = np.broadcast_shapes(new.shape, cached.shape)
    new, cached = np.broadcast_to(new, shape).ravel(), np.broadcast_to(cached, shape).ravel()
    total, done = np.zeros(new.size), np.zeros(new.size)
    left = np.flatnonzero(new > 0)
    while left.size:
        chunk = np.minimum(new[left] - done[left], size)
        context = cached[left] + done[left]
        spent = clock.iteration_s(
            decodes=0.0,
            kv_tokens=context,
            prefill_tokens=chunk,
            prefill_pairs=clock.prefill_pairs(chunk, context),
            prefills=1.0,
            new_requests=np.where(done[left] == 0, 1.0, 0.0),
        )
        total[left] += spent
        done[left] += chunk
        left = left[new[left] > done[left]]
    return total.reshape(shape)
