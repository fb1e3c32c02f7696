"""The least time that a request takes of a replica, whatever runs beside it and however late it may be.

What a replica cannot carry by this measure it cannot carry at all: no latency limit enters, and every figure is one
that continuous batching cannot go below. A decode step reads its own context, a prompt attends to itself, and of an
iteration over n tokens the clock's roofline gives, for any phi in [0, 1],

    step(n) >= F + n * (collective and other per token + phi * compute per token)
    F        = overhead + collective + (1 - phi) * weights read

because max(read, compute) is at least any mean of the two. At most ``max_num_seqs`` sequences share the fixed part F,
and the contexts of those that do fit the KV cache, so each decode step bears at least the part
sigma * context / KV capacity + (1 - sigma) / max_num_seqs of F, for any sigma in [0, 1]. Per request all of it is a
sum, so that it adds up over any mix of sizes. phi and sigma are chosen where the whole workload's sum is largest.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import ArrayLike

from melange.arrays import FloatArray
from melange.perfmodel.clock import StepClock

_PHI = (0.0, 0.25, 0.5, 0.75, 1.0)
_SIGMA = (0.0, 0.5, 1.0)


def least_s(
    clock: StepClock,
    input_tokens: ArrayLike,
    output_tokens: ArrayLike,
    cached_tokens: ArrayLike = 0.0,
    *,
    weights: ArrayLike = 1.0,
) -> FloatArray:
    """(n,) replica-seconds that requests of these sizes take at least; ``weights`` (n,) their rates, up to a factor.

    ``cached_tokens`` are prefix hits. The arrays broadcast. A sum over any mix of the sizes is a lower bound of the
    time that a replica is busy with it.
    """
    inputs, outputs, cached = np.broadcast_arrays(
        np.asarray(input_tokens, float), np.asarray(output_tokens, float), np.asarray(cached_tokens, float)
    )
    cached = np.minimum(cached, inputs - 1.0).clip(0.0)
    new, steps = inputs - cached, np.maximum(outputs - 1.0, 0.0)
    contexts = steps * (inputs + steps / 2.0)
    own = (
        clock.per_request_s
        + clock.per_sequence_s * (1.0 + steps)
        + clock.kv_read_s_per_token * (contexts + cached + steps * clock.bounded_read_tokens(inputs))
        + clock.attention_s_per_pair * clock.prefill_pairs(new, cached)
        + (clock.collective_s_per_token + clock.other_s_per_token) * (new + steps)
    )
    read = float(clock.weights_read_s(1.0))
    capacity = clock.kv_capacity_tokens // clock.block_tokens * clock.block_tokens
    bounds = []
    for phi, sigma in product(_PHI, _SIGMA):
        fixed = clock.overhead_s + clock.collective_s + (1.0 - phi) * read
        part = sigma * contexts / capacity + (1.0 - sigma) * steps / clock.max_num_seqs
        bounds.append(own + phi * clock.compute_s_per_token * (new + steps) + fixed * part)
    return np.asarray(max(bounds, key=lambda bound: float((bound * np.asarray(weights, float)).sum())))
