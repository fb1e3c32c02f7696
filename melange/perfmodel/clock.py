"""StepClock: how long one engine iteration takes, the one formula behind estimates and simulation.

An iteration runs ``decodes`` sequences one token each, over ``kv_tokens`` cached tokens in all, beside a chunk of
``prefill_tokens`` whose tokens attend to ``prefill_pairs`` (query, key) pairs. With n = decodes + prefill_tokens::

    memory  = weights_read_s(n) + kv_read_s_per_token * kv_tokens
    compute = compute_s_per_token * n + attention_s_per_pair * prefill_pairs
    step    = overhead_s + per_sequence_s * sequences + collective_s + collective_s_per_token * n
              + (memory ** k + compute ** k) ** (1 / k)

where ``weights_read_s(n)`` counts the distinct experts that n tokens touch, E(1 - (1 - a/E)^n) of E with a active.
k = infinity is the roofline's maximum, k = 1 the plain sum; in between the two resources overlap in part.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class StepClock:
    """Parameters of one configuration's iteration time; all times in seconds, per replica."""

    overhead_s: float
    per_sequence_s: float
    per_request_s: float
    weights_s: float
    expert_weights_s: float = 0.0
    expert_share: float = 1.0
    kv_read_s_per_token: float
    compute_s_per_token: float
    attention_s_per_pair: float
    collective_s: float = 0.0
    collective_s_per_token: float = 0.0
    overlap_exponent: float = 8.0
    kv_capacity_tokens: int
    max_num_seqs: int = 256
    max_batched_tokens: int = 2048
    block_tokens: int = 16
    chunked_prefill: bool = True
